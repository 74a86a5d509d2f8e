"""Reading a topic outside any consumer group: to follow outcomes, to look at dead letters. Commits nothing."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Self

import stamina
from confluent_kafka import Consumer, KafkaError, KafkaException, Message, TopicPartition
from confluent_kafka.admin import AdminClient, OffsetSpec  # type: ignore[attr-defined]  # re-exported without __all__

from streams.errors import ConfigError, DependencyError
from streams.event import Headers

_TIMEOUT_S = 15.0


@dataclass(frozen=True, slots=True)
class TailRecord:
    """One record; `timestamp_ms` is the topic's kind of time (see `streams.topics`)."""

    partition: int
    offset: int
    key: bytes | None
    value: bytes | None
    headers: Headers
    timestamp_ms: int


@dataclass(frozen=True, slots=True)
class Extent:
    """What lies in each partition of a topic now: `next_offset` is that of the next record to come."""

    first_offset: Mapping[int, int]
    next_offset: Mapping[int, int]


def extent(client: Mapping[str, Any], topic: str) -> Extent:
    """Where a topic begins and ends now. Two requests, however many partitions.

    Raises:
        DependencyError: the broker does not answer.
        ConfigError: there is no such topic.
    """
    return extent_of(AdminClient(dict(client)), topic)


def extent_of(admin: AdminClient, topic: str) -> Extent:
    """:func:`extent` through a client that stays connected."""
    partitions = [TopicPartition(topic, number) for number in _partitions(admin, topic)]
    return Extent(
        first_offset=_list_offsets(admin, partitions, OffsetSpec.earliest()),  # type: ignore[no-untyped-call]
        next_offset=_list_offsets(admin, partitions, OffsetSpec.latest()),  # type: ignore[no-untyped-call]
    )


def _partitions(admin: AdminClient, topic: str) -> list[int]:
    try:
        found = admin.list_topics(topic, timeout=_TIMEOUT_S).topics[topic]
    except KafkaException as exc:
        raise DependencyError("broker", f"the broker does not answer: {exc.args[0].str()}") from exc
    if found.error is not None:
        if found.error.code() == KafkaError.UNKNOWN_TOPIC_OR_PART:
            raise ConfigError(f"topic {topic} is missing: run `lookalike topics create`")
        raise DependencyError("broker", f"topic {topic}: {found.error.str()}")
    return sorted(found.partitions)


def _list_offsets(admin: AdminClient, partitions: list[TopicPartition], spec: OffsetSpec) -> dict[int, int]:
    try:
        for attempt in stamina.retry_context(on=_settling, timeout=_TIMEOUT_S, attempts=None, wait_initial=0.05):
            with attempt:
                futures = admin.list_offsets(dict.fromkeys(partitions, spec), request_timeout=_TIMEOUT_S)
                return {partition.partition: future.result().offset for partition, future in futures.items()}
        raise AssertionError("not reached: the last attempt raises")
    except KafkaException as exc:
        raise DependencyError("broker", f"the broker does not answer: {exc.args[0].str()}") from exc


def _settling(error: Exception) -> bool:
    """A topic that was made a moment ago, or a leader that is moving: asked again it answers."""
    codes = (KafkaError.NOT_LEADER_FOR_PARTITION, KafkaError.LEADER_NOT_AVAILABLE, KafkaError.UNKNOWN_TOPIC_OR_PART)
    return isinstance(error, KafkaException) and error.args[0].code() in codes


class Tail:
    """Records of one topic from given offsets on. One thread uses it."""

    def __init__(self, client: Mapping[str, Any], topic: str, *, start: Mapping[int, int]) -> None:
        """`start` gives the next offset to read of each partition."""
        self._topic = topic
        self._consumer = Consumer(
            {
                **client,
                "group.id": "lookalike-tail",  # the client wants one; nothing joins it
                "enable.auto.commit": False,
                "auto.offset.reset": "earliest",  # what was deleted meanwhile is skipped: this only looks
            }
        )
        self._consumer.assign([TopicPartition(topic, number, offset) for number, offset in start.items()])

    def poll(self, *, wait_s: float, max_records: int = 500) -> list[TailRecord]:
        """What has come; waits up to `wait_s` for the first record.

        Raises:
            DependencyError: the broker refuses; one that is only away for now is waited for.
        """
        first = self._consumer.poll(wait_s)
        messages = [] if first is None else [first, *self._consumer.consume(max_records - 1, 0)]
        return [record for message in messages if (record := self._read(message)) is not None]

    def _read(self, message: Message) -> TailRecord | None:
        error = message.error()
        if error is not None:
            if error.retriable() or error.code() in (KafkaError._ALL_BROKERS_DOWN, KafkaError._TRANSPORT):  # noqa: SLF001 - public names of the client
                return None
            raise DependencyError("broker", f"topic {self._topic}: {error.str()}")
        partition, offset = message.partition(), message.offset()
        assert partition is not None
        assert offset is not None
        found: Any = message.headers() or ()
        headers = [(name, value if value is not None else b"") for name, value in found]
        return TailRecord(partition, offset, message.key(), message.value(), headers, message.timestamp()[1])

    def close(self) -> None:
        self._consumer.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()
