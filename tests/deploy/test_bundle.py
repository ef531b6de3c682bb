"""The repository as a DAG bundle: Airflow finds the DAGs and nothing else."""

from __future__ import annotations

from airflow.dag_processing.dagbag import DagBag

from tests.conftest import ROOT


def test_a_bundle_of_the_whole_repository_has_the_dags_of_its_dag_folder() -> None:
    folder, repository = (DagBag(str(path), bundle_path=path, bundle_name="b") for path in (ROOT / "dags", ROOT))
    assert repository.import_errors == {}
    assert folder.dags and set(repository.dags) == set(folder.dags)
