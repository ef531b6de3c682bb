"""The registry on real MLflow stores: one version for one model, whoever asks and however often."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections import Counter
from pathlib import Path

import pytest

from include.registry import registry
from include.registry.base import ModelVersion, RegistryUnavailable, TrainingData, UnknownVersion
from include.registry.mlflow import MlflowRegistry

A, B, C = ("a" * 64, "b" * 64, "c" * 64)


@pytest.fixture(scope="module")
def empty(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A database with MLflow's tables; making them takes seconds."""
    path = tmp_path_factory.mktemp("mlflow") / "registry.db"
    assert MlflowRegistry(f"sqlite:///{path}").alias("flight_delays", "champion") is None
    return path


@pytest.fixture
def models(empty: Path, tmp_path: Path) -> MlflowRegistry:
    path = tmp_path / "registry.db"
    path.write_bytes(empty.read_bytes())
    return MlflowRegistry(f"sqlite:///{path}")


def register(models: MlflowRegistry, manifest: str, model: str = "flight_delays", **metrics: float | None) -> ModelVersion:
    data = TrainingData("s1", "d" * 64, "/lake/training/s1/data.parquet", 900)
    place = f"/lake/models/{model}/{manifest[:8]}"
    return models.register(model, place, manifest, metrics, {"snapshot": "s1"}, {"trees": 20}, data)


def test_the_environment_chooses_the_registry(lake: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    chosen = registry()
    assert isinstance(chosen, MlflowRegistry)
    assert chosen.uri == f"sqlite:///{lake}/registry.db"
    monkeypatch.setenv("AILERON_REGISTRY", "ftp://registry")
    with pytest.raises(ValueError, match="AILERON_REGISTRY 'ftp://registry'"):
        registry()


def test_a_version_is_what_was_registered(models: MlflowRegistry) -> None:
    version = register(models, A, auc=0.7, brier=0.1, average_precision=None, log_loss=float("nan"))
    assert version == ModelVersion("flight_delays", "1", "/lake/models/flight_delays/aaaaaaaa", A, {"auc": 0.7, "brier": 0.1})
    assert models.version("flight_delays", "1") == version


def test_the_same_manifest_is_the_same_version(models: MlflowRegistry) -> None:
    first = register(models, A, auc=0.7)
    assert register(models, B).version == "2"
    assert register(models, A, auc=0.9) == first
    assert register(models, A, model="other").version == "1"


def test_each_version_has_a_finished_run_with_parameters_and_metrics(models: MlflowRegistry) -> None:
    from mlflow import MlflowClient

    register(models, A, auc=0.7)
    register(models, A, auc=0.7)
    client = MlflowClient(models.uri, models.uri)
    version = client.get_model_version("flight_delays", "1")
    run = client.get_run(version.run_id)
    assert (run.data.metrics, run.data.params, run.info.status) == ({"auc": 0.7}, {"trees": "20"}, "FINISHED")
    assert version.source == "/lake/models/flight_delays/aaaaaaaa"
    assert version.tags["snapshot"] == run.data.tags["snapshot"] == "s1"
    (used,) = run.inputs.dataset_inputs
    assert (used.dataset.name, used.dataset.digest) == ("s1", "d" * 36) and "/lake/training/s1" in used.dataset.source
    assert len(client.search_runs([run.info.experiment_id])) == 1


def test_aliases_move_and_are_found(models: MlflowRegistry) -> None:
    one, two = register(models, A), register(models, B)
    assert models.alias("flight_delays", "champion") is None
    models.set_alias("flight_delays", "champion", one.version)
    models.set_alias("flight_delays", "challenger", two.version)
    assert models.alias("flight_delays", "champion") == one
    for _ in range(2):
        models.set_alias("flight_delays", "champion", two.version)
        models.set_alias("flight_delays", "previous", one.version)
    assert models.alias("flight_delays", "champion") == two
    assert models.alias("flight_delays", "previous") == one


def test_a_model_that_is_not_there_has_no_champion(models: MlflowRegistry) -> None:
    assert models.alias("nothing", "champion") is None


@pytest.mark.parametrize("version", ["2", "0", "-1", "latest", "1; DROP TABLE x", "", "１"])
def test_an_unknown_version_is_refused_and_moves_nothing(models: MlflowRegistry, version: str) -> None:
    first = register(models, A)
    models.set_alias("flight_delays", "champion", "1")
    with pytest.raises(UnknownVersion, match="flight_delays has no version"):
        models.version("flight_delays", version)
    with pytest.raises(UnknownVersion):
        models.set_alias("flight_delays", "champion", version)
    assert models.alias("flight_delays", "champion") == first


def test_a_version_without_a_digest_is_not_used(models: MlflowRegistry) -> None:
    """Registered by hand: nothing says what its files must be."""
    from mlflow import MlflowClient

    client = MlflowClient(models.uri, models.uri)
    client.create_registered_model("flight_delays")
    client.create_model_version("flight_delays", source="/tmp/model.pkl")
    client.set_registered_model_alias("flight_delays", "champion", "1")
    for ask in (lambda: models.version("flight_delays", "1"), lambda: models.alias("flight_delays", "champion")):
        with pytest.raises(UnknownVersion, match="has no manifest_sha256"):
            ask()


@pytest.mark.parametrize("name", ["a' or name like '%", "../x", "A", "", "a\n"])
def test_names_that_could_be_more_than_a_name_are_refused(models: MlflowRegistry, name: str) -> None:
    for ask in (
        lambda: register(models, A, model=name),
        lambda: models.alias(name, "champion"),
        lambda: models.version(name, "1"),
    ):
        with pytest.raises(ValueError, match="cannot be the name of a model"):
            ask()


def test_aliases_and_digests_are_checked(models: MlflowRegistry) -> None:
    with pytest.raises(ValueError, match="'latest' is no alias: champion, challenger, previous"):
        models.alias("flight_delays", "latest")  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="is no SHA-256"):
        register(models, "abc' or '1'='1")


