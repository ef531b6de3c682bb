"""The least that two service accounts need: `python -m deploy.gcp.roles` writes roles/, folders.json and grant.sh here.

calls.json has the calls that runs of the DAGs made on the local cloud, those of labels, of messages and of jobs that fail or are
killed beside them, and for Cloud Storage the folders of the lake that they were made in. The roles of Airflow have the
permissions that Google asks for when those calls are made, and no others. What the jobs do, they do as another service account:
what it needs is written down here.

    python -m deploy.gcp.roles --record CALLS.json --lake gs://lake/aileron --templates gs://lake/aileron/templates

makes calls.json anew of what a local cloud answers at /_localcloud/calls.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any, Literal

import yaml

HERE = Path(__file__).resolve().parent
CALLS, ROLES, GRANT, GRANTED = HERE / "calls.json", HERE / "roles", HERE / "grant.sh", HERE / "folders.json"

Calls = Mapping[str, Mapping[str, list[str]]]  # service → operation → folders of the lake, for objects of Cloud Storage
Place = Literal["project", "dataset", "bucket", "read", "write", "replace", "subscription", "account"]

MADE = ("bigquery.tables.create", "bigquery.tables.update", "bigquery.tables.updateData")
# What Google asks for, by call. An insert of a job is told by what the job does.
PERMISSIONS: dict[str, tuple[str, ...]] = {
    "bigquery:jobs.insert query": ("bigquery.jobs.create", "bigquery.tables.getData", *MADE),
    "bigquery:jobs.insert load": ("bigquery.jobs.create", *MADE),
    "bigquery:jobs.insert extract": ("bigquery.jobs.create", "bigquery.tables.export"),
    "bigquery:jobs.insert copy": ("bigquery.jobs.create", "bigquery.tables.getData", *MADE),
    # INFORMATION_SCHEMA.PARTITIONS of a dataset wants all three of tables.
    "bigquery:jobs.query": ("bigquery.jobs.create", *(f"bigquery.tables.{name}" for name in ("get", "getData", "list"))),
    # Whoever has made a job may look at it, read its answer, and stop it.
    **{f"bigquery:jobs.{name}": () for name in ("get", "getQueryResults", "cancel", "list")},
    "bigquery:datasets.get": ("bigquery.datasets.get",),
    "bigquery:tables.get": ("bigquery.tables.get",),
    "bigquery:tables.list": ("bigquery.tables.list",),
    "bigquery:tables.insert": ("bigquery.tables.create",),
    "bigquery:tables.patch": ("bigquery.tables.get", "bigquery.tables.update"),
    "bigquery:tables.delete": ("bigquery.tables.delete",),
    "bigquery:tabledata.list": ("bigquery.tables.get", "bigquery.tables.getData"),
    "bigquerystorage:CreateReadSession": ("bigquery.readsessions.create", "bigquery.tables.getData"),
    "bigquerystorage:ReadRows": ("bigquery.readsessions.getData",),
    "storage:buckets.get": ("storage.buckets.get",),
    "storage:objects.get": ("storage.objects.get",),
    "storage:objects.list": ("storage.objects.list",),
    "storage:objects.insert": ("storage.objects.create",),
    "storage:objects.copy": ("storage.objects.create",),  # of its target; that it reads its source is a call of its own
    "storage:objects.rewrite": ("storage.objects.create",),
    "storage:objects.delete": ("storage.objects.delete",),
    "storagecontrol:GetStorageLayout": ("storage.objects.list",),
    **{
        f"aiplatform:{verb}{kind}": (f"aiplatform.{kind[0].lower()}{kind[1:]}s.{verb.lower()}",)
        for verb in ("Create", "Get", "Cancel")
        for kind in ("CustomJob", "BatchPredictionJob")
    },
    "aiplatform:ListCustomJobs": ("aiplatform.customJobs.list",),
    "aiplatform:ListBatchPredictionJobs": ("aiplatform.batchPredictionJobs.list",),
    "aiplatform:UploadModel": ("aiplatform.models.upload",),
    "aiplatform:GetModel": ("aiplatform.models.get",),
    "aiplatform:ListModels": ("aiplatform.models.list",),
    "aiplatform:ListModelVersions": ("aiplatform.models.list",),
    "aiplatform:MergeVersionAliases": ("aiplatform.models.update",),
    "aiplatform:UpdateModel": ("aiplatform.models.update",),
    # How UploadModel gets on: an operation is asked for with the right to what it makes.
    "longrunning:GetOperation": ("aiplatform.models.get",),
    "dataflow:projects.locations.flexTemplates.launch": ("dataflow.jobs.create",),
    "dataflow:projects.locations.jobs.get": ("dataflow.jobs.get",),
    "dataflow:projects.locations.jobs.list": ("dataflow.jobs.list",),
    "dataflow:projects.locations.jobs.update": ("dataflow.jobs.cancel",),  # nothing else is asked of it
    "dataflow:projects.locations.jobs.messages.list": ("dataflow.messages.list",),
    "pubsub:Pull": ("pubsub.subscriptions.consume",),
    "pubsub:Acknowledge": ("pubsub.subscriptions.consume",),
    # The first figure of a name makes its descriptor.
    "monitoring:CreateTimeSeries": ("monitoring.timeSeries.create", "monitoring.metricDescriptors.create"),
}

# What runs as the jobs' service account, or is told to.
RUNS_AS = (
    *("aiplatform:CreateCustomJob", "aiplatform:CreateBatchPredictionJob"),
    "dataflow:projects.locations.flexTemplates.launch",
)
ACT_AS = "iam.serviceAccounts.actAs"
# Objects that BigQuery reads and writes in the name of who asks, by folder.
OBJECTS_OF_QUERIES: dict[str, dict[str, tuple[str, ...]]] = {
    "bigquery:jobs.insert load": {"storage.objects.get": ("staging",), "storage.objects.list": ()},
    "bigquery:jobs.insert extract": {
        "storage.objects.create": ("staging", "label_queue"),
        "storage.objects.delete": ("staging", "label_queue"),
    },
}
# To write an object again is to delete the one before. A task that is tried again does so here, also when it was killed before
# a snapshot or an artifact was complete. In the ledger and the outbox it never does: a record is written once.
REPLACED = ("evaluations", "label_queue", "models", "monitoring", "staging", "training", "validations")

# A custom job, the model's server and the workers of Dataflow read and write themselves; Vertex AI reads and writes tables of
# BigQuery as an account of its own.
READ_BY_JOBS = ("dataflow", "models", "staging", "templates", "training")
WRITTEN_BY_JOBS = ("dataflow", "staging")
# The launcher of a Flex Template makes the job, as the account that the workers have too. The rest is what Google's own role of
# workers has, without its right to read and make objects of every bucket in the project, and without that to streams.
PROJECT_OF_JOBS = (
    *("dataflow.jobs.create", "dataflow.jobs.get", "dataflow.shuffle.read", "dataflow.shuffle.write"),
    *("dataflow.workItems.lease", "dataflow.workItems.sendMessage", "dataflow.workItems.update"),
    *("autoscaling.sites.readRecommendations", "autoscaling.sites.writeMetrics", "autoscaling.sites.writeState"),
    *("compute.instanceGroupManagers.update", "compute.instances.delete", "compute.instances.setDiskAutoDelete"),
    *("logging.logEntries.create", "logging.logEntries.route", "monitoring.timeSeries.create"),
)

# Where a permission is granted: by the longest beginning of its name that stands here.
PLACES: dict[str, Place] = {
    "aiplatform.": "project",
    "bigquery.": "dataset",
    "bigquery.jobs.": "project",
    "bigquery.readsessions.": "project",
    "dataflow.": "project",
    "monitoring.": "project",
    "storage.buckets.get": "bucket",
    "storage.objects.list": "bucket",
    "storage.objects.get": "read",
    "storage.objects.create": "write",
    "storage.objects.delete": "replace",
    "pubsub.subscriptions.": "subscription",
    ACT_AS: "account",
}
FOLDERS = {"read": "storage.objects.get", "write": "storage.objects.create", "replace": "storage.objects.delete"}
TITLES = {
    "airflow_project": "Aileron: Airflow, in the project",
    "airflow_dataset": "Aileron: Airflow, in the dataset",
    "airflow_subscription": "Aileron: Airflow, of what has landed",
    "jobs_project": "Aileron: jobs, in the project",
    "bucket": "Aileron: names of objects",
    "read": "Aileron: reading objects",
    "write": "Aileron: new objects",
    "replace": "Aileron: other objects in the place of those before",
    "account": "Aileron: to let jobs run as their account",
}


def allowed(calls: Calls) -> dict[str, set[str]]:
    """Permissions of Airflow's account; those on objects with the folders of the lake that they are for.

    Raises:
        ValueError: for a call that nobody knows the permissions of.
    """
    found: dict[str, set[str]] = defaultdict(set)
    for call, folders in _each(calls):
        if call not in PERMISSIONS:
            raise ValueError(f"{call}: its permissions are not known: add it to PERMISSIONS in {Path(__file__).name}")
        for permission in PERMISSIONS[call]:
            found[permission].update(folders if _place(permission) in FOLDERS else ())
        for permission, more in OBJECTS_OF_QUERIES.get(call, {}).items():
            found[permission].update(more)
        if call in RUNS_AS:
            found[ACT_AS] = set()
    found["storage.objects.delete"] |= found["storage.objects.create"] & set(REPLACED)
    return dict(found)


def roles(calls: Calls) -> dict[str, dict[str, Any]]:
    """What `gcloud iam roles create --file` takes, by the end of its id."""
    permissions: dict[str, set[str]] = defaultdict(set)
    for permission in allowed(calls):
        permissions[_role(permission)].add(permission)
    permissions["jobs_project"].update(PROJECT_OF_JOBS)
    for permission in ("storage.buckets.get", "storage.objects.list", *FOLDERS.values(), ACT_AS):
        permissions[_role(permission)].add(permission)
    return {
        name: {
            "title": TITLES[name],
            "description": "Made by python -m deploy.gcp.roles",
            "stage": "GA",
            "includedPermissions": sorted(permissions[name]),
        }
        for name in sorted(permissions)
    }


def folders(calls: Calls) -> dict[str, dict[str, list[str]]]:
    """The folders of the lake that an account has a role on objects for: account → role → folders."""
    airflow = allowed(calls)
    return {
        "airflow": {name: sorted(airflow.get(permission, ())) for name, permission in FOLDERS.items()},
        "jobs": {"read": sorted(READ_BY_JOBS), "write": sorted(WRITTEN_BY_JOBS), "replace": sorted(WRITTEN_BY_JOBS)},
    }


def grants(calls: Calls) -> str:
    """The script that makes the roles and grants them, each where it is needed."""
    granted, made = folders(calls), roles(calls)
    names = " ".join(made)
    lines = [
        "#!/bin/sh",
        "# Makes the roles beside this file in a project, and grants them. Made by python -m deploy.gcp.roles: do not edit.",
        "#   PROJECT=... BUCKET=lake PREFIX=aileron DATASET=aileron REPOSITORY=aileron REGION=us-central1 \\",
        "#   AIRFLOW=composer@... JOBS=aileron-jobs@... [SUBSCRIPTION=aileron-landed] sh deploy/gcp/grant.sh",
        "set -eu",
        ': "${PROJECT:?}" "${BUCKET:?}" "${PREFIX:?}" "${DATASET:?}" "${REPOSITORY:?}" "${REGION:?}" "${AIRFLOW:?}" "${JOBS:?}"',
        'cd "$(dirname "$0")/roles"',
        "",
        f"for role in {names}; do",
        '  gcloud iam roles update "aileron_$role" --project="$PROJECT" --file="$role.yaml" --quiet ||',
        '    gcloud iam roles create "aileron_$role" --project="$PROJECT" --file="$role.yaml" --quiet',
        "done",
        "",
        'role() { echo "projects/$PROJECT/roles/aileron_$1"; }',
        'in_project() { gcloud projects add-iam-policy-binding "$PROJECT" --member="serviceAccount:$1" --role="$2" '
        "--condition=None --quiet; }",
        'in_bucket() { gcloud storage buckets add-iam-policy-binding "gs://$BUCKET" --member="serviceAccount:$1" '
        '--role="$(role "$2")" "--condition=$3" --quiet; }',
        'as_jobs() { gcloud iam service-accounts add-iam-policy-binding "$JOBS" --project="$PROJECT" '
        '--member="serviceAccount:$1" --role="$(role account)" --quiet; }',
        'below() { echo "resource.name.startsWith(\\"projects/_/buckets/$BUCKET/objects/$PREFIX/$1/\\")"; }',
        "folders() {  # a condition: one of these folders of the lake",
        '  title=$1; told=$(below "$2"); shift 2',
        '  for folder in "$@"; do told="$told || $(below "$folder")"; done',
        '  echo "title=$title,expression=$told"',
        "}",
        "",
        "# Airflow",
        'in_project "$AIRFLOW" "$(role airflow_project)"',
        'bq query --project_id="$PROJECT" --use_legacy_sql=false \\',
        '  "GRANT \\`$(role airflow_dataset)\\` ON SCHEMA \\`$PROJECT\\`.$DATASET TO \\"serviceAccount:$AIRFLOW\\""',
        'in_bucket "$AIRFLOW" bucket None',
        *(_in_folders("AIRFLOW", name, there) for name, there in granted["airflow"].items()),
        'as_jobs "$AIRFLOW"',
    ]
    if "airflow_subscription" in made:
        lines += [
            'if [ -n "${SUBSCRIPTION:-}" ]; then',
            '  gcloud pubsub subscriptions add-iam-policy-binding "$SUBSCRIPTION" --project="$PROJECT" \\',
            '    --member="serviceAccount:$AIRFLOW" --role="$(role airflow_subscription)"',
            "fi",
        ]
    lines += [
        "",
        "# The jobs",
        'in_project "$JOBS" "$(role jobs_project)"',
        'gcloud artifacts repositories add-iam-policy-binding "$REPOSITORY" --project="$PROJECT" --location="$REGION" \\',
        '  --member="serviceAccount:$JOBS" --role=roles/artifactregistry.reader',
        'in_bucket "$JOBS" bucket None',
        *(_in_folders("JOBS", name, there) for name, there in granted["jobs"].items()),
        'as_jobs "$JOBS"',
    ]
    return "\n".join(lines) + "\n"


def _in_folders(account: str, role: str, folders: Iterable[str]) -> str:
    return f'in_bucket "${account}" {role} "$(folders aileron_{role} {" ".join(folders)})"'


def _each(calls: Calls) -> Iterator[tuple[str, list[str]]]:
    for service, operations in calls.items():
        for operation, folders in operations.items():
            yield f"{service}:{operation}", folders


def _place(permission: str) -> Place:
    known = max((name for name in PLACES if permission.startswith(name)), key=len, default="")
    if not known:
        raise ValueError(f"{permission}: nobody knows where it is granted: add it to PLACES in {Path(__file__).name}")
    return PLACES[known]


def _role(permission: str) -> str:
    """The role of Airflow's that has it; on objects and accounts there is one role for both accounts."""
    place = _place(permission)
    return f"airflow_{place}" if place in ("project", "dataset", "subscription") else place


