"""Where a time lies in a topic, and a consumer group that begins there."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import stamina
from confluent_kafka import ConsumerGroupTopicPartitions, KafkaError, KafkaException, TopicPartition
from confluent_kafka.admin import AdminClient, OffsetSpec  # type: ignore[attr-defined]  # re-exported without __all__

from streams.errors import DependencyError
from streams.tail import extent

_TIMEOUT_S = 15.0


@dataclass(frozen=True, slots=True)
class Starts:
    """By partition: the offset to begin at, and the next offset to come when it was looked up."""

    begin: Mapping[int, int]
    end: Mapping[int, int]


def starts_since(client: Mapping[str, Any], topic: str, at_ms: int) -> Starts:
    """The first record of each partition that was written at `at_ms` (milliseconds since 1970) or later.

    Raises:
        DependencyError: the broker does not answer.
        ConfigError: there is no such topic.
    """
    there = extent(client, topic)  # before the look-up: what comes in between is read in any case
    admin = AdminClient(dict(client))
    asked = {TopicPartition(topic, n): OffsetSpec.for_timestamp(at_ms) for n in there.next_offset}
    try:
        found = {
            partition.partition: future.result().offset
            for partition, future in admin.list_offsets(asked, request_timeout=_TIMEOUT_S).items()
        }
    except KafkaException as exc:
        raise DependencyError("broker", f"the broker does not answer: {exc.args[0].str()}") from exc
    begin = {number: found[number] if found[number] >= 0 else end for number, end in there.next_offset.items()}
    return Starts(begin, dict(there.next_offset))


def begin_group(client: Mapping[str, Any], group_id: str, starts: Mapping[str, Starts]) -> None:
    """Let a group that has no members begin at these offsets, by topic.

    Raises:
        DependencyError: the broker does not answer, or refuses (the group has members).
    """
    partitions = [
        TopicPartition(topic, number, offset) for topic, one in starts.items() for number, offset in one.begin.items()
    ]
    admin = AdminClient(dict(client))  # kept: a client that nobody holds answers no more
    group = ConsumerGroupTopicPartitions(group_id, partitions)
    try:
        for attempt in stamina.retry_context(on=_settling, timeout=_TIMEOUT_S, attempts=None, wait_initial=0.1):
            with attempt:
                asked = admin.alter_consumer_group_offsets([group], request_timeout=_TIMEOUT_S)
                _check(asked[group_id].result())
    except KafkaException as exc:
        raise DependencyError("broker", f"group {group_id} cannot be made: {exc.args[0].str()}") from exc


def _check(done: ConsumerGroupTopicPartitions) -> None:
    """A new group's coordinator may refuse each partition while the request itself succeeds."""
    refused = [part.error for part in done.topic_partitions or () if part.error is not None]
    if refused:
        raise KafkaException(refused[0])


def _settling(error: Exception) -> bool:
    """The group's coordinator is being found, or made: asked again it answers."""
    codes = (KafkaError.NOT_COORDINATOR, KafkaError.COORDINATOR_NOT_AVAILABLE, KafkaError.COORDINATOR_LOAD_IN_PROGRESS)
    return isinstance(error, KafkaException) and error.args[0].code() in codes
