"""Trying again later: what a retry record says, and keeping one in hand until its time.

A record that is not due yet is *kept in hand*, not sought back to: the consumer's position stays where
it is, nothing is fetched twice and nobody sleeps. What may be kept is bounded (:data:`MAX_HELD`,
:data:`MAX_HELD_BYTES`); the partition of a record that has long to wait is paused meanwhile, and
resumed a little before its time because a resumed partition gives nothing for about a second. What is
kept is not yet admitted: a revoke does not wait for it, and the next owner is given it again.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Collection, Mapping
from dataclasses import dataclass

import msgspec

from streams.consume.source import Delivery
from streams.event import COLLECTION_HEADER, Headers
from streams.onward import RETRY_PREFIX, Origin, number, travelling
from streams.topics import RETRY_LANES, Lane

DUE_HEADER = f"{RETRY_PREFIX}due_us"
TRIES_HEADER = f"{RETRY_PREFIX}tries"
HISTORY_HEADER = f"{RETRY_PREFIX}history"
MAX_HISTORY_BYTES = 16 * 1024
"""Of what is read: three tries of at most 500 characters each are written."""
MAX_NOTE_CHARS = 500

MAX_HELD = 256
MAX_HELD_BYTES = 8 * 1024 * 1024
"""Per retry lane; one call may bring a little more."""
WAKE_BEFORE_US = 1_500_000
"""A resumed partition gives nothing for 0.92 to 0.98 s (docs/kafka.md)."""

DEFAULT_DELAYS_S = (30.0, 300.0, 1800.0)


class Attempted(msgspec.Struct, frozen=True, omit_defaults=True):
    """One round of tries that ended in a retry record: in which lane and stage, why, and by which worker."""

    at_us: int
    lane: str
    stage: str
    reason: str
    error: str
    message: str
    tries: int
    worker: str


@dataclass(frozen=True, slots=True)
class RetrySteps:
    """How long each retry lane makes a record wait, in seconds."""

    delays_s: Mapping[Lane, float]

    @classmethod
    def of(cls, delays_s: Collection[float] = DEFAULT_DELAYS_S) -> RetrySteps:
        """Delays in the order of :data:`~streams.topics.RETRY_LANES`; none at all switches retry topics off."""
        return cls(dict(zip(RETRY_LANES, delays_s, strict=bool(delays_s))))

    def after(self, lane: Lane) -> Lane | None:
        """Where a record of `lane` that still fails goes; None: it has been everywhere."""
        if not self.delays_s:
            return None
        if lane not in RETRY_LANES:
            return RETRY_LANES[0]
        following = RETRY_LANES.index(lane) + 1
        return RETRY_LANES[following] if following < len(RETRY_LANES) else None

    def longest_s(self) -> float:
        return max(self.delays_s.values(), default=0.0)


@dataclass(frozen=True, slots=True)
class RetryNote:
    """What a record carries about the rounds before this one; empty for one that comes for the first time."""

    tries: int = 0
    history: tuple[Attempted, ...] = ()


_history = msgspec.json.Decoder(tuple[Attempted, ...]).decode


def read_note(headers: Headers) -> RetryNote:
    """The note of a retry record. What others wrote into these headers counts as nothing."""
    named = dict(headers)
    history: tuple[Attempted, ...] = ()
    raw = named.get(HISTORY_HEADER, b"")
    if raw and len(raw) <= MAX_HISTORY_BYTES:
        try:
            history = _history(raw)
        except (msgspec.DecodeError, UnicodeDecodeError):
            history = ()
    return RetryNote(tries=number(named, TRIES_HEADER) or 0, history=history)


def due_us(headers: Headers, *, appended_ms: int, longest_us: int) -> int:
    """When a record may be tried again, microseconds since 1970.

    Never later than the longest delay after the broker appended it: a wrong clock, or a header that
    somebody else wrote, must not hold a partition for ever.
    """
    return min(number(dict(headers), DUE_HEADER) or 0, appended_ms * 1000 + longest_us)


def retry_headers(delivery: Delivery, *, due_at_us: int, note: RetryNote, collection: str) -> Headers:
    """The headers of the retry record of `delivery`."""
    origin = Origin(delivery.topic, delivery.partition, delivery.offset, delivery.timestamp_ms)
    return [
        *travelling(delivery.headers, origin=origin, first_published_us=delivery.timestamp_ms * 1000),
        (DUE_HEADER, str(due_at_us).encode()),
        (TRIES_HEADER, str(note.tries).encode()),
        (HISTORY_HEADER, msgspec.json.encode(note.history)),
        (COLLECTION_HEADER, collection.encode()),
    ]


class NotYetDue:
    """Records of one retry lane that came before their time. One thread uses it.

    Within a partition they stay in order: offsets are admitted in rising order, so a record waits for
    those before it (whose time comes first, unless the delays were changed).
    """

    def __init__(self) -> None:
        self._waiting: dict[int, deque[tuple[int, Delivery]]] = {}
        self._n = 0
        self._bytes = 0

    def __len__(self) -> int:
        return self._n

    def holds(self, partition: int) -> bool:
        """Whether a record of this partition waits: one that follows must wait behind it."""
        return partition in self._waiting

    def hold(self, record: Delivery, due_at_us: int) -> None:
        self._waiting.setdefault(record.partition, deque()).append((due_at_us, record))
        self._n += 1
        self._bytes += record.size_bytes

    def take_due(self, now_us: int, max_records: int) -> list[Delivery]:
        """What is due by now, in order per partition."""
        taken: list[Delivery] = []
        for partition, queue in list(self._waiting.items()):
            while queue and queue[0][0] <= now_us and len(taken) < max_records:
                taken.append(queue.popleft()[1])
            if not queue:
                del self._waiting[partition]
        self._n -= len(taken)
        self._bytes -= sum(record.size_bytes for record in taken)
        return taken

    def sleeping(self, now_us: int) -> set[int]:
        """The partitions from which nothing more need be fetched for now."""
        if self._n >= MAX_HELD or self._bytes >= MAX_HELD_BYTES:
            return set(self._waiting)
        return {number for number, queue in self._waiting.items() if queue[0][0] > now_us + WAKE_BEFORE_US}

    def room(self) -> int:
        """How many more may be fetched."""
        return 0 if self._bytes >= MAX_HELD_BYTES else max(0, MAX_HELD - self._n)

    def forget(self, partitions: Collection[int]) -> None:
        """These went to another owner, who is given their records again."""
        for partition in partitions:
            queue = self._waiting.pop(partition, ())
            self._n -= len(queue)
            self._bytes -= sum(record.size_bytes for _, record in queue)
