"""What is moved from live to bulk: the record of a tenant that is above its share (streams/consume/fairness.py)."""

from __future__ import annotations

import threading
from collections.abc import Callable

from streams.consume.source import Delivery
from streams.errors import DependencyError
from streams.event import COLLECTION_HEADER, Headers
from streams.onward import Origin, travelling
from streams.producer import Producer
from streams.topics import Lane, TopicNames

MAX_IN_FLIGHT = 2048


class Shunts:
    """Moves records; each is finished in live when bulk has it. Called from the poll thread."""

    def __init__(
        self,
        producer: Producer,
        names: TopicNames,
        *,
        collection: str,
        on_moved: Callable[[], None],
        crash: Callable[[BaseException], None],
    ) -> None:
        """`on_moved` is told of each; `crash` ends the worker: its broker client is beyond repair."""
        self._producer = producer
        self._topic = names.lane(Lane.BULK)
        self._collection = collection.encode()
        self._on_moved = on_moved
        self._crash = crash
        self._lock = threading.Lock()
        self._in_flight = 0

    @property
    def in_flight(self) -> int:
        """Sent and not acknowledged."""
        return self._in_flight

    @property
    def full(self) -> bool:
        """Whether no more should be moved before the broker has acknowledged some."""
        return self._in_flight >= MAX_IN_FLIGHT

    def move(self, delivery: Delivery) -> None:
        """Send it to bulk; versions make the new order harmless."""
        with self._lock:
            self._in_flight += 1

        def moved(error: DependencyError | None) -> None:
            with self._lock:
                self._in_flight -= 1
            if error is not None:
                self._crash(error)
                return
            delivery.finish()
            self._on_moved()

        self._producer.send(
            self._topic, key=delivery.key, value=delivery.value, headers=self._headers(delivery), on_ack=moved
        )

    def _headers(self, delivery: Delivery) -> Headers:
        origin = Origin(delivery.topic, delivery.partition, delivery.offset, delivery.timestamp_ms)
        kept = travelling(delivery.headers, origin=origin, first_published_us=delivery.timestamp_ms * 1000)
        return [*kept, (COLLECTION_HEADER, self._collection)]
