"""What waits in the lanes: how much, how old the oldest is, and whose it is. Asked of the broker, disturbs nobody.

The admin client answers for 64 partitions in about 2 ms; a consumer that joins no group reads single
records at chosen offsets.
"""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from confluent_kafka import Consumer, KafkaException, Message, TopicPartition
from confluent_kafka.admin import AdminClient, ConfigResource, ResourceType  # type: ignore[attr-defined]

from streams.errors import DependencyError
from streams.event import TENANT_ID
from streams.group import committed_offsets
from streams.tail import Extent, extent_of
from streams.tenant_view import UNKNOWN

SAMPLES = 8
"""Records looked at in each partition's backlog; up to so many are counted instead of estimated."""
READ_S = 3.0

At = tuple[str, int]
"""A partition: topic and number."""


@dataclass(frozen=True, slots=True)
class Backlog:
    """Everything that waits now. Ages in seconds, of what the group has not finished; None: nothing waits.

    `by_tenant` is estimated from a sample where more than SAMPLES records of a partition wait.
    """

    lag: Mapping[At, int]
    oldest_age_s: Mapping[str, float | None]
    by_tenant: Mapping[str, float]

    @property
    def total(self) -> int:
        return sum(self.lag.values())


class BacklogWatch:
    """Asked every few seconds; keeps its connections. One thread uses it."""

    def __init__(
        self, client: Mapping[str, Any], group_id: str, topics: Sequence[str], *, clock: Callable[[], float] = time.time
    ) -> None:
        """`topics` are those that the group reads. Connects nothing."""
        self._admin = AdminClient(dict(client))
        self._group_id = group_id
        self._topics = tuple(topics)
        self._clock = clock
        self._consumer = Consumer(
            {
                **client,
                "group.id": "lookalike-backlog",  # the client wants one; nothing joins it
                "enable.auto.commit": False,
                "auto.offset.reset": "earliest",
                "queued.min.messages": 1,  # one record is wanted of each partition, not a megabyte
                "fetch.message.max.bytes": 32_768,
            }
        )

    def measure(self) -> Backlog:
        """Ask now. Takes some milliseconds, with a backlog up to a second.

        Raises:
            DependencyError: the broker does not answer.
            ConfigError: a topic is missing.
        """
        waiting = self._waiting()
        lag = {at: end - start for at, (start, end) in waiting.items()}
        oldest: dict[str, float | None] = dict.fromkeys(self._topics)
        shares: Counter[str] = Counter()
        for turn in range(SAMPLES):
            places = {at: _place(start, end, turn) for at, (start, end) in waiting.items()}
            for at, message in self._read({at: place for at, place in places.items() if place is not None}).items():
                shares[_tenant_of(message)] += lag[at] / min(SAMPLES, lag[at])  # type: ignore[assignment]  # a share
                if turn == 0:
                    age_s = max(0.0, self._clock() - message.timestamp()[1] / 1000)
                    oldest[at[0]] = max(oldest[at[0]] or 0.0, age_s)
        return Backlog(lag, oldest, dict(shares))

    def retention_s(self) -> dict[str, float]:
        """How long each topic keeps a record; a topic without a limit is left out. Raises as :meth:`measure`."""
        asked = self._admin.describe_configs([ConfigResource(ResourceType.TOPIC, name) for name in self._topics])
        try:
            found = {one.name: future.result(timeout=10)["retention.ms"].value for one, future in asked.items()}
        except KafkaException as exc:
            raise DependencyError("broker", f"the broker does not answer: {exc.args[0].str()}") from exc
        return {name: int(value) / 1000 for name, value in found.items() if value is not None and int(value) >= 0}

    def ends(self, topics: Sequence[str]) -> dict[At, int]:
        """The next offset to come of every partition of `topics`. Raises as :meth:`measure`."""
        return {(topic, n): end for topic in topics for n, end in extent_of(self._admin, topic).next_offset.items()}

    def close(self) -> None:
        self._consumer.close()

    def _waiting(self) -> dict[At, tuple[int, int]]:
        """By partition the first unfinished offset and the end; what was never committed counts from the beginning."""
        committed = committed_offsets(self._admin, self._group_id)
        found: dict[At, tuple[int, int]] = {}
        for topic in self._topics:
            there: Extent = extent_of(self._admin, topic)
            for number, end in there.next_offset.items():
                first = there.first_offset[number]
                found[topic, number] = (max(first, min(end, committed.get((topic, number), first))), end)
        return found

    def _read(self, places: Mapping[At, int]) -> dict[At, Message]:
        """One record at each of these offsets, or the next that is there."""
        if not places:
            return {}
        self._consumer.assign([TopicPartition(topic, number, offset) for (topic, number), offset in places.items()])
        found: dict[At, Message] = {}
        deadline = time.monotonic() + READ_S
        while len(found) < len(places) and time.monotonic() < deadline:
            for message in self._consumer.consume(len(places), 0.1):
                topic, number = message.topic(), message.partition()
                if message.error() is None and topic is not None and number is not None:
                    found.setdefault((topic, number), message)
        self._consumer.unassign()
        return found


def _place(start: int, end: int, turn: int) -> int | None:
    """Where the partition's sample of this turn lies: spread over what waits, the first one at its beginning."""
    n = min(SAMPLES, end - start)
    return None if turn >= n else start + turn * (end - start) // n


def _tenant_of(message: Message) -> str:
    key = message.key()
    tenant_id = (key or b"").partition(b"/")[0].decode("ascii", "replace")
    return tenant_id if TENANT_ID.match(tenant_id) else UNKNOWN
