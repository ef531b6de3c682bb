"""MLflow as the registry: embedded in a SQLite file, or a server. Only its database is used, never its model loading.

Each version has a run with the parameters and metrics of its training. The files of the model stay in the lake; what
is trusted is the tag `manifest_sha256`, which `core.artifacts` compares with the files before it loads them.
"""

from __future__ import annotations

import fcntl
import json
import logging
import math
import os
import re
import time
from collections.abc import Generator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from include.registry.base import ALIASES, Alias, ModelVersion, RegistryUnavailable, TrainingData, UnknownVersion

if TYPE_CHECKING:
    from mlflow import MlflowClient
    from mlflow.entities import DatasetInput

LOCK_SECONDS = 120
ARTIFACT, MANIFEST, METRICS = "artifact", "manifest_sha256", "metrics"
APPROVAL = "approval"
# Said before MLflow is imported. A task would rather fail and be retried by Airflow than wait here for minutes.
ENVIRONMENT = {
    "MLFLOW_DISABLE_TELEMETRY": "true",
    "DO_NOT_TRACK": "true",
    "MLFLOW_HTTP_REQUEST_MAX_RETRIES": "3",
    "MLFLOW_HTTP_REQUEST_TIMEOUT": "20",
}


class MlflowRegistry:
    """See `registry.base.Registry` for what each method promises."""

    def __init__(self, uri: str) -> None:
        self.uri = uri

    def register(
        self,
        model: str,
        artifact: str,
        manifest_sha256: str,
        metrics: Mapping[str, float | None],
        tags: Mapping[str, str],
        parameters: Mapping[str, object] | None = None,
        data: TrainingData | None = None,
    ) -> ModelVersion:
        _check_name(model)
        if not re.fullmatch(r"[0-9a-f]{64}", manifest_sha256):
            raise ValueError(f"manifest_sha256 {manifest_sha256!r} is no SHA-256: give what save_artifact returned")
        with self._connected() as client:
            registered = self._with_manifest(client, model, manifest_sha256)
            if registered:
                return registered
            measured = {name: float(value) for name, value in metrics.items() if value is not None and math.isfinite(value)}
            _create(lambda: client.create_registered_model(model))
            run = self._run(client, model, artifact, manifest_sha256, measured, tags, parameters or {}, data)
            version = client.create_model_version(
                model,
                source=self._source(artifact, run),
                run_id=run,
                tags={**tags, ARTIFACT: artifact, MANIFEST: manifest_sha256, METRICS: json.dumps(measured)},
            )
            # Somebody else may have registered the same files since we looked. Versions are counted up one by one, so
            # whoever has the higher one sees the lower one by now, and takes his back.
            first = self._with_manifest(client, model, manifest_sha256)
            if first is None:
                raise RegistryUnavailable(f"{_shown(self.uri)}: version {version.version} of {model} is gone again: call again")
            if first.version != str(version.version):
                client.delete_model_version(model, str(version.version))
            return first

    def version(self, model: str, version: str) -> ModelVersion:
        _check_name(model)
        if not re.fullmatch(r"[1-9][0-9]{0,8}", version):
            raise UnknownVersion(f"{model} has no version {version!r}: versions are numbers such as 3; see the registry")
        with self._connected() as client:
            return self._version(client, model, version)

    def alias(self, model: str, alias: Alias) -> ModelVersion | None:
        _check_name(model)
        _check_alias(alias)
        from mlflow.exceptions import MlflowException

        with self._connected() as client:
            try:
                return _model_version(client.get_model_version_by_alias(model, alias))
            except MlflowException as error:
                # A missing alias has no error code of its own. What it says is not relied on: the model's aliases are asked.
                if error.error_code not in ("RESOURCE_DOES_NOT_EXIST", "INVALID_PARAMETER_VALUE"):
                    raise
            try:
                points_at = client.get_registered_model(model).aliases.get(alias)
            except MlflowException as error:
                if error.error_code == "RESOURCE_DOES_NOT_EXIST":
                    return None
                raise
            return None if points_at is None else self._version(client, model, str(points_at))

    def set_alias(self, model: str, alias: Alias, version: str) -> None:
        _check_alias(alias)
        self.version(model, version)
        with self._connected() as client:
            client.set_registered_model_alias(model, alias, version)

    def record_approval(self, model: str, version: str, approved: bool, why: str) -> None:
        """See `Registry`."""
        self.version(model, version)
        with self._connected() as client:
            client.set_model_version_tag(model, version, APPROVAL, f"{'approved' if approved else 'rejected'}: {why}"[:500])

    @contextmanager
    def _connected(self) -> Generator[MlflowClient, None, None]:
        """A client; whatever it raises that is not ours comes out as RegistryUnavailable."""
        try:
            with _one_at_a_time(self.uri):
                yield _client(self.uri)
        except (RegistryUnavailable, UnknownVersion, ValueError):
            raise
        except Exception as error:
            # Not chained: MLflow's own message has the whole address, and the address may have a password.
            reason = f"{type(error).__name__}: {_shown(' '.join(str(error).split()))[:300]}"
            raise RegistryUnavailable(
                f"the registry {_shown(self.uri)} does not work ({reason}): check AILERON_REGISTRY, then try again"
            ) from None

    def _version(self, client: MlflowClient, model: str, version: str) -> ModelVersion:
        from mlflow.exceptions import MlflowException

        try:
            return _model_version(client.get_model_version(model, version))
        except MlflowException as error:
            if error.error_code != "RESOURCE_DOES_NOT_EXIST":
                raise
            raise UnknownVersion(f"{model} has no version {version} in {_shown(self.uri)}: choose one that is there") from None

    def _with_manifest(self, client: MlflowClient, model: str, manifest_sha256: str) -> ModelVersion | None:
        """The first of the versions with this manifest."""
        found = client.search_model_versions(f"name = '{model}' and tags.{MANIFEST} = '{manifest_sha256}'")
        return min((_model_version(one) for one in found), key=lambda one: int(one.version), default=None)

    def _run(
        self,
        client: MlflowClient,
        model: str,
        artifact: str,
        manifest_sha256: str,
        metrics: Mapping[str, float],
        tags: Mapping[str, str],
        parameters: Mapping[str, object],
        data: TrainingData | None,
    ) -> str:
        """The id of the MLflow run of this training: the one that an attempt before finished, or a new one."""
        from mlflow.entities import Metric, Param

        if client.get_experiment_by_name(model) is None:
            location = artifact.rpartition("/")[0] if self._is_embedded else None
            _create(lambda: client.create_experiment(model, artifact_location=location))
        experiment = client.get_experiment_by_name(model)
        if experiment is None:
            raise RegistryUnavailable(f"{_shown(self.uri)}: experiment {model} is gone again: call again")
        for run in client.search_runs([experiment.experiment_id], f"tags.{MANIFEST} = '{manifest_sha256}'"):
            if run.info.status == "FINISHED":
                return run.info.run_id
            client.set_terminated(run.info.run_id, "KILLED")
        run = client.create_run(
            experiment.experiment_id,
            tags={**tags, MANIFEST: manifest_sha256, ARTIFACT: artifact},
            run_name=manifest_sha256[:12],
        )
        if data is not None:
            client.log_inputs(run.info.run_id, [_dataset(data)])
        now = int(time.time() * 1000)
        client.log_batch(
            run.info.run_id,
            metrics=[Metric(name, value, now, 0) for name, value in metrics.items()],
            params=[Param(name, str(value)) for name, value in parameters.items()],
        )
        client.set_terminated(run.info.run_id)
        return run.info.run_id

    def _source(self, artifact: str, run: str) -> str:
        """Where MLflow shows the files to be. A server refuses folders of its clients; there the tag alone says it."""
        return artifact if self._is_embedded or "://" in artifact.replace("file://", "") else f"runs:/{run}/artifact"

    @property
    def _is_embedded(self) -> bool:
        return self.uri.startswith("sqlite:")


