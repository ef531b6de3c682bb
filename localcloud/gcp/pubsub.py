"""Pub/Sub: topics, and subscriptions whose messages are delivered until they are acknowledged."""

from __future__ import annotations

import json
import re
import sqlite3
import threading
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from google.protobuf import json_format
from google.protobuf.empty_pb2 import Empty
from google.pubsub_v1 import types

from localcloud.gcp.service import Cloud, Method, Methods
from localcloud.honoured import honoured
from localcloud.service import NotHonoured, Refused

TABLES = """
    CREATE TABLE IF NOT EXISTS resources (name TEXT PRIMARY KEY, kind TEXT NOT NULL, resource TEXT NOT NULL);
    CREATE TABLE IF NOT EXISTS messages (
        number INTEGER NOT NULL, subscription TEXT NOT NULL, data BLOB NOT NULL, attributes TEXT NOT NULL,
        published REAL NOT NULL, ack_id TEXT NOT NULL DEFAULT '', due REAL NOT NULL DEFAULT 0, PRIMARY KEY (subscription, number)
    );
    CREATE TABLE IF NOT EXISTS numbers (last INTEGER NOT NULL);
"""
NAME = re.compile(r"projects/[^/]+/(topics|subscriptions)/(?!goog)[A-Za-z][A-Za-z0-9._~+%-]{2,254}")
KEPT_SECONDS = 7 * 24 * 3600.0  # how long a message waits, where a subscription does not say
DEADLINE = 10  # seconds in which a message is to be acknowledged, where a subscription does not say
PATIENCE = 2.0  # seconds that a pull waits for a message; Google's waits longer, and may give none as well
MOST = 10_000_000  # bytes of one publish call

check_topic = honoured("CreateTopic", "name labels")
check_subscription = honoured(
    "CreateSubscription", "name topic labels ack_deadline_seconds message_retention_duration push_config={} expiration_policy"
)
check_publish = honoured("Publish", "topic messages.data messages.attributes")


def methods(cloud: Cloud) -> Methods:
    service = _PubSub(cloud.folder / "pubsub", cloud.project)
    publisher, subscriber = "/google.pubsub.v1.Publisher/", "/google.pubsub.v1.Subscriber/"
    return {
        f"{publisher}CreateTopic": Method(types.Topic, service.create_topic),
        f"{publisher}GetTopic": Method(types.GetTopicRequest, service.topic),
        f"{publisher}Publish": Method(types.PublishRequest, service.publish),
        f"{subscriber}CreateSubscription": Method(types.Subscription, service.create_subscription),
        f"{subscriber}GetSubscription": Method(types.GetSubscriptionRequest, service.subscription),
        f"{subscriber}Pull": Method(types.PullRequest, service.pull),
        f"{subscriber}Acknowledge": Method(types.AcknowledgeRequest, service.acknowledge),
    }


