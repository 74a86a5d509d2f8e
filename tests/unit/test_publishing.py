"""Storing and announcing pictures, on a store and a log in memory."""

from __future__ import annotations

from pathlib import Path

from msgspec.structs import replace

from embedder.index.points import Point, State, Step, plan
from embedder.objects.folder import FolderStore
from embedder.objects.memory import MemoryObjects
from embedder.objects.protocol import ObjectStore
from lookalike.pictures import name_picture
from lookalike.publishing import Published, Publisher, publish_files
from streams.errors import DependencyError
from streams.event import Headers, ImageEvent, now_us, parse
from streams.memory import MemoryLog, MemoryProducer
from streams.producer import OnAck, Producer

TOPIC = "images.live"


class RefusingProducer:
    """A broker that takes nothing; a silent one does not even say so."""

    def __init__(self, *, silent: bool) -> None:
        self._silent = silent

    def send(self, topic: str, *, key: bytes | None, value: bytes | None, headers: Headers, on_ack: OnAck) -> None:
        if not self._silent:
            on_ack(DependencyError("broker", "no room"))

    def flush(self, timeout_s: float) -> int:
        return 1 if self._silent else 0


def _publish(producer: Producer, objects: ObjectStore, *paths: Path, max_image_bytes: int = 1000) -> Published:
    publisher = Publisher(tenant_id="acme", bucket="pictures", objects=objects, producer=producer, topic=TOPIC)
    pictures = [name_picture("acme", path) for path in paths]
    return publish_files(pictures, publisher, max_image_bytes=max_image_bytes, ack_timeout_s=1.0)


def _events(log: MemoryLog) -> list[ImageEvent]:
    found = [parse(record.value, record.headers, at_us=now_us()) for record in log.records(TOPIC)]
    return sorted(found, key=lambda event: event.version)


def _file(folder: Path, name: str, data: bytes) -> Path:
    path = folder / name
    path.write_bytes(data)
    return path


def test_a_published_file_is_stored_and_announced(tmp_path: Path) -> None:
    """The event names the very object that lies in the bucket, and its id is the one that is waited for."""
    log, objects = MemoryLog(), MemoryObjects()
    producer = MemoryProducer(log)
    path = _file(tmp_path, "cat.jpg", b"meow")
    done = _publish(producer, objects, path)
    producer.close()
    (event,) = _events(log)
    assert event.location is not None
    assert objects.objects[event.location.bucket, event.location.key] == b"meow"
    assert objects.head(event.location).etag == event.location.etag
    assert event.location.key.startswith("acme/")
    assert event.attributes == {"name": "cat.jpg"}
    assert list(done.events) == [event.event_id]
    assert done.failures == []


def test_publishing_the_same_file_again_costs_no_fetch(tmp_path: Path) -> None:
    """The second event has a higher version, the same place and the same ETag: only the payload is refreshed.

    A folder's ETag changes with every write, so this holds only because the object is left alone.
    """
    log, objects = MemoryLog(), FolderStore(tmp_path)
    producer = MemoryProducer(log)
    path = _file(tmp_path, "cat.jpg", b"meow")
    _publish(producer, objects, path)
    _publish(producer, objects, path)
    producer.close()
    first, second = _events(log)
    assert first.location is not None
    stored = Point("acme", first.image_id, first.version, State.INDEXED, first.location.etag, location=first.location)
    assert second.image_id == first.image_id
    assert second.version > first.version
    assert plan(second, stored) is Step.REFRESH
    assert plan(second, replace(stored, etag="other")) is Step.EMBED


def test_a_file_that_changed_replaces_the_object(tmp_path: Path) -> None:
    """Also where only its bytes changed and its size did not."""
    log, objects = MemoryLog(), FolderStore(tmp_path)
    producer = MemoryProducer(log)
    _publish(producer, objects, _file(tmp_path, "cat.jpg", b"meow"))
    _publish(producer, objects, _file(tmp_path, "cat.jpg", b"purr"))
    producer.close()
    first, second = _events(log)
    assert first.location is not None
    assert second.location is not None
    assert second.location.etag != first.location.etag
    assert objects.get(second.location, max_bytes=10).data == b"purr"


def test_a_file_that_cannot_be_published_stops_no_other(tmp_path: Path) -> None:
    """Too large, or gone since it was found: reported with its reason, the neighbours are announced."""
    log, objects = MemoryLog(), MemoryObjects()
    producer = MemoryProducer(log)
    large = _file(tmp_path, "large.jpg", b"x" * 1001)
    good = _file(tmp_path, "good.jpg", b"x" * 1000)
    done = _publish(producer, objects, large, tmp_path / "gone.jpg", good)
    producer.close()
    assert [failure.reason for failure in done.failures] == ["image_too_large", "file_unreadable"]
    assert [picture.path for picture in done.events.values()] == [good]
    assert len(_events(log)) == 1


def test_what_the_broker_does_not_confirm_is_a_failure(tmp_path: Path) -> None:
    """A record counts as sent when the broker says so: a refusal and silence are both told."""
    path = _file(tmp_path, "cat.jpg", b"meow")
    for silent, why in ((False, "no room"), (True, "not acknowledged within 1 s")):
        done = _publish(RefusingProducer(silent=silent), MemoryObjects(), path)
        assert done.events == {}
        assert [(failure.reason, failure.message) for failure in done.failures] == [("not_announced", why)]