def recorded(calls: Iterable[Mapping[str, Any]], lake: str, templates: str) -> dict[str, dict[str, list[str]]]:
    """What calls.json has of a list of calls of the local cloud; calls that it did not offer are not among them.

    Args:
        lake: gs://bucket/prefix; templates: gs://bucket/prefix of the specs of the Flex Templates.

    Raises:
        ValueError: for an object elsewhere. What sets a project up, and lands days in it, is not to be in the list.
    """
    found: dict[str, dict[str, set[str]]] = defaultdict(lambda: defaultdict(set))
    for call in calls:
        if call["service"] == "?" or call["status"] == 501 or ":" in call["operation"]:  # a part of an upload
            continue
        operation, params = call["operation"], call["params"]
        if (call["service"], operation) == ("bigquery", "jobs.insert"):
            (kind,) = {"query", "load", "extract", "copy"} & set(params["body"]["configuration"])
            operation = f"{operation} {kind}"
        if call["service"] != "storage" or operation.startswith("buckets.") or operation == "objects.list":
            found[call["service"]][operation].update()
        elif operation in ("objects.rewrite", "objects.copy"):
            source = f"gs://{params['sourceBucket']}/{params['sourceObject']}"
            found["storage"]["objects.get"].add(_folder(source, lake, templates))
            target = f"gs://{params['destinationBucket']}/{params['destinationObject']}"
            found["storage"][operation].add(_folder(target, lake, templates))
        elif not _of_workers(operation, folder := _folder(f"gs://{call['subject']}", lake, templates)):
            found["storage"][operation].add(folder)
    return {
        service: {operation: sorted(folders) for operation, folders in sorted(operations.items())}
        for service, operations in sorted(found.items())
    }