def test_a_registry_that_does_not_answer_is_unavailable(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "0")
    started = time.monotonic()
    with pytest.raises(RegistryUnavailable, match=r"the registry http://127\.0\.0\.1:9 does not work.*AILERON_REGISTRY") as error:
        MlflowRegistry("http://user:secret@127.0.0.1:9").alias("flight_delays", "champion")
    assert time.monotonic() - started < 60
    assert "secret" not in str(error.value)


def test_a_file_that_is_no_database_is_unavailable(tmp_path: Path) -> None:
    (tmp_path / "registry.db").write_bytes(b"not a database" * 100)
    with pytest.raises(RegistryUnavailable, match="does not work"):
        register(MlflowRegistry(f"sqlite:///{tmp_path}/registry.db"), A)
    assert (tmp_path / "registry.db").read_bytes().startswith(b"not a database")


REGISTER = """
import sys
from include.registry.mlflow import MlflowRegistry
models = MlflowRegistry(sys.argv[1])
for manifest in sys.argv[2:]:
    print(models.register("flight_delays", "/lake/" + manifest, manifest, {"auc": 0.7}, {}, {"trees": 3}).version, flush=True)
"""


def registering(uri: str, *manifests: str) -> subprocess.Popen[str]:
    command = [sys.executable, "-c", REGISTER, uri, *manifests]
    return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=dict(os.environ))


def test_several_processes_may_be_the_first(tmp_path: Path) -> None:
    """No file yet: one of them makes it, and all get the same version."""
    uri = f"sqlite:///{tmp_path}/new/registry.db"
    processes = [registering(uri, A, B) for _ in range(3)]
    outputs = [process.communicate(timeout=300) for process in processes]
    assert [process.returncode for process in processes] == [0, 0, 0], outputs
    assert len({output for output, _ in outputs}) == 1
    assert sorted(outputs[0][0].split()) == ["1", "2"]
    assert {path.name for path in (tmp_path / "new").iterdir()} == {"registry.db", "registry.db.lock"}


def test_a_registration_killed_anywhere_is_finished_by_the_next(models: MlflowRegistry) -> None:
    from mlflow import MlflowClient

    process = registering(models.uri, A)
    began = time.monotonic()
    process.communicate(timeout=300)
    duration = time.monotonic() - began
    manifests = [f"{number:064x}" for number in range(6)]
    for number, manifest in enumerate(manifests):
        process = registering(models.uri, manifest)
        time.sleep(duration * (0.7 + 0.06 * number))
        process.kill()
        process.communicate()
        register(models, manifest)
    client = MlflowClient(models.uri, models.uri)
    versions = client.search_model_versions("name = 'flight_delays'")
    assert Counter(version.tags["manifest_sha256"] for version in versions) == Counter([A, *manifests])
    for version in versions:
        run = client.get_run(version.run_id)
        assert run.info.status == "FINISHED"
        assert run.data.metrics == {"auc": 0.7} or run.data.metrics == {}


@pytest.mark.parametrize("step", ["registered model", "experiment", "run", "version"])
def test_a_registration_that_ended_after_any_step_is_finished(models: MlflowRegistry, step: str) -> None:
    """What a process killed between two steps leaves, made with MLflow itself."""
    from mlflow import MlflowClient

    client = MlflowClient(models.uri, models.uri)
    client.create_registered_model("flight_delays")
    if step in ("experiment", "run"):
        experiment = client.create_experiment("flight_delays")
    if step == "run":
        client.create_run(experiment, tags={"manifest_sha256": A})
    if step == "version":
        register(models, A, auc=0.7)
    version = register(models, A, auc=0.7)
    assert version.version == "1"
    found = client.get_experiment_by_name("flight_delays")
    assert found is not None
    runs = client.search_runs([found.experiment_id])
    assert [run.data.metrics for run in runs if run.info.status == "FINISHED"] == [{"auc": 0.7}]
    assert {run.info.status for run in runs} <= {"FINISHED", "KILLED"}


def test_of_two_versions_of_one_model_the_first_counts(models: MlflowRegistry) -> None:
    """Two processes that a server let through at the same time."""
    from mlflow import MlflowClient

    first = register(models, A)
    client = MlflowClient(models.uri, models.uri)
    copy = client.get_model_version("flight_delays", "1")
    client.create_model_version("flight_delays", source=copy.source, run_id=copy.run_id, tags=copy.tags)
    assert register(models, A) == first


def test_mlflow_is_not_imported_before_it_is_asked() -> None:
    code = (
        "import sys, include.registry.mlflow, include.registry; sys.exit('mlflow' in sys.modules or 'sqlalchemy' in sys.modules)"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def test_nothing_is_left_in_the_working_folder(models: MlflowRegistry, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = tmp_path / "empty"
    folder.mkdir()
    monkeypatch.chdir(folder)
    register(models, A, auc=0.7)
    assert list(folder.iterdir()) == []
