"""The Model Registry of the local Vertex AI, by the real clients."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
from google.api_core import exceptions
from google.protobuf.field_mask_pb2 import FieldMask

from tests.localcloud.gcp.cloud import PROJECT, REGION, GoogleCloud
from tests.localcloud.gcp.conftest import AsClient
from tests.localcloud.gcp.vertex_requests import NUMBERED, PARENT, images, model, models_client, put, uploaded

pytestmark = [pytest.mark.localcloud, pytest.mark.gcp]


@pytest.fixture(scope="module")
def running(running_google: GoogleCloud, tmp_path_factory: pytest.TempPathFactory) -> Iterator[GoogleCloud]:
    with GoogleCloud(tmp_path_factory.mktemp("vertex"), images()) as cloud:
        yield cloud


@pytest.fixture
def cloud(running: GoogleCloud, as_client: AsClient) -> Iterator[GoogleCloud]:
    running.reset()
    as_client(running)
    put(running.bucket("lake"), **{"models/1/model.json": "{}", "models/2/model.json": "{}"})
    yield running
    assert running.refused_hosts() == []


@pytest.fixture
def client(cloud: GoogleCloud) -> Any:
    return models_client()


def aliases(client: Any, name: str) -> dict[str, list[str]]:
    return {each.version_id: sorted(each.version_aliases) for each in client.list_model_versions(name=name)}


def test_an_upload_is_an_operation_that_is_done_soon(client: Any) -> None:
    operation = client.upload_model(parent=PARENT, model=model("late", labels={"team": "ml"}))
    assert not operation.done()
    told = operation.result(20)
    assert told.model.startswith(f"{NUMBERED}/models/")
    assert told.model_version_id == "1"
    got = client.get_model(name=told.model)
    assert (got.display_name, got.version_aliases, dict(got.labels)) == ("late", ["default"], {"team": "ml"})
    assert got.container_spec.predict_route == "/predict"
    assert got.create_time
    assert got.etag


def test_a_version_is_found_by_number_and_by_alias(client: Any) -> None:
    name = uploaded(client, model("late"), model_id="late").model
    second = uploaded(client, model("late", artifact_uri="gs://lake/models/2", version_aliases=["challenger"]), parent_model=name)
    assert (second.model, second.model_version_id) == (name, "2")
    by_id = f"{PARENT}/models/late"
    assert client.get_model(name=by_id).version_id == "1"
    assert client.get_model(name=f"{by_id}@2").artifact_uri == "gs://lake/models/2"
    assert client.get_model(name=f"{by_id}@challenger").version_id == "2"
    for missing in ("@3", "@champion"):
        with pytest.raises(exceptions.NotFound):
            client.get_model(name=by_id + missing)


def test_an_alias_is_on_one_version_only(client: Any) -> None:
    name = uploaded(client, model("late", version_aliases=["champion"])).model
    uploaded(client, model("late", version_aliases=["champion"]), parent_model=name)
    assert aliases(client, name) == {"1": ["default"], "2": ["champion"]}
    client.merge_version_aliases(name=f"{name}@1", version_aliases=["champion"])
    assert aliases(client, name) == {"1": ["champion", "default"], "2": []}
    client.merge_version_aliases(name=f"{name}@2", version_aliases=["default", "spare"])
    client.merge_version_aliases(name=f"{name}@1", version_aliases=["-champion"])
    assert aliases(client, name) == {"1": [], "2": ["default", "spare"]}
    assert client.get_model(name=name).version_id == "2"


@pytest.mark.parametrize("alias", ["Champion", "1st", "a", "under_score", "ends-", "x" * 129])
def test_an_alias_must_be_as_vertex_wants_it(client: Any, alias: str) -> None:
    name = uploaded(client, model("late")).model
    with pytest.raises(exceptions.InvalidArgument):
        client.merge_version_aliases(name=f"{name}@1", version_aliases=[alias])
    with pytest.raises(exceptions.InvalidArgument):
        client.upload_model(parent=PARENT, model=model("late", version_aliases=[alias]))


def test_the_default_alias_cannot_be_taken_away(client: Any) -> None:
    name = uploaded(client, model("late")).model
    with pytest.raises(exceptions.InvalidArgument, match="default"):
        client.merge_version_aliases(name=f"{name}@1", version_aliases=["-default"])
    with pytest.raises(exceptions.InvalidArgument, match="number of a version"):
        client.merge_version_aliases(name=name, version_aliases=["champion"])
    with pytest.raises(exceptions.InvalidArgument, match="has no alias"):
        client.merge_version_aliases(name=f"{name}@1", version_aliases=["-champion"])


def test_an_update_is_of_the_model_or_of_a_version(client: Any) -> None:
    name = uploaded(client, model("late", labels={"a": "1"})).model
    client.update_model(
        model={"name": name, "display_name": "early", "labels": {"b": "2"}}, update_mask=mask("display_name", "labels")
    )
    got = client.update_model(
        model={"name": f"{name}@1", "version_description": "first", "labels": {"c": "3"}},
        update_mask=mask("version_description", "labels"),
    )
    assert (got.display_name, got.version_description, dict(got.labels)) == ("early", "first", {"b": "2", "c": "3"})
    with pytest.raises(exceptions.FailedPrecondition):
        client.update_model(model={"name": f"{name}@1", "display_name": "x"}, update_mask=mask("display_name"))
    with pytest.raises(exceptions.FailedPrecondition):
        client.update_model(model={"name": name, "version_description": "x"}, update_mask=mask("version_description"))
    with pytest.raises(exceptions.MethodNotImplemented, match="artifact_uri"):
        client.update_model(model={"name": name, "artifact_uri": "x"}, update_mask=mask("artifact_uri"))
    with pytest.raises(exceptions.FailedPrecondition, match="etag"):
        client.update_model(model={"name": name, "display_name": "x", "etag": "old"}, update_mask=mask("display_name"))


def test_lists_are_filtered_and_turn_pages(client: Any) -> None:
    for number in range(12):
        uploaded(client, model(f"model {number % 2}", labels={"n": str(number)}))
    assert len(list(client.list_models(parent=PARENT))) == 12
    assert len(client.list_models(parent=PARENT).models) == 10
    assert len(list(client.list_models({"parent": PARENT, "filter": 'display_name="model 1"', "page_size": 4}))) == 6
    (only,) = client.list_models({"parent": PARENT, "filter": 'display_name="model 1" AND labels.n="3"'})
    assert dict(only.labels) == {"n": "3"}
    for filter in ('model="1"', 'display_name!="x"', 'display_name="a" OR display_name="b"', 'state="x"', "display_name"):
        with pytest.raises(exceptions.MethodNotImplemented, match="filter"):
            client.list_models({"parent": PARENT, "filter": filter})
    with pytest.raises(exceptions.MethodNotImplemented, match="order_by"):
        client.list_models({"parent": PARENT, "order_by": "create_time"})


def test_what_is_not_honoured_is_refused_by_name(client: Any) -> None:
    for more, named in (
        ({"metadata_schema_uri": "gs://lake/x"}, "model.metadata_schema_uri"),
        ({"container": {"shared_memory_size_mb": 1}}, "model.container_spec.shared_memory_size_mb"),
    ):
        with pytest.raises(exceptions.MethodNotImplemented, match=named):
            client.upload_model(parent=PARENT, model=model("late", **more))
    wrong = (
        model("late", container={"image_uri": "nowhere:1"}),
        model("late", labels={"Team": "ml"}),
        model(""),
        model("x" * 129),
    )
    for each in wrong:
        with pytest.raises(exceptions.InvalidArgument):
            client.upload_model(parent=PARENT, model=each)


def test_an_upload_without_files_fails_in_its_operation(client: Any) -> None:
    operation = client.upload_model(parent=PARENT, model=model("late", artifact_uri="gs://lake/nothing"))
    with pytest.raises(exceptions.FailedPrecondition, match="artifact_uri"):
        operation.result(20)
    assert list(client.list_models(parent=PARENT)) == []


def test_another_place_is_refused(client: Any) -> None:
    with pytest.raises(exceptions.InvalidArgument, match="europe-west1"):
        client.list_models(parent=f"projects/{PROJECT}/locations/europe-west1")
    with pytest.raises(exceptions.PermissionDenied):
        client.list_models(parent=f"projects/another/locations/{REGION}")
    with pytest.raises(exceptions.NotFound):
        client.get_model(name=f"{PARENT}/models/none")
    with pytest.raises(exceptions.NotFound):
        client.upload_model({"parent": PARENT, "model": model("late"), "parent_model": f"{PARENT}/models/none"})


def test_the_hook_of_the_provider_uploads_and_moves_aliases(cloud: GoogleCloud) -> None:
    from airflow.providers.google.cloud.hooks.vertex_ai.model_service import ModelServiceHook

    hook = ModelServiceHook(gcp_conn_id="google_cloud_default")
    operation = hook.upload_model(project_id=PROJECT, region=REGION, model=model("late"))
    result = hook.wait_for_operation(timeout=20, operation=operation)
    model_id = hook.extract_model_id({"model": result.model})
    again = hook.upload_model(project_id=PROJECT, region=REGION, model=model("late"), parent_model=model_id)
    assert hook.wait_for_operation(timeout=20, operation=again).model_version_id == "2"
    hook.add_version_aliases(project_id=PROJECT, region=REGION, model_id=f"{model_id}@2", version_aliases=["champion"])
    hook.set_version_as_default(project_id=PROJECT, region=REGION, model_id=f"{model_id}@2")
    got = hook.get_model(project_id=PROJECT, region=REGION, model_id=model_id)
    assert (got.version_id, sorted(got.version_aliases)) == ("2", ["champion", "default"])


def test_models_and_operations_survive_a_restart(running_google: GoogleCloud, as_client: AsClient, tmp_path: Any) -> None:
    cloud = GoogleCloud(tmp_path / "restarted", images())
    with cloud:
        as_client(cloud)
        put(cloud.bucket("lake"), **{"models/1/model.json": "{}"})
        client = models_client()
        name = uploaded(client, model("late", version_aliases=["champion"])).model
        waiting = client.upload_model({"parent": PARENT, "model": model("late"), "parent_model": name})
    with cloud:
        as_client(cloud)
        client = models_client()
        assert client.get_model(name=f"{name}@champion").version_id == "1"
        assert uploaded(client, model("late"), parent_model=name).model_version_id == "3"
        operations = client.get_operation({"name": waiting.operation.name})
        assert operations.done
        assert aliases(client, name)["1"] == ["champion", "default"]


def mask(*paths: str) -> FieldMask:
    return FieldMask(paths=list(paths))