def _dataset(data: TrainingData) -> DatasetInput:
    """What the page of a run shows under "Datasets used"."""
    from mlflow.entities import Dataset, DatasetInput, InputTag

    dataset = Dataset(
        name=data.snapshot,
        digest=data.sha256[:36],  # no column of MLflow's database is wider
        source_type="local" if "://" not in data.source else data.source.partition("://")[0],
        source=json.dumps({"uri": data.source}),
        profile=json.dumps({"num_rows": data.rows}),
    )
    return DatasetInput(dataset, [InputTag("mlflow.data.context", "training")])


def _client(uri: str) -> MlflowClient:
    for name, value in ENVIRONMENT.items():
        os.environ.setdefault(name, value)
    for name in ("mlflow", "alembic"):
        logging.getLogger(name).setLevel(logging.WARNING)
    from mlflow import MlflowClient

    path = _file(uri)
    if path is not None and not path.exists():
        _make_database(path)
    return MlflowClient(tracking_uri=uri, registry_uri=uri)


def _make_database(path: Path) -> None:
    """Let MLflow make its tables in a file beside, so that a process killed here leaves no half of them."""
    from mlflow import MlflowClient

    temporary = path.with_name(f".{path.name}.tmp")
    temporary.unlink(missing_ok=True)
    MlflowClient(tracking_uri=f"sqlite:///{temporary}", registry_uri=f"sqlite:///{temporary}").search_experiments(max_results=1)
    temporary.replace(path)


@contextmanager
def _one_at_a_time(uri: str) -> Generator[None, None, None]:
    """Let one process after the other use a SQLite file: MLflow makes its tables at the first use, and writes without waiting."""
    path = _file(uri)
    if path is None:
        yield
        return
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.with_name(f"{path.name}.lock").open("w") as lock:
        deadline = time.monotonic() + LOCK_SECONDS
        while True:
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
                break
            except BlockingIOError:
                if time.monotonic() > deadline:
                    raise RegistryUnavailable(f"{path}: another process uses it for over {LOCK_SECONDS} s: run again") from None
                time.sleep(0.05)
        yield


def _file(uri: str) -> Path | None:
    return Path(uri.removeprefix("sqlite:///")) if uri.startswith("sqlite:///") else None


def _create(create: Any) -> None:
    """Create what may be there already, made by another process or an attempt before."""
    from mlflow.exceptions import MlflowException

    try:
        create()
    except MlflowException as error:
        if error.error_code != "RESOURCE_ALREADY_EXISTS":
            raise


def _model_version(found: Any) -> ModelVersion:
    tags = found.tags
    if ARTIFACT not in tags or MANIFEST not in tags:
        raise UnknownVersion(
            f"version {found.version} of {found.name} has no {MANIFEST}, so its files cannot be checked: register it from here"
        )
    return ModelVersion(found.name, str(found.version), tags[ARTIFACT], tags[MANIFEST], json.loads(tags.get(METRICS, "{}")))


def _check_name(model: str) -> None:
    """Names stand in filter strings."""
    if not re.fullmatch(r"[a-z][a-z0-9_]{0,47}", model):
        raise ValueError(f"{model!r} cannot be the name of a model: a-z, 0-9 and _ only")


def _check_alias(alias: str) -> None:
    if alias not in ALIASES:
        raise ValueError(f"{alias!r} is no alias: {', '.join(ALIASES)}")


def _shown(uri: str) -> str:
    """Without the password."""
    return re.sub(r"//[^@/]*@", "//", uri)
