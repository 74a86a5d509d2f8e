"""What the promises need of a cluster beyond the topics' own settings, and how long a tombstone must live."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import stamina
from confluent_kafka import KafkaError, KafkaException
from confluent_kafka.admin import (  # type: ignore[attr-defined]  # re-exported without __all__
    AdminClient,
    ConfigResource,
    ResourceType,
)

from streams.errors import DependencyError
from streams.topics import DAY_MS, Lane, TopicNames

MIN_REPLICAS = 3
MIN_INSYNC = 2
"""Three replicas of which two must have a record: one broker may be lost and another restarted."""
_TIMEOUT_S = 15.0
_SETTLED_S = 5.0

Configs = Mapping[str, Mapping[str, str | None]]


def read_configs(client: Mapping[str, Any], topics: Sequence[str]) -> dict[str, dict[str, str | None]]:
    """The settings in force of each topic, the broker's defaults included.

    Raises:
        DependencyError: the broker does not answer, or a topic is missing.
    """
    admin = AdminClient(dict(client))
    try:
        for attempt in stamina.retry_context(on=_settling, timeout=_SETTLED_S, attempts=None, wait_initial=0.05):
            with attempt:
                asked = admin.describe_configs([ConfigResource(ResourceType.TOPIC, name) for name in topics])
                return {
                    resource.name: {name: entry.value for name, entry in future.result(timeout=_TIMEOUT_S).items()}
                    for resource, future in asked.items()
                }
        raise AssertionError("not reached: the last attempt raises")
    except KafkaException as exc:
        raise DependencyError("broker", f"the broker does not tell its topics' settings: {exc.args[0].str()}") from exc


def _settling(error: Exception) -> bool:
    """A topic that was made a moment ago: asked again it is there."""
    return isinstance(error, KafkaException) and error.args[0].code() == KafkaError.UNKNOWN_TOPIC_OR_PART


def check_durability(client: Mapping[str, Any], names: TopicNames) -> list[str]:
    """One line per topic whose records one lost disk would lose, saying what to do; empty means all is well.

    Raises:
        DependencyError: the broker does not answer.
    """
    topics = [*map(names.lane, Lane), names.dead, names.outcomes]
    configs = read_configs(client, topics)
    replicas = _replicas(client)
    problems = []
    for topic in topics:
        n, insync = replicas.get(topic, 0), int(configs[topic].get("min.insync.replicas") or 1)
        if n < MIN_REPLICAS:
            problems.append(
                f"topic {topic} has {n} replica{'s' if n != 1 else ''}, {MIN_REPLICAS} are needed so that no lost disk "
                "loses an event: create it with LOOKALIKE_KAFKA_REPLICATION=3, or say --allow-single-broker"
            )
        elif insync < MIN_INSYNC:
            problems.append(
                f"topic {topic}: min.insync.replicas is {insync}, must be {MIN_INSYNC}: kafka-configs --alter "
                f"--topic {topic} --add-config min.insync.replicas={MIN_INSYNC}, or say --allow-single-broker"
            )
    return problems


def check_sizes(client: Mapping[str, Any], names: TopicNames) -> list[str]:
    """One line per topic into which a record that an earlier topic took might not fit, with its history."""
    topics = [*map(names.lane, Lane), names.dead]
    configs = read_configs(client, topics)
    limits = {topic: int(configs[topic].get("max.message.bytes") or 0) for topic in topics}
    largest = limits[names.lane(Lane.LIVE)]
    return [
        f"topic {topic}: max.message.bytes is {limit}, must be above {largest} of {names.lane(Lane.LIVE)}: "
        f"kafka-configs --alter --topic {topic} --add-config max.message.bytes={2 * largest}"
        for topic, limit in limits.items()
        if topic != names.lane(Lane.LIVE) and limit <= largest
    ]


def tombstone_life_ms(configs: Configs, names: TopicNames) -> int | None:
    """How long a delete must be remembered: until no older create of its image can still come out of the log.

    That is the sum of retention and segment time over every lane (a create may wait in live, then in bulk,
    then in each retry topic; a segment is deleted only when it was closed), and a day. None: for ever.
    """
    total = DAY_MS
    for lane in Lane:
        config = configs[names.lane(lane)]
        retention, segment = int(config.get("retention.ms") or -1), int(config.get("segment.ms") or -1)
        if retention < 0 or segment < 0:
            return None
        total += retention + segment
    return total


def _replicas(client: Mapping[str, Any]) -> dict[str, int]:
    """The least number of replicas of any partition, by topic."""
    try:
        metadata = AdminClient(dict(client)).list_topics(timeout=_TIMEOUT_S)
    except KafkaException as exc:
        raise DependencyError("broker", f"the broker does not answer: {exc.args[0].str()}") from exc
    return {
        name: min((len(part.replicas) for part in topic.partitions.values()), default=0)
        for name, topic in metadata.topics.items()
    }
