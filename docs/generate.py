"""Writes the pages of docs/ that come from code (make docs), or says which are stale (python -m docs.generate --check)."""

from __future__ import annotations

import argparse
import os
import sys
import tempfile
from pathlib import Path

REPOSITORY = Path(__file__).resolve().parent.parent
DOCS = REPOSITORY / "docs"


def generate() -> dict[Path, str]:
    """Every page that is written from code, or has tables that are, as it should be now."""
    from docs.writers import commands, dags, decisions, model, rules, settings
    from include.cli import parser
    from include.config import ModelConfig, load_models
    from include.platforms.aws import settings as aws
    from include.platforms.gcp import settings as gcp

    clouds = {
        "On AWS": (aws.AwsSettings, aws.PREFIX, aws.PATTERNS),
        "On Google Cloud": (gcp.GcpSettings, gcp.PREFIX, gcp.PATTERNS),
    }
    return {
        DOCS / "dags.md": dags.page(dags.all_dags(REPOSITORY / "dags"), load_models()),
        DOCS / "reference" / "model.md": model.page(ModelConfig.model_json_schema()),
        DOCS / "reference" / "commands.md": commands.page((REPOSITORY / "Makefile").read_text(), parser()),
        DOCS / "reference" / "settings.md": settings.page(REPOSITORY, clouds),
        DOCS / "adr" / "index.md": decisions.page(DOCS / "adr"),
        DOCS / "decision-rules.md": rules.filled((DOCS / "decision-rules.md").read_text()),
    }


def stale() -> list[str]:
    """The pages that are not what they should be."""
    return [
        str(page.relative_to(REPOSITORY)) for page, text in generate().items() if not page.is_file() or page.read_text() != text
    ]


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m docs.generate", description=__doc__)
    parser.add_argument("--check", action="store_true", help="write nothing; fail if a page is not what would be written")
    check = parser.parse_args().check
    # What is written must not depend on how this shell is set up.
    for name in [name for name in os.environ if name.startswith(("AILERON_", "AIRFLOW_"))]:
        del os.environ[name]
    with tempfile.TemporaryDirectory() as home:
        os.environ |= {"AIRFLOW_HOME": home, "AIRFLOW__CORE__LOAD_EXAMPLES": "False", "AIRFLOW__LOGGING__LOGGING_LEVEL": "ERROR"}
        if check:
            found = stale()
            if found:
                print(f"{', '.join(found)}: stale; run make docs and commit what changes", file=sys.stderr)
            return 1 if found else 0
        for page, text in generate().items():
            page.write_text(text)
    return 0


if __name__ == "__main__":
    sys.exit(main())
