"""The topics, their settings, and the check that a cluster's topics are what the promises need."""

from __future__ import annotations

import threading
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Any

from confluent_kafka import KafkaError, KafkaException
from confluent_kafka.admin import (  # type: ignore[attr-defined]  # re-exported without __all__
    AdminClient,
    ConfigResource,
    NewTopic,
    ResourceType,
)

from streams.errors import ConfigError, DependencyError

DAY_MS = 24 * 3600 * 1000
SOURCE_MAX_BYTES = 1_048_588
"""Kafka's own default for the largest record batch of a topic."""
BULK_MAX_BYTES = SOURCE_MAX_BYTES + 64 * 1024
"""A record of the live lane that is moved to bulk gets two more headers."""
DEAD_MAX_BYTES = 2 * SOURCE_MAX_BYTES
"""A dead letter or a retry carries the original record *and* its history: twice the source's limit always fits."""


class Lane(StrEnum):
    """A topic of one class of service. The retry lanes are named after the default of their delay."""

    LIVE = "live"
    BULK = "bulk"
    RETRY_30S = "retry.30s"
    RETRY_5M = "retry.5m"
    RETRY_30M = "retry.30m"


RETRY_LANES = (Lane.RETRY_30S, Lane.RETRY_5M, Lane.RETRY_30M)
"""In the order in which a picture that keeps failing passes through them."""


@dataclass(frozen=True, slots=True)
class TopicNames:
    """The names on this cluster; `prefix` keeps several installations (and tests) apart."""

    prefix: str = ""

    def lane(self, lane: Lane) -> str:
        return f"{self.prefix}images.{lane.value}"

    @property
    def dead(self) -> str:
        return f"{self.prefix}images.dead"

    @property
    def outcomes(self) -> str:
        return f"{self.prefix}images.outcomes"

    @property
    def notifications(self) -> str:
        return f"{self.prefix}bucket.notifications"


@dataclass(frozen=True, slots=True)
class TopicSpec:
    """One topic as it must be; `partitions` is a minimum (more is fine, fewer is reported)."""

    name: str
    partitions: int
    config: Mapping[str, str]


def specs(names: TopicNames, *, partitions: int, replication: int = 1) -> list[TopicSpec]:
    """The topics an installation needs, with the settings its promises stand on."""
    durable = {"cleanup.policy": "delete", "min.insync.replicas": "2" if replication >= 3 else "1"}
    lane = {**durable, "retention.ms": str(7 * DAY_MS), "segment.ms": str(DAY_MS)}
    ours = {"message.timestamp.type": "LogAppendTime", "max.message.bytes": str(DEAD_MAX_BYTES)}
    few = max(1, partitions // 8)
    return [
        TopicSpec(names.lane(Lane.LIVE), partitions, {**lane, "max.message.bytes": str(SOURCE_MAX_BYTES)}),
        TopicSpec(names.lane(Lane.BULK), partitions, {**lane, "max.message.bytes": str(BULK_MAX_BYTES)}),
        *(TopicSpec(names.lane(retry), few, {**lane, **ours}) for retry in RETRY_LANES),
        TopicSpec(names.dead, few, {**durable, **ours, "retention.ms": str(30 * DAY_MS)}),
        TopicSpec(names.outcomes, few, {**durable, "retention.ms": str(7 * DAY_MS)}),
        TopicSpec(  # a HEAD each: quicker than an embedding
            names.notifications, max(1, partitions // 4), {**lane, "max.message.bytes": str(SOURCE_MAX_BYTES)}
        ),
    ]


def create(
    client: Mapping[str, Any], wanted: Sequence[TopicSpec], *, replication: int = 1, timeout_s: float = 15.0
) -> list[str]:
    """Create what is missing; returns the names that were created, once clients can see them. Twice is harmless.

    Raises:
        DependencyError: the broker does not answer, or does not show them.
        ConfigError: the broker refuses a topic (no permission, an illegal setting).
    """
    admin = AdminClient(dict(client))
    there = _existing(admin, timeout_s)
    missing = [spec for spec in wanted if spec.name not in there]
    new = [
        NewTopic(spec.name, num_partitions=spec.partitions, replication_factor=replication, config=dict(spec.config))
        for spec in missing
    ]
    created: list[str] = []
    for name, future in admin.create_topics(new, operation_timeout=20).items() if new else ():
        try:
            future.result(timeout=30)
        except KafkaException as exc:
            error = exc.args[0]
            if error.code() == KafkaError.TOPIC_ALREADY_EXISTS:
                continue  # another process was quicker
            raise ConfigError(f"the broker refuses topic {name}: {error.str()}") from exc
        created.append(name)
    _await_visible(admin, [spec.name for spec in missing], timeout_s)
    return created


def check(client: Mapping[str, Any], wanted: Sequence[TopicSpec], *, timeout_s: float = 15.0) -> list[str]:
    """One line per topic or setting that is not as it must be, saying what to do; empty means all is well.

    Raises:
        DependencyError: the broker does not answer.
    """
    admin = AdminClient(dict(client))
    there = _existing(admin, timeout_s)
    problems = [
        f"topic {spec.name} is missing: run `lookalike topics create`" for spec in wanted if spec.name not in there
    ]
    present = [spec for spec in wanted if spec.name in there]
    problems += [
        f"topic {spec.name} has {there[spec.name]} partitions, {spec.partitions} are wanted: "
        f"kafka-topics --alter --topic {spec.name} --partitions {spec.partitions}"
        for spec in present
        if there[spec.name] < spec.partitions
    ]
    resources = {ConfigResource(ResourceType.TOPIC, spec.name): spec for spec in present}
    for resource, future in admin.describe_configs(list(resources)).items() if resources else ():
        spec = resources[resource]
        found = {name: entry.value for name, entry in future.result(timeout=20).items()}
        problems += [
            f"topic {spec.name}: {name} is {found.get(name)}, must be {value}: "
            f"kafka-configs --alter --topic {spec.name} --add-config {name}={value}"
            for name, value in spec.config.items()
            if not _satisfies(name, found.get(name), value)
        ]
    return problems


def _satisfies(name: str, found: str | None, wanted: str) -> bool:
    """Sizes and times may be larger than asked (-1 is without limit), segments shorter; the rest must be equal."""
    if found is None:
        return False
    if name == "segment.ms":
        return int(found) <= int(wanted)
    if name in ("retention.ms", "max.message.bytes", "min.insync.replicas"):
        return int(found) == -1 or int(found) >= int(wanted)
    return found == wanted


def _await_visible(admin: AdminClient, names: Sequence[str], timeout_s: float) -> None:
    """A busy broker acknowledges a topic before its own metadata show it: whoever checks at once would miss it."""
    deadline = time.monotonic() + timeout_s
    pause = threading.Event()
    while names and (hidden := sorted(set(names) - _existing(admin, timeout_s).keys())):
        if time.monotonic() > deadline:
            raise DependencyError("broker", f"topic {hidden[0]} was created, but the broker does not show it")
        pause.wait(0.05)


def _existing(admin: AdminClient, timeout_s: float) -> dict[str, int]:
    try:
        metadata = admin.list_topics(timeout=timeout_s)
    except KafkaException as exc:
        raise DependencyError("broker", f"the broker does not answer: {exc.args[0].str()}") from exc
    return {name: len(topic.partitions) for name, topic in metadata.topics.items()}
