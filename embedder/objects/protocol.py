"""Where pictures lie. An object store hands out bytes; what a tenant may read is decided in `grants`."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Protocol

from streams.errors import Reason, RetryableError
from streams.event import Location


class ObjectMissingError(RetryableError):
    """The store says that nothing is there – as opposed to an object that is there and cannot be had right now."""

    def __init__(self, message: str = "the object is not there") -> None:
        super().__init__(Reason.IMAGE_MISSING, message)


@dataclass(frozen=True, slots=True)
class ObjectInfo:
    """What a HEAD tells.

    `etag` is the store's opaque revision of exactly these bytes, without quotes. `modified_us` is the
    store's own time of the object in µs since 1970, None where it was not told (S3 tells whole seconds).
    `announced` says that `put` of this project stored it under this very key, so that whoever put it
    announces it; a folder cannot remember that and says False.
    """

    etag: str
    size_bytes: int
    content_type: str | None = None
    modified_us: int | None = None
    announced: bool = False


@dataclass(frozen=True, slots=True)
class Object:
    """An object's bytes with what the store said of exactly them."""

    info: ObjectInfo
    data: bytes


class ObjectStore(Protocol):
    """Blocks; thread-safe. `location.etag` is never looked at: what is there now is what is given.

    Every call may raise:
        EventError: `location_forbidden` for a key that leaves the bucket, `image_too_large`.
        ObjectMissingError: there is no such object, or no such bucket (`image_missing`).
        RetryableError: this object cannot be had right now: a short read, one server error, no permission.
        DependencyError: the store itself does not answer, or lets nobody in.
    """

    def head(self, location: Location) -> ObjectInfo:
        """What is there now, without its bytes."""
        ...

    def get(self, location: Location, *, max_bytes: int) -> Object:
        """What is there now; above `max_bytes` it is refused (`image_too_large`) before it is read."""
        ...

    def put(self, bucket: str, key: str, data: bytes, *, content_type: str | None = None) -> ObjectInfo:
        """Store `data`, replacing what is there at once: a reader sees the old bytes or the new, never a mix.

        The bucket must be there (DependencyError, the operator makes it); a folder makes its own.
        """
        ...

    def delete(self, bucket: str, key: str) -> None:
        """Remove the object; one that is not there is no error."""
        ...

    def keys(self, bucket: str, folder: str) -> Iterator[str]:
        """The keys below `folder` (it ends with ``/``), in no order; what comes or goes meanwhile may be among them.

        A bucket or folder that is not there has none. What is no object (a link, a pipe) is left out.
        """
        ...

    def check(self, bucket: str) -> None:
        """DependencyError where the store does not answer or has no such bucket; says what to do about it."""
        ...
