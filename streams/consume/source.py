"""What the worker takes events from: records it must finish, in any order."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

from streams.consume.offsets import PartitionOffsets
from streams.event import Headers
from streams.topics import Lane


@dataclass(frozen=True, slots=True)
class Delivery:
    """One record in this worker's hands. `timestamp_ms` is the log's; `value` None is Kafka's tombstone."""

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
    def lost(self) -> bool:
        """The partition went to another worker: nothing done for this record counts any more."""
        return self.ownership.dropped


class Source(Protocol):
    """Where deliveries come from. One thread polls; `Delivery.finish` may be called from any."""

    def poll(self, max_records: int) -> Sequence[Delivery]:
        """Up to `max_records` new deliveries, waiting about 50 ms for the first; also commits what is due.

        Must be called at least every few hundred milliseconds, with 0 when there is no room.
        The classic mistake is to stop polling while the worker is full: the group then throws it out.
        """
        ...

    def lag(self) -> int | None:
        """Records of the owned partitions that were not delivered yet; None while unknown."""
        ...

    def close(self, drain_s: float) -> int:
        """Stop, wait up to `drain_s` for what is in flight, commit; returns how many stayed unfinished."""
        ...
