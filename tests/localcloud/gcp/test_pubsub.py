"""Pub/Sub and Cloud Monitoring, as the provider's hooks and Google's clients use them."""

from __future__ import annotations

import time
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from google.api_core.exceptions import AlreadyExists, InvalidArgument, MethodNotImplemented, NotFound

from tests.localcloud.gcp.cloud import PROJECT, GoogleCloud

pytestmark = [pytest.mark.localcloud, pytest.mark.gcp]


@pytest.fixture
def hook(cloud: GoogleCloud) -> Any:
    from airflow.providers.google.cloud.hooks.pubsub import PubSubHook

    hook = PubSubHook()
    hook.create_topic(topic="drift", project_id=PROJECT)
    hook.create_subscription(topic="drift", project_id=PROJECT, subscription="watch", subscription_project_id=PROJECT)
    return hook


def test_messages_are_delivered_until_they_are_acknowledged(hook: Any, cloud: GoogleCloud) -> None:
    hook.publish(
        topic="drift", messages=[{"data": b"psi 0.3", "attributes": {"model": "flights"}}, {"data": b"2"}], project_id=PROJECT
    )
    first = hook.pull(subscription="watch", max_messages=1, project_id=PROJECT)
    assert (first[0].message.data, dict(first[0].message.attributes)) == (b"psi 0.3", {"model": "flights"})
    second = hook.pull(subscription="watch", max_messages=5, project_id=PROJECT)
    assert [each.message.data for each in second] == [b"2"]
    hook.acknowledge(subscription="watch", project_id=PROJECT, messages=[*first, *second])
    assert hook.pull(subscription="watch", max_messages=5, project_id=PROJECT, return_immediately=True) == []
    assert [call["operation"] for call in cloud.calls("pubsub", mutating=True)] == [
        "CreateTopic", "CreateSubscription", "Publish", "Publish", "Acknowledge",
    ]  # fmt: skip


def test_who_subscribes_later_gets_what_is_published_later(hook: Any) -> None:
    hook.publish(topic="drift", messages=[{"data": b"1"}], project_id=PROJECT)
    hook.create_subscription(topic="drift", project_id=PROJECT, subscription="late", subscription_project_id=PROJECT)
    hook.publish(topic="drift", messages=[{"data": b"2"}], project_id=PROJECT)
    assert [each.message.data for each in hook.pull(subscription="late", max_messages=5, project_id=PROJECT)] == [b"2"]
    assert len(hook.pull(subscription="watch", max_messages=5, project_id=PROJECT)) == 2


def test_what_is_there_and_what_is_not(hook: Any, cloud: GoogleCloud) -> None:
    from airflow.providers.google.cloud.hooks.pubsub import PubSubException
    from google.cloud import pubsub_v1

    with pytest.raises(PubSubException, match="already exists"):
        hook.create_topic(topic="drift", project_id=PROJECT, fail_if_exists=True)
    hook.create_topic(topic="drift", project_id=PROJECT)
    publisher, subscriber = pubsub_v1.PublisherClient(), pubsub_v1.SubscriberClient()
    topic = f"projects/{PROJECT}/topics/drift"
    assert publisher.get_topic(topic=topic).name == topic
    subscription = subscriber.get_subscription(subscription=f"projects/{PROJECT}/subscriptions/watch")
    assert (subscription.topic, subscription.ack_deadline_seconds) == (topic, 10)
    with pytest.raises(NotFound, match="resource=nothing"):
        publisher.get_topic(topic=f"projects/{PROJECT}/topics/nothing")
    with pytest.raises(AlreadyExists):
        publisher.create_topic(name=topic)
    with pytest.raises(InvalidArgument, match="Invalid"):
        publisher.create_topic(name=f"projects/{PROJECT}/topics/1")
    with pytest.raises(MethodNotImplemented, match="pubsub DeleteTopic"):
        publisher.delete_topic(topic=topic)
    with pytest.raises(MethodNotImplemented, match="does not honour filter of CreateSubscription"):
        subscriber.create_subscription(
            request={"name": f"projects/{PROJECT}/subscriptions/some", "topic": topic, "filter": 'attributes.model = "x"'}
        )
    assert [call["operation"] for call in cloud.calls("?")] == ["/google.pubsub.v1.Publisher/DeleteTopic"]


@pytest.fixture
def metrics(cloud: GoogleCloud) -> Iterator[Any]:
    from google.cloud import monitoring_v3

    client = monitoring_v3.MetricServiceClient()
    yield client
    client.transport.close()


def test_metrics_are_written_in_order_and_read_back(metrics: Any) -> None:
    now = time.time()
    for ago, value in ((60, 0.1), (30, 0.2), (0, 0.3)):
        _write(metrics, now - ago, value)
    _write(metrics, now, 9.0, model="other")
    found = _read(metrics, now, 'metric.type = "custom.googleapis.com/psi" AND metric.labels.model = "flights"')
    assert [[point.value.double_value for point in series.points] for series in found] == [[0.3, 0.2, 0.1]]
    assert len(_read(metrics, now, 'metric.type = "custom.googleapis.com/psi"')) == 2
    with pytest.raises(InvalidArgument, match="in order"):
        _write(metrics, now - 10, 0.4)
    with pytest.raises(InvalidArgument, match="more frequently"):
        _write(metrics, now + 1, 0.4)
    with pytest.raises(InvalidArgument, match="Value type"):
        _write(metrics, now + 10, "high")
    with pytest.raises(InvalidArgument, match="25 hours"):
        _write(metrics, now - 100_000, 0.1, model="old")


def _write(metrics: Any, moment: float, value: float | str, model: str = "flights") -> None:
    kind = "double_value" if isinstance(value, float) else "string_value"
    point = {"interval": {"end_time": datetime.fromtimestamp(moment, UTC)}, "value": {kind: value}}
    metric = {"type": "custom.googleapis.com/psi", "labels": {"model": model}}
    series = {"metric": metric, "resource": {"type": "global"}, "points": [point]}
    metrics.create_time_series(name=f"projects/{PROJECT}", time_series=[series])


def _read(metrics: Any, end: float, asked: str) -> list[Any]:
    moment = datetime.fromtimestamp(end + 1, UTC)
    interval = {"start_time": moment - timedelta(hours=1), "end_time": moment}
    return list(
        metrics.list_time_series(request={"name": f"projects/{PROJECT}", "filter": asked, "interval": interval, "view": 0})
    )