class _PubSub:
    def __init__(self, folder: Path, project: str) -> None:
        folder.mkdir(exist_ok=True)
        self._project = project
        self._changed = threading.Condition()  # its lock is that of the database too
        self._kept = sqlite3.connect(folder / "pubsub.db", check_same_thread=False)
        self._kept.executescript(TABLES)

    def create_topic(self, topic: Any) -> Any:
        check_topic(_members(topic))
        self._create(topic.name, "topics", topic)
        return topic

    def topic(self, asked: Any) -> Any:
        return types.Topic.from_json(self._find(asked.topic, "topics"))

    def create_subscription(self, subscription: Any) -> Any:
        check_subscription(_members(subscription))
        self._find(subscription.topic, "topics")
        seconds = subscription.ack_deadline_seconds = subscription.ack_deadline_seconds or DEADLINE
        if not 10 <= seconds <= 600:
            raise Refused("invalid", f"Invalid ack deadline: {seconds} seconds; it must be between 10 and 600")
        self._create(subscription.name, "subscriptions", subscription)
        return subscription

    def subscription(self, asked: Any) -> Any:
        return types.Subscription.from_json(self._find(asked.subscription, "subscriptions"))

    def publish(self, asked: Any) -> Any:
        check_publish(_members(asked))
        self._find(asked.topic, "topics")
        messages = list(asked.messages)
        if not 1 <= len(messages) <= 1000 or sum(len(each.data) for each in messages) > MOST:
            raise Refused("invalid", f"a call publishes 1 to 1000 messages, of {MOST} bytes at most in all")
        if any(not each.data and not each.attributes for each in messages):
            raise Refused("invalid", "One or more messages in the publish request is empty: each has data or an attribute")
        numbers = []
        with self._changed, self._kept:
            subscribed = [
                name
                for name, resource in self._kept.execute("SELECT name, resource FROM resources WHERE kind = 'subscriptions'")
                if types.Subscription.from_json(resource).topic == asked.topic
            ]
            for each in messages:
                number = self._next()
                numbers.append(str(number))
                row = (number, each.data, json.dumps(dict(each.attributes)), time.time())
                self._kept.executemany(
                    "INSERT INTO messages (number, data, attributes, published, subscription) VALUES (?, ?, ?, ?, ?)",
                    [(*row, name) for name in subscribed],
                )
            self._changed.notify_all()
        return types.PublishResponse(message_ids=numbers)

    def pull(self, asked: Any) -> Any:
        subscription = types.Subscription.from_json(self._find(asked.subscription, "subscriptions"))
        if asked.max_messages < 1:
            raise Refused("invalid", f"max_messages must be greater than 0, not {asked.max_messages}")
        end = time.monotonic() + (0 if asked.return_immediately else PATIENCE)
        with self._changed:
            while not (taken := self._take(subscription, asked.max_messages)) and (left := end - time.monotonic()) > 0:
                self._changed.wait(left)
        return types.PullResponse(received_messages=taken)

    def acknowledge(self, asked: Any) -> Any:
        """What has been delivered again since is not acknowledged by its old id."""
        self._find(asked.subscription, "subscriptions")
        if not asked.ack_ids:
            raise Refused("invalid", "No ack ids specified.")
        with self._changed, self._kept:
            self._kept.executemany(
                "DELETE FROM messages WHERE subscription = ? AND ack_id = ? AND due > ?",
                [(asked.subscription, each, time.time()) for each in asked.ack_ids],
            )
        return Empty()

    def _take(self, subscription: Any, most: int) -> list[Any]:
        """The messages that are due, which are then somebody's for a while."""
        now = time.time()
        kept = subscription.message_retention_duration.total_seconds() or KEPT_SECONDS
        taken = []
        with self._kept:
            self._kept.execute("DELETE FROM messages WHERE subscription = ? AND published < ?", (subscription.name, now - kept))
            found = self._kept.execute(
                """SELECT number, data, attributes, published FROM messages
                WHERE subscription = ? AND due <= ? ORDER BY number LIMIT ?""",
                (subscription.name, now, most),
            ).fetchall()
            for number, data, attributes, published in found:
                ack_id = f"{number}:{self._next()}"
                self._kept.execute(
                    "UPDATE messages SET ack_id = ?, due = ? WHERE subscription = ? AND number = ?",
                    (ack_id, now + subscription.ack_deadline_seconds, subscription.name, number),
                )
                message = types.PubsubMessage(data=data, attributes=json.loads(attributes), message_id=str(number))
                types.PubsubMessage.pb(message).publish_time.FromNanoseconds(int(published * 1e9))
                taken.append(types.ReceivedMessage(ack_id=ack_id, message=message))
        return taken

    def _create(self, name: str, kind: str, message: Any) -> None:
        if (match := NAME.fullmatch(name)) is None or match[1] != kind:
            raise Refused("invalid", f"Invalid [{kind}] name: (name={name})")
        if name.split("/")[1] != self._project:
            raise NotHonoured(f"another project than {self._project}: {name}")
        with self._changed, self._kept:
            try:
                self._kept.execute("INSERT INTO resources VALUES (?, ?, ?)", (name, kind, type(message).to_json(message)))
            except sqlite3.IntegrityError:
                said = f"Resource already exists in the project (resource={name.rpartition('/')[2]})."
                raise Refused("duplicate", said, 409) from None

    def _find(self, name: str, kind: str) -> str:
        with self._changed:
            found = self._kept.execute("SELECT resource FROM resources WHERE name = ? AND kind = ?", (name, kind)).fetchone()
        if found is None:
            raise Refused("notFound", f"Resource not found (resource={name.rpartition('/')[2]}).", 404)
        resource: str = found[0]
        return resource

    def _next(self) -> int:
        """A number that was never given out before."""
        last: int = (self._kept.execute("SELECT max(last) FROM numbers").fetchone()[0] or 0) + 1
        self._kept.execute("DELETE FROM numbers")
        self._kept.execute("INSERT INTO numbers VALUES (?)", (last,))
        return last


def _members(message: Any) -> Mapping[str, Any]:
    members: Mapping[str, Any] = json_format.MessageToDict(type(message).pb(message), preserving_proto_field_name=True)
    return members
