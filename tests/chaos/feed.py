"""Producers of one scenario: real pictures in a folder, events about them, every acknowledgement counted."""

from __future__ import annotations

import threading
import time
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import msgspec

from embedder.objects.folder import FolderStore
from streams.errors import DependencyError
from streams.event import ImageEvent, Location, created, encode
from streams.producer import KafkaProducer
from streams.tail import TailRecord
from streams.topics import Lane, TopicNames
from tests.pictures import encoded, photo

BUCKET = "pictures"
N_PICTURES = 24
GOOD = [encoded(photo(96, 64, seed=n), "JPEG", quality=88) for n in range(N_PICTURES)]
"""A millisecond of decoding each."""
TRUNCATED = GOOD[0][: len(GOOD[0]) // 2]


@dataclass(frozen=True, slots=True)
class Sent:
    """One event that was handed to Kafka; `good` says that its picture can be indexed."""

    event: ImageEvent
    good: bool
    at: float


class Feed:
    """Sends events and remembers each. Thread-safe; one image per event unless told otherwise."""

    def __init__(self, client: Mapping[str, Any], names: TopicNames, objects: Path, tenants: list[str]) -> None:
        self._names = names
        self._producer = KafkaProducer(client)
        self.store = FolderStore(objects)
        self.tenants = tenants
        self.sent: dict[str, Sent] = {}
        self._acked = 0
        self._n_repeated = 0
        self._lock = threading.Lock()
        self._stop = threading.Event()
        self._thread: threading.Thread | None = None
        self._places = {
            tenant: [self.put(tenant, f"{n}.jpg", data) for n, data in enumerate(GOOD)] for tenant in tenants
        }

    def put(self, tenant: str, name: str, data: bytes) -> Location:
        """Store bytes; the location carries their ETag."""
        key = f"{tenant}/{name}"
        return Location(BUCKET, key, self.store.put(BUCKET, key, data).etag)

    def send(
        self, *, tenant: str | None = None, place: Location | None = None, good: bool = True, lane: Lane = Lane.LIVE
    ) -> ImageEvent:
        """One new image; its picture is one of the good ones unless `place` names another."""
        n = len(self.sent)
        tenant = tenant or self.tenants[n % len(self.tenants)]
        place = place or self._places[tenant][n % N_PICTURES]
        return self.publish(created(tenant, f"i{n}", place), good=good, lane=lane)

    def publish(self, event: ImageEvent, *, good: bool = True, lane: Lane = Lane.LIVE) -> ImageEvent:
        """Send an event as it is."""
        self.sent[event.event_id] = Sent(event, good, time.monotonic())
        key, value, headers = encode(event)
        self._producer.send(self._names.lane(lane), key=key, value=value, headers=headers, on_ack=self._on_ack)
        return event

    def again(self, event: ImageEvent, **changes: Any) -> ImageEvent:
        """The same image once more, with another event id."""
        fresh = created(event.tenant_id, event.image_id, event.location or Location(BUCKET, "none"))
        return self.publish(msgspec.structs.replace(event, event_id=fresh.event_id, **changes))

    def given_up(self, event_ids: set[str]) -> None:
        """These will not be indexed after all."""
        for event_id in event_ids:
            self.withdrawn(event_id)

    def withdrawn(self, event_id: str) -> None:
        """Its image was deleted, or given up: there must be no such point."""
        self.sent[event_id] = replace(self.sent[event_id], good=False)

    def repeat(self, topic: str, record: TailRecord) -> None:
        """A record as it is, at the end of the topic."""
        self._n_repeated += 1
        self._producer.send(topic, key=record.key, value=record.value, headers=record.headers, on_ack=self._on_ack)

    def start(self, rate_per_s: float) -> None:
        """Send at this rate, on a thread, until :meth:`stop`."""
        self._stop.clear()
        self._thread = threading.Thread(target=self._run, args=(rate_per_s,), name="feed", daemon=True)
        self._thread.start()

    def stop(self) -> None:
        """Send no more."""
        self._stop.set()
        if self._thread is not None:
            self._thread.join()
            self._thread = None

    @property
    def unacknowledged(self) -> int:
        """Events that the broker has not confirmed."""
        with self._lock:
            return len(self.sent) + self._n_repeated - self._acked

    def close(self) -> None:
        self.stop()
        self._producer.close(1.0)

    def _run(self, rate_per_s: float) -> None:
        started, n = time.monotonic(), 0
        while not self._stop.is_set():
            self.send()
            n += 1
            self._stop.wait(max(0.0, started + n / rate_per_s - time.monotonic()))

    def _on_ack(self, error: DependencyError | None) -> None:
        assert error is None, error  # the producer gives nothing up
        with self._lock:
            self._acked += 1