def _of_workers(operation: str, folder: str) -> bool:
    """The log does not say who has called; but this only workers of Dataflow do."""
    return folder == "dataflow" or (operation == "objects.delete" and folder in WRITTEN_BY_JOBS)


def _folder(uri: str, lake: str, templates: str) -> str:
    if uri.startswith(f"{templates}/"):
        return "templates"
    if not uri.startswith(f"{lake}/"):
        raise ValueError(f"{uri}: is not in the lake {lake}, nor among the templates {templates}")
    return uri.removeprefix(f"{lake}/").partition("/")[0]


def text(document: Any) -> str:
    return json.dumps(document, indent=2) + "\n"


def files(calls: Calls) -> dict[Path, str]:
    """What is made of the calls."""
    made = {ROLES / f"{name}.yaml": yaml.safe_dump(role, sort_keys=False) for name, role in roles(calls).items()}
    return {**made, GRANT: grants(calls), GRANTED: text(folders(calls))}


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m deploy.gcp.roles", description=__doc__)
    parser.add_argument("--check", action="store_true", help="write nothing; fail if the files are not what would be written")
    parser.add_argument("--record", type=Path, metavar="CALLS.json", help="first make calls.json of these calls")
    parser.add_argument("--lake", help="gs://bucket/prefix that they were made in")
    parser.add_argument("--templates", help="gs://bucket/prefix of the templates")
    given = parser.parse_args()
    if given.record:
        if not given.lake or not given.templates:
            parser.error("--record wants --lake and --templates")
        document = json.loads(given.record.read_text())
        CALLS.write_text(text(recorded(document["calls"], given.lake, given.templates)))
    wanted = files(json.loads(CALLS.read_text()))
    stale = [file for file, content in wanted.items() if not file.is_file() or file.read_text() != content]
    left = [file for file in ROLES.glob("*.yaml") if file not in wanted]
    if given.check and (stale or left):
        print(f"{', '.join(file.name for file in [*stale, *left])}: stale, run python -m deploy.gcp.roles", file=sys.stderr)
        return 1
    ROLES.mkdir(exist_ok=True)
    for file in stale:
        file.write_text(wanted[file])
    for file in left:
        file.unlink()
    return 0


if __name__ == "__main__":
    sys.exit(main())
