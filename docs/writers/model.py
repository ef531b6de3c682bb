"""docs/reference/model.md: every key of a model.yaml, from its JSON Schema, which editors read too."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping
from typing import Any

from docs.writers.tables import table

HEAD = """\
# model.yaml

<!-- Written by `make docs` from include/config.py. Edit the descriptions there, not this page. -->

`include/models/<model>/model.yaml` says all there is to say of a model. A key that is not here is an error, and so is a value
outside of what it may be: `make check-models` names file, key and reason. Editors complete the keys with
`include/models/model.schema.json`.

What the limits mean together: [every decision rule](../decision-rules.md). Where to begin: [add a model](../add-a-model.md).

A *name* is made of a-z, 0-9 and _, begins with a letter and has at most 48 characters: it becomes tables, paths and DAG ids.
"""
# What names and addresses must look like, in words.
PATTERNS = {r"^[a-z][a-z0-9_]{0,47}$": "name", r"^[^@\s,;<>]+@[^@\s,;<>]+$": "e-mail address"}


def page(schema: Mapping[str, Any]) -> str:
    """The page of a JSON Schema of models.

    Raises:
        ValueError: if a key says nothing about itself.
    """
    return "\n".join([HEAD, *_section("", schema, schema)]).rstrip() + "\n"


def _section(path: str, node: Mapping[str, Any], schema: Mapping[str, Any]) -> Iterator[str]:
    needed, sections, rows = node.get("required", []), [], []
    for name, field in node["properties"].items():
        key = f"{path}.{name}" if path else name
        if section := _definition(field, schema):
            sections.append((key, section, name in needed))
            continue
        if not field.get("description"):
            raise ValueError(f"{key}: says nothing about itself; give its Field in include/config.py a description")
        default = "**needed**" if name in needed else _value(field.get("default"))
        rows.append((f"`{name}`", _kind(field), default, field["description"]))
    if path and node.get("description"):
        yield f"{' '.join(node['description'].split())}\n"
    if rows:
        yield from table(("Key", "May be", "Unless given", "What it is"), rows)
    for key, section, is_needed in sections:
        yield f"{'#' * (key.count('.') + 2)} `{key}`{' (needed)' if is_needed else ''}\n"
        yield from _section(key, section, schema)


def _definition(field: Mapping[str, Any], schema: Mapping[str, Any]) -> Mapping[str, Any] | None:
    name = field.get("$ref", "").removeprefix("#/$defs/")
    found: Mapping[str, Any] | None = schema.get("$defs", {}).get(name)
    return found if found and "properties" in found else None


def _kind(field: Mapping[str, Any]) -> str:
    """What a value may be, in words."""
    if "anyOf" in field:
        return " or ".join(_kind(each) for each in field["anyOf"])
    if "enum" in field:
        return " or ".join(f"`{value}`" for value in field["enum"])
    if "const" in field:
        return f"`{field['const']}`"
    match field.get("type"):
        case "null":
            return "`null`"
        case "array":
            return f"list of {_several(_kind(field['items']))}" + (", one at least" if field.get("minItems") else "")
        case "object":
            names = field.get("propertyNames", {})
            of = _several(_kind({"type": "string", **names})) if names else "names"
            patterns = field.get("patternProperties")
            values = next(iter(patterns.values())) if patterns else field.get("additionalProperties", {})
            return f"{of}, each with {_kind(values)}"
        case "string":
            if field.get("format") == "date":
                return "date"
            return PATTERNS.get(field.get("pattern", ""), "text")
        case "integer" | "number" as kind:
            return f"{'whole number' if kind == 'integer' else 'number'}{_bounds(field)}"
        case "boolean":
            return "`true` or `false`"
    raise ValueError(f"{field}: a kind of value that this page has no words for; add them to docs/writers/model.py")


def _several(kind: str) -> str:
    """The plural, of those kinds that are one word."""
    return re.sub(
        r"^(name|e-mail address|date|number|whole number)(e?)\b", lambda m: m[1] + ("es" if m[1].endswith("ss") else "s"), kind
    )


def _bounds(field: Mapping[str, Any]) -> str:
    low, high = field.get("minimum", field.get("exclusiveMinimum")), field.get("maximum", field.get("exclusiveMaximum"))
    if low is None and high is None:
        return ""
    ends = [] if low is None else ["from" if "minimum" in field else "above", _number(low)]
    ends += [] if high is None else ["to" if "maximum" in field else "below", _number(high)]
    return f", {' '.join(ends)}"


def _number(value: float) -> str:
    return f"{value:,}" if isinstance(value, int) else f"{value:g}"


def _value(default: Any) -> str:
    return f"`{json.dumps(default, ensure_ascii=False)}`"
