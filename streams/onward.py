"""A record that we produce again (a retry, a shunt, a dead letter, a replay): what of its headers travels on.

The producer's own headers do, and two facts about the first time: when it entered Kafka and where it
lay. Our notes about the place it came from do not.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple, Self

from streams.event import COLLECTION_HEADER, FIRST_PUBLISHED_HEADER, Headers

ORIGIN_HEADER = "lookalike.origin"
RETRY_PREFIX = "lookalike.retry."
DEAD_PREFIX = "lookalike.dead."


class Origin(NamedTuple):
    """Where a record lay first; `timestamp_ms` is that topic's."""

    topic: str
    partition: int
    offset: int
    timestamp_ms: int

    @classmethod
    def of(cls, headers: Headers) -> Self | None:
        """What a record says of its origin; None for one that lies there, or that says it wrongly."""
        raw = next((value for name, value in headers if name == ORIGIN_HEADER), None)
        return None if raw is None else cls._read(raw)

    @classmethod
    def _read(cls, raw: bytes) -> Self | None:
        try:
            topic, *numbers = raw.decode().rsplit(":", 3)
            partition, offset, timestamp_ms = (int(number) for number in numbers)
        except ValueError:
            return None
        return cls(topic[:255], partition, offset, timestamp_ms)

    def header(self) -> tuple[str, bytes]:
        return ORIGIN_HEADER, ":".join(map(str, self)).encode()


def travelling(headers: Headers, *, origin: Origin, first_published_us: int | None) -> Headers:
    """The headers that travel on. An origin and a first publish time that are there already are kept."""
    kept = [(name, value) for name, value in headers if not _ours(name)]
    kept.append((Origin.of(headers) or origin).header())
    if first_published_us is not None and not any(name == FIRST_PUBLISHED_HEADER for name, _ in kept):
        kept.append((FIRST_PUBLISHED_HEADER, str(first_published_us).encode()))
    return kept


def other_collection(headers: Headers, collection: str) -> bool:
    """Whether this record was produced for another collection's workers."""
    name = collection.encode()
    return any(header == COLLECTION_HEADER and value != name for header, value in headers)


def number(headers: Mapping[str, bytes], name: str) -> int | None:
    """A header that is a whole number of at most 17 digits."""
    raw = headers.get(name)
    return int(raw) if raw is not None and raw.isdigit() and len(raw) <= 17 else None


def _ours(name: str) -> bool:
    return name.startswith((RETRY_PREFIX, DEAD_PREFIX)) or name in (COLLECTION_HEADER, ORIGIN_HEADER)
