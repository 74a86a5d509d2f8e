"""Where pictures lie. An object store hands out bytes; what a tenant may read is decided in `grants`."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

from streams.event import Location


@dataclass(frozen=True, slots=True)
class ObjectInfo:
    """What a HEAD tells: `etag` is the store's opaque revision of exactly these bytes, without quotes."""

    etag: str
    size_bytes: int
    content_type: str | None = None


@dataclass(frozen=True, slots=True)
class Object:
    """An object's bytes with what the store said of exactly them."""

    info: ObjectInfo
    data: bytes


class ObjectStore(Protocol):
    """Blocks; thread-safe. `location.etag` is never looked at: what is there now is what is given.

    Every call may raise:
        EventError: `location_forbidden` for a key that leaves the bucket, `image_too_large`.
        RetryableError: `image_missing`, or a short read.
        DependencyError: the store itself does not answer.
    """

    def head(self, location: Location) -> ObjectInfo:
        """What is there now, without its bytes."""
        ...

    def get(self, location: Location, *, max_bytes: int) -> Object:
        """What is there now; above `max_bytes` it is refused (`image_too_large`) before it is read."""
        ...

    def put(self, bucket: str, key: str, data: bytes, *, content_type: str | None = None) -> ObjectInfo:
        """Store `data`, replacing what is there at once: a reader sees the old bytes or the new, never a mix."""
        ...

    def delete(self, bucket: str, key: str) -> None:
        """Remove the object; one that is not there is no error."""
        ...
