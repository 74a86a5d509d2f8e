"""What the worker takes events from: records it must finish, in any order."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

import msgspec

from streams.consume.offsets import PartitionOffsets
from streams.event import Headers
from streams.topics import Lane


class Delivery(msgspec.Struct, frozen=True, eq=False):
    """One record in this worker's hands. `timestamp_ms` is the log's; `value` None is Kafka's tombstone.

    A Struct, because one is made per event: it costs a fifth of a frozen dataclass.
    """

    lane: Lane
    topic: str
    partition: int
    offset: int
    key: bytes | None
    value: bytes | None
    headers: Headers
    timestamp_ms: int
    ownership: PartitionOffsets

    def finish(self) -> None:
        """Everything this record asked for is durable and reported: its offset may be committed."""
        self.ownership.finish(self.offset)

    @property
    def size_bytes(self) -> int:
        """What it holds of memory, headers left out: they are small and bounded by the record."""
        return len(self.value or b"") + len(self.key or b"")

    @property
    def lost(self) -> bool:
        """The partition went to another worker: nothing done for this record counts any more."""
        return self.ownership.dropped


class Source(Protocol):
    """Where deliveries come from. One thread polls; `Delivery.finish` may be called from any."""

    def poll(self, max_records: int, *, max_bulk: int | None = None) -> Sequence[Delivery]:
        """Up to `max_records` new deliveries, waiting about 50 ms for the first; also commits what is due.

        Live comes first; bulk gets at least 1 in 8 and what live leaves, but no more than `max_bulk`;
        retries whose time has come count with live. Must be called at least every few hundred
        milliseconds, with 0 when there is no room.
        The classic mistake is to stop polling while the worker is full: the group then throws it out.
        """
        ...

    def lag(self, lane: Lane | None = None) -> int | None:
        """Records of the owned partitions (of one lane) that were not delivered yet; None while unknown.

        Costs no request. Retries that wait for their time count as delivered.
        """
        ...

    def oldest_in_flight_s(self) -> float:
        """For how long the longest waiting partition's mark has not moved though something is in flight."""
        ...

    @property
    def held(self) -> int:
        """Retries that are kept in hand until their time: neither delivered nor in flight."""
        ...

    @property
    def lost_data(self) -> int:
        """How often an offset was gone before it was read: records were deleted unread, an alarm."""
        ...

    def close(self, drain_s: float) -> int:
        """Stop, wait up to `drain_s` for what is in flight, commit; returns how many stayed unfinished."""
        ...
