"""Bundles for Amazon MWAA and Cloud Composer: `python -m deploy.cli bundle mwaa`, then `... deploy mwaa --environment prod`."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

from deploy import bundle as bundles
from deploy.bundle import BUNDLES, DIRTY, MANIFEST, SERVICES, TARGETS, Unbuildable
from deploy.release import Failed, Interfered, Patience, Refused, Release, Service


def main(arguments: list[str] | None = None) -> int:
    asked = _asked(arguments)
    try:
        asked.run(asked)
    except (Unbuildable, Refused, Failed, Interfered, OSError) as error:
        print(f"ERROR: {error}", file=sys.stderr)
        return 1
    return 0


def build(asked: argparse.Namespace) -> None:
    if asked.settings and asked.target != "mwaa":
        raise Unbuildable("Cloud Composer has its variables from the definition of the environment: leave SETTINGS out")
    settings = bundles.read_settings(asked.settings) if asked.settings else {}
    bundle = bundles.build(asked.target, _folder(asked), settings)
    dags = sum(len(ids) for ids in bundle.manifest["dags"].values())
    print(f"{bundle.folder}: {len(bundle.manifest['files'])} files, {dags} DAGs, revision {bundle.manifest['revision']}")
    for name, tag in bundle.manifest["images"].items():
        context = bundle.folder / "jobs" / f"{name}.tar"
        print(f"image of jobs: docker build --file {SERVICES[asked.target].images[name]} --tag {name}:{tag} - < {context}")


def deploy(asked: argparse.Namespace) -> None:
    bundle = bundles.read(_folder(asked))
    _check(bundle.manifest, asked)
    service = service_of(asked)
    service.check(bundle.manifest)
    patience = Patience(**{name: getattr(asked, f"{name}_seconds") for name in asdict(Patience())})
    release = Release(service, patience, lambda line: print(line, flush=True), asked.overwrite)
    files = {**bundle.files, MANIFEST: (bundle.folder / MANIFEST).read_bytes()}
    print(f"{bundle.manifest['revision']} to {asked.environment}:", *release.plan(files).lines(), sep="\n", flush=True)
    if not asked.dry_run:
        release.deploy(files)


def service_of(asked: argparse.Namespace) -> Service:
    # The client of a cloud is needed for that cloud only.
    if asked.target == "mwaa":
        from deploy.mwaa import Mwaa

        return Mwaa(asked.environment)
    from deploy.composer import Composer

    return Composer(asked.environment, asked.project, asked.location)


def _check(manifest: Mapping[str, Any], asked: argparse.Namespace) -> None:
    if manifest["target"] != asked.target:
        raise Refused(f"the bundle is for {manifest['target']}: build it with TARGET={asked.target}")
    if manifest["revision"].endswith(DIRTY) and not (asked.dirty or asked.dry_run):
        raise Refused("the bundle has what was not committed, so nobody could tell what runs: commit and build again, or DIRTY=1")


def _folder(asked: argparse.Namespace) -> Path:
    return asked.folder or BUNDLES / asked.target


def _asked(arguments: list[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m deploy.cli", description=__doc__)
    commands = parser.add_subparsers(required=True)
    building = commands.add_parser("bundle", help="build what the service reads")
    building.set_defaults(run=build)
    building.add_argument("target", choices=TARGETS)
    building.add_argument("--settings", type=Path, help="file with the AILERON_... variables of the environment (mwaa)")
    deploying = commands.add_parser("deploy", help="bring a bundle that was built into an environment")
    deploying.set_defaults(run=deploy)
    deploying.add_argument("target", choices=TARGETS)
    deploying.add_argument("--environment", required=True, help="its name")
    deploying.add_argument("--project", default="", help="of Cloud Composer")
    deploying.add_argument("--location", default="", help="of Cloud Composer, such as us-central1")
    deploying.add_argument("--dry-run", action="store_true", help="say what would be done, and do nothing")
    deploying.add_argument("--overwrite", action="store_true", help="also files of which no deployment knows")
    deploying.add_argument("--dirty", action="store_true", help="also a bundle of what was not committed")
    for name, default in asdict(Patience()).items():
        deploying.add_argument(f"--{name}-seconds", type=float, default=default)
    for command in (building, deploying):
        command.add_argument("--folder", type=Path, help="of the bundle; .local/bundles/<target> if it is not given")
    return parser.parse_args(arguments)


if __name__ == "__main__":
    sys.exit(main())
