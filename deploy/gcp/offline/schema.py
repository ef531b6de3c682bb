"""What the Google provider of Terraform takes, read from its bindings for TypeScript: attributes, blocks, what is required.

The bindings are made of the provider's own schema, and are to be had from a package registry; the provider itself is not.
"""

from __future__ import annotations

import importlib.util
import io
import re
import tarfile
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

ENTRY = re.compile(
    r"^\s+(?P<name>\w+): \{\s+value: (?P<value>.*?),\s+isBlock: (?P<block>true|false),"
    r"\s+type: \"(?P<type>\w+)\",\s+storageClassType: \"(?P<of>\w+)\"",
    re.MULTILINE | re.DOTALL,
)
FUNCTION = re.compile(r"^function (\w+)ToHclTerraform\(struct\) \{\n(.*?)^\}", re.MULTILINE | re.DOTALL)
MAIN = re.compile(
    r"^class (\w+) extends cdktn\.Terraform(?:Resource|DataSource|Provider) \{\n"
    r"(.*?)synthesizeHclAttributes\(\) \{\n(.*?)^    \}",
    re.MULTILINE | re.DOTALL,
)
INTERFACE = r"^export interface {name} (?:extends [\w.]+ )?\{{\n(.*?)^\}}"
PROPERTY = re.compile(r"/docs(?:/[\w-]+)*#(\w+) .*?readonly \w+(\??):", re.DOTALL)
COMPUTED = re.compile(r"get(String|Number|Boolean|List|StringMap)Attribute\('(\w+)'\)|new cdktn\.(StringMap)\(this, \"(\w+)\"\)")
COMPUTED_OBJECTS = re.compile(r"new \w+(?:List|OutputReference)\(this, \"(\w+)\"")

SIMPLE = {"string": "string", "number": "number", "boolean": "bool", "String": "string", "Number": "number", "Boolean": "bool"}


class UnknownType(ValueError):
    """The provider has no such resource."""


def schemas(resources: Iterable[str], data_sources: Iterable[str]) -> dict[str, Any]:
    """The schema of the provider, and those of the types that are asked for.

    Raises:
        UnknownType: for a type that the provider does not have.
    """
    wanted = {"provider": "provider"}
    wanted |= {name: name.removeprefix("google_").replace("_", "-") for name in resources}
    wanted |= {f"data.{name}": f"data-{name}".replace("_", "-") for name in data_sources}
    sources = _sources({f"package/lib/{folder}/index" for folder in wanted.values()})
    found = {}
    for name, folder in wanted.items():
        file = f"package/lib/{folder}/index"
        if f"{file}.js" not in sources:
            raise UnknownType(f"{name}: the provider has no such type")
        found[name] = _schema(sources[f"{file}.js"], sources[f"{file}.d.ts"])
    return found


def _sources(files: set[str]) -> dict[str, str]:
    """Two sources for each file, of the archive in the package."""
    package = importlib.util.find_spec("cdktn_provider_google")  # itself it is slow, and wants Node
    assert package is not None and package.submodule_search_locations, "make lint-deploy installs it"
    (archive,) = (Path(package.submodule_search_locations[0]) / "_jsii").glob("*.tgz")
    found = {}
    with tarfile.open(fileobj=io.BytesIO(archive.read_bytes())) as opened:
        for entry in opened:
            name = entry.name.removesuffix(".js").removesuffix(".d.ts")
            if name in files and entry.name != name and (file := opened.extractfile(entry)):
                found[entry.name] = file.read().decode()
    return found


def _schema(code: str, types: str) -> dict[str, Any]:
    main = MAIN.search(code)
    assert main is not None, "bindings of another generator"
    functions = dict(FUNCTION.findall(code))

    def required(interface: str) -> set[str]:
        body = re.search(INTERFACE.format(name=interface), types, re.MULTILINE | re.DOTALL)
        return {name for name, optional in PROPERTY.findall(body[1]) if not optional} if body else set()

    def block(entries: str, interface: str) -> dict[str, Any]:
        needed = required(interface)
        made: dict[str, dict[str, Any]] = {"attributes": {}, "blocks": {}}
        for entry in ENTRY.finditer(entries):
            name, inner = entry["name"], re.search(r"(?<!cdktn\.)\b(\w+)ToHclTerraform", entry["value"])
            if inner:
                struct = inner[1]
                nesting = {"list": 2, "set": 3, "struct": 1}[entry["type"]]
                made["blocks"][name] = {
                    "nesting": nesting,
                    "required": name in needed,
                    **block(functions[struct], struct[0].upper() + struct[1:]),
                }
            else:
                made["attributes"][name] = {
                    "type": _type(entry["type"], entry["of"]),
                    "required": name in needed,
                    "computed": name == "id" and name not in needed,
                }
        return made

    made = block(main[3], f"{main[1]}Config")
    for name, kind in _computed(main[2]):
        if name not in made["attributes"] and name not in made["blocks"]:
            made["attributes"][name] = {"type": kind, "required": False, "computed": True, "only": True}
    return made


def _computed(body: str) -> Iterator[tuple[str, Any]]:
    """Attributes that only the provider sets."""
    for kind, name, kind_of_map, name_of_map in COMPUTED.findall(body):
        if kind == "List":
            yield name, ["list", "string"]
        elif kind == "StringMap" or kind_of_map:
            yield name or name_of_map, ["map", "string"]
        else:
            yield name, SIMPLE[kind]
    for name in COMPUTED_OBJECTS.findall(body):
        yield name, "dynamic"


def _type(outer: str, inner: str) -> Any:
    """As Terraform writes types: "string", ["list", "string"]."""
    if outer == "simple":
        return SIMPLE[inner]
    return [outer, SIMPLE.get(re.sub(r"(List|Map|Set)$", "", inner), "string")]
