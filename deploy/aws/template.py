"""The roles' policies in infrastructure.yaml: `python -m deploy.aws.template` puts policy.json and job-policy.json there."""

from __future__ import annotations

import argparse
import json
import re
import sys
from pathlib import Path
from typing import Any

import yaml

HERE = Path(__file__).resolve().parent
TEMPLATE = HERE / "infrastructure.yaml"
# What the placeholders of the policies are in the template. Those with a colon are IAM's own.
PLACES = {
    "Bucket": "Lake",
    "Role": "JobsRole",
    "AccountId": "AWS::AccountId",
    "Region": "AWS::Region",
    **{name: name for name in ("Prefix", "Database", "Workgroup")},
}
BLOCK = re.compile(r"^(?P<indent> *)# >>> (?P<file>[\w.-]+), .*\n(?P<policy>(?:.*\n)*?)(?P=indent)# <<<$", re.MULTILINE)


class Substituted(str):
    """A string with places in it, which CloudFormation fills."""


class Dumper(yaml.SafeDumper):
    """YAML as the template has it."""

    def increase_indent(self, flow: bool = False, indentless: bool = False) -> None:
        super().increase_indent(flow, False)

    def ignore_aliases(self, data: Any) -> bool:
        return True


Dumper.add_representer(Substituted, lambda dumper, text: dumper.represent_scalar("!Sub", str(text)))


def filled(template: str) -> str:
    """The template with what the policies are now.

    Raises:
        KeyError: for a placeholder that is not in PLACES.
    """

    def block(found: re.Match[str]) -> str:
        policy = yaml.dump(
            _substituted(json.loads((HERE / found["file"]).read_text())), Dumper=Dumper, sort_keys=False, width=200
        )
        first, *_, last = found[0].splitlines(keepends=True)
        return first + "".join(f"{found['indent']}{line}" for line in policy.splitlines(keepends=True)) + last

    return BLOCK.sub(block, template)


def _substituted(document: Any) -> Any:
    if isinstance(document, dict):
        return {key: _substituted(value) for key, value in document.items()}
    if isinstance(document, list):
        return [_substituted(value) for value in document]
    if isinstance(document, str) and re.search(r"\$\{[^}:]+\}", document):
        return Substituted(re.sub(r"\$\{([^}]+)\}", _place, document))
    return document


def _place(found: re.Match[str]) -> str:
    return f"${{!{found[1]}}}" if ":" in found[1] else f"${{{PLACES[found[1]]}}}"


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m deploy.aws.template", description=__doc__)
    parser.add_argument("--check", action="store_true", help="write nothing; fail if the template is not what would be written")
    check = parser.parse_args().check
    now = TEMPLATE.read_text()
    wanted = filled(now)
    if check and wanted != now:
        print(f"{TEMPLATE.name} is stale: run make policy", file=sys.stderr)
        return 1
    TEMPLATE.write_text(wanted)
    return 0


if __name__ == "__main__":
    sys.exit(main())
