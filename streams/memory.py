"""The event log in memory: product code, for tests and benches that need no broker.

It keeps what a worker leans on (order per partition, offsets, a commit per partition, redelivery from
the commit after a crash, acknowledgements on another thread) and nothing else: no groups, no retention.
"""

from __future__ import annotations

import queue
import threading
import time
import zlib
from collections import defaultdict
from collections.abc import Iterable
from dataclasses import dataclass, field

from streams.consume.offsets import PartitionOffsets, StandingMarks
from streams.consume.retry import RetrySteps, due_us
from streams.consume.source import Delivery
from streams.event import Headers, now_us
from streams.producer import OnAck
from streams.topics import RETRY_LANES, Lane, TopicNames


@dataclass(frozen=True, slots=True)
class MemoryRecord:
    """One record as it lies in a topic."""

    partition: int
    offset: int
    key: bytes | None
    value: bytes | None
    headers: Headers
    timestamp_ms: int


@dataclass
class MemoryLog:
    """Topics of `n_partitions` partitions each."""

    n_partitions: int = 4
    topics: dict[str, list[list[MemoryRecord]]] = field(default_factory=dict)
    committed: dict[tuple[str, int], int] = field(default_factory=dict)
    lock: threading.Lock = field(default_factory=threading.Lock)

    def append(self, topic: str, *, key: bytes | None, value: bytes | None, headers: Headers) -> None:
        """Add a record to the partition its key belongs to."""
        with self.lock:
            partitions = self.topics.setdefault(topic, [[] for _ in range(self.n_partitions)])
            number = zlib.crc32(key or b"") % self.n_partitions
            at_ms = time.time_ns() // 1_000_000
            partitions[number].append(MemoryRecord(number, len(partitions[number]), key, value, headers, at_ms))

    def records(self, topic: str) -> list[MemoryRecord]:
        """All records of a topic, partition by partition."""
        with self.lock:
            return [record for partition in self.topics.get(topic, ()) for record in partition]


class MemoryProducer:
    """Acknowledges on a thread of its own, as the real one does."""

    def __init__(self, log: MemoryLog) -> None:
        self._log = log
        self._pending: queue.SimpleQueue[OnAck | None] = queue.SimpleQueue()
        self._thread = threading.Thread(target=self._acknowledge, name="acks", daemon=True)
        self._thread.start()

    def send(self, topic: str, *, key: bytes | None, value: bytes | None, headers: Headers, on_ack: OnAck) -> None:
        self._log.append(topic, key=key, value=value, headers=headers)
        self._pending.put(on_ack)

    def flush(self, timeout_s: float) -> int:
        done = threading.Event()
        self._pending.put(lambda _error: done.set())
        return 0 if done.wait(timeout_s) else self._pending.qsize()

    def silent_s(self) -> float:
        return 0.0  # it acknowledges at once

    def close(self) -> None:
        self._pending.put(None)
        self._thread.join()

    def _acknowledge(self) -> None:
        while (on_ack := self._pending.get()) is not None:
            on_ack(None)


class MemorySource:
    """One worker's view of the log: starts at the commits, owns every partition."""

    def __init__(
        self, log: MemoryLog, *, names: TopicNames, retry: RetrySteps | None = None, lanes: Iterable[Lane] = tuple(Lane)
    ) -> None:
        self._log = log
        self._longest_us = round((retry or RetrySteps.of()).longest_s() * 1e6)
        self._standing = StandingMarks()
        self._lanes = {names.lane(lane): lane for lane in lanes}
        self._owned: dict[tuple[str, int], PartitionOffsets] = {}
        self._positions: defaultdict[tuple[str, int], int] = defaultdict(int, log.committed)

    def poll(self, max_records: int, *, max_bulk: int | None = None) -> list[Delivery]:
        taken: list[Delivery] = []
        for topic, lane in self._lanes.items():
            most = max_records if lane is not Lane.BULK or max_bulk is None else min(max_records, max_bulk)
            for record in self._log.records(topic):
                if len(taken) >= most:
                    break
                at = (topic, record.partition)
                owned = self._owned.setdefault(at, PartitionOffsets(topic, record.partition))
                if record.offset == self._positions[at] and self._due(lane, record) and owned.admit(record.offset):
                    self._positions[at] += 1
                    taken.append(_delivery(record, topic, lane, owned))
        if not taken and max_records > 0:
            time.sleep(0.001)  # the real poll waits for the broker; nothing here can be awaited
        self._commit()
        return taken

    def _due(self, lane: Lane, record: MemoryRecord) -> bool:
        if lane not in RETRY_LANES:
            return True
        return due_us(record.headers, appended_ms=record.timestamp_ms, longest_us=self._longest_us) <= now_us()

    def lag(self, lane: Lane | None = None) -> int | None:
        topics = [topic for topic, one in self._lanes.items() if lane in (None, one)]
        read = sum(self._positions[topic, number] for topic in topics for number in range(self._log.n_partitions))
        return sum(len(self._log.records(topic)) for topic in topics) - read

    def oldest_in_flight_s(self) -> float:
        return self._standing.oldest_s(list(self._owned.values()), now=time.monotonic())

    held = 0
    lost_data = 0

    def close(self, drain_s: float) -> int:
        deadline = time.monotonic() + drain_s
        for owned in self._owned.values():
            owned.wait_finished(max(0.0, deadline - time.monotonic()))
        self._commit()
        return sum(owned.in_flight for owned in self._owned.values())

    def abandon(self) -> None:
        """Die: nothing is committed any more, whatever is finished later."""
        for owned in self._owned.values():
            owned.drop()

    def _commit(self) -> None:
        for at, owned in self._owned.items():
            mark = owned.to_commit()
            if mark is not None:
                self._log.committed[at] = mark
                owned.committed(mark)


def _delivery(record: MemoryRecord, topic: str, lane: Lane, owned: PartitionOffsets) -> Delivery:
    return Delivery(
        lane,
        topic,
        record.partition,
        record.offset,
        record.key,
        record.value,
        record.headers,
        record.timestamp_ms,
        owned,
    )
