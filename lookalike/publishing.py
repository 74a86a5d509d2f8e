"""Storing pictures and announcing them; used by `publish` and by the demo."""

from __future__ import annotations

import mimetypes
import threading
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field

from embedder.objects.protocol import ObjectInfo, ObjectStore
from lookalike.pictures import Picture
from streams.errors import DependencyError, EventError, Reason, RetryableError
from streams.event import MAX_TEXT, Location, created, encode
from streams.producer import Producer


@dataclass(frozen=True, slots=True)
class Failure:
    """A picture that did not become searchable: in words of the outcomes where there is one."""

    image_id: str
    file: str
    reason: str
    message: str


class Publisher:
    """Stores one picture at a time and announces it. The object is there before its event is."""

    def __init__(self, *, tenant_id: str, bucket: str, objects: ObjectStore, producer: Producer, topic: str) -> None:
        self._tenant_id = tenant_id
        self._bucket = bucket
        self._objects = objects
        self._producer = producer
        self._topic = topic
        self._lock = threading.Lock()
        self._unconfirmed: set[str] = set()
        self._refused: dict[str, str] = {}

    def publish(self, image_id: str, key: str, data: bytes, *, name: str | None = None) -> str:
        """Store `data`, send the event, return its id; only :meth:`finish` says that the broker has it.

        The version is now. The same bytes under the same key are not stored again: so they keep their
        ETag, and the worker refreshes the point and fetches nothing (docs/semantics.md).

        Raises:
            EventError, RetryableError: the store refuses this object.
            DependencyError: the store or the broker does not answer.
        """
        info = self._stored(key, data)
        if info is None:
            info = self._objects.put(self._bucket, key, data, content_type=mimetypes.guess_type(key)[0])
        location = Location(self._bucket, key, info.etag, info.size_bytes, info.content_type)
        attributes = {"name": name[-MAX_TEXT:]} if name else None
        event = created(self._tenant_id, image_id, location, source="lookalike/publish", attributes=attributes)
        key_bytes, value, headers = encode(event)
        with self._lock:
            self._unconfirmed.add(event.event_id)
        self._producer.send(
            self._topic,
            key=key_bytes,
            value=value,
            headers=headers,
            on_ack=lambda error: self._acknowledged(event.event_id, error),
        )
        return event.event_id

    def finish(self, timeout_s: float) -> dict[str, str]:
        """Wait for the broker's word on everything sent; the ids it does not have, each with why."""
        self._producer.flush(timeout_s)
        with self._lock:
            silent = dict.fromkeys(self._unconfirmed, f"not acknowledged within {timeout_s:.0f} s")
            return {**self._refused, **silent}

    def _stored(self, key: str, data: bytes) -> ObjectInfo | None:
        """What the store says of `key` where exactly `data` is there already."""
        place = Location(self._bucket, key)
        try:
            if self._objects.head(place).size_bytes != len(data):
                return None
            there = self._objects.get(place, max_bytes=len(data))
        except RetryableError:  # it is not there, or is being replaced
            return None
        return there.info if there.data == data else None

    def _acknowledged(self, event_id: str, error: DependencyError | None) -> None:
        with self._lock:
            self._unconfirmed.discard(event_id)
            if error is not None:
                self._refused[event_id] = error.message


@dataclass(slots=True)
class Published:
    """What became of a list of files: `events` that the broker has, by id, and what failed before."""

    events: dict[str, Picture] = field(default_factory=dict)
    failures: list[Failure] = field(default_factory=list)


def publish_files(
    pictures: Iterable[Picture],
    publisher: Publisher,
    *,
    max_image_bytes: int,
    on_done: Callable[[], None] = lambda: None,
    ack_timeout_s: float = 30.0,
) -> Published:
    """Publish files in order; one that cannot be read is a failure and stops nothing.

    Raises:
        DependencyError: the store or the broker does not answer.
    """
    done = Published()
    for picture in pictures:
        try:
            data = _read(picture, max_image_bytes)
            event_id = publisher.publish(picture.image_id, picture.key, data, name=picture.path.name)
            done.events[event_id] = picture
        except (OSError, EventError, RetryableError) as exc:
            done.failures.append(_failure(picture, exc))
        on_done()
    for event_id, why in publisher.finish(ack_timeout_s).items():
        picture = done.events.pop(event_id)
        done.failures.append(Failure(picture.image_id, str(picture.path), "not_announced", why))
    return done


def _read(picture: Picture, max_image_bytes: int) -> bytes:
    """At most one byte more than allowed is read, also of a file that grows meanwhile."""
    with picture.path.open("rb") as file:
        data = file.read(max_image_bytes + 1)
    if len(data) > max_image_bytes:
        raise EventError(Reason.IMAGE_TOO_LARGE, f"larger than {max_image_bytes} bytes")
    return data


def _failure(picture: Picture, error: OSError | EventError | RetryableError) -> Failure:
    if isinstance(error, EventError | RetryableError):
        return Failure(picture.image_id, str(picture.path), error.reason.value, error.message)
    return Failure(picture.image_id, str(picture.path), "file_unreadable", error.strerror or str(error))
