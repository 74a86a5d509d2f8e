"""The poll thread: as many records as the worker has room for, read as events, checked, handed on."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable

from embedder.metrics import WorkerMetrics
from embedder.objects.grants import Grants
from embedder.stages.outages import Outages
from embedder.stages.work import Work, WorkQueue
from streams.consume.source import Delivery, Source
from streams.errors import EventError
from streams.event import ImageEvent, now_us, parse

WORK_AHEAD_S = 1.25
"""About a second of work is in hand: enough to keep every stage busy, little enough that a revoke drains it."""
MIN_WINDOW = 16


class Window:
    """How many events may be in flight: what was finished in the last second, and a quarter more to grow."""

    def __init__(self, *, max_events: int, clock: Callable[[], float] = time.monotonic) -> None:
        self._max = max_events
        self._clock = clock
        self._lock = threading.Lock()
        self._in_flight = 0
        self._finished = 0
        self._measured_at = clock()
        self._size = min(MIN_WINDOW, max_events)

    def free(self) -> int:
        """Room for so many more, from the rate of the second before."""
        with self._lock:
            now = self._clock()
            elapsed = now - self._measured_at
            if elapsed >= 1.0:
                rate = self._finished / elapsed
                self._size = max(min(MIN_WINDOW, self._max), min(self._max, int(rate * WORK_AHEAD_S)))
                self._finished, self._measured_at = 0, now
            elif self._finished >= self._size:  # a second's worth went through in less: no need to wait for its end
                self._size = min(self._max, self._size * 2)
            return max(0, self._size - self._in_flight)

    def take(self, n: int) -> None:
        with self._lock:
            self._in_flight += n

    def release(self) -> None:
        with self._lock:
            self._in_flight -= 1
            self._finished += 1

    @property
    def in_flight(self) -> int:
        return self._in_flight


class Intake:
    """One thread: polls without pause, whatever the rest of the worker does."""

    def __init__(
        self,
        *,
        source: Source,
        grants: Grants,
        window: Window,
        outages: Outages,
        lookup: WorkQueue,
        metrics: WorkerMetrics,
        fail: Callable[[Work, Exception, str], None],
    ) -> None:
        self._source = source
        self._grants = grants
        self._window = window
        self._outages = outages
        self._lookup = lookup
        self._metrics = metrics
        self._fail = fail

    def run(self, stopping: threading.Event) -> None:
        """Until `stopping` is set."""
        last = time.monotonic()
        while not stopping.is_set():
            room = 0 if self._outages.any else self._window.free()
            deliveries = self._source.poll(room)
            now = time.monotonic()
            self._metrics.poll_gap.observe(now - last)
            last = now
            if deliveries:
                self._window.take(len(deliveries))
                self._lookup.put_many([work for work in map(self._admit, deliveries) if work is not None])
            self._metrics.in_flight.set(self._window.in_flight)
            if room == 0:
                stopping.wait(0.005)  # no room: the poll above did not wait for a record

    def _admit(self, delivery: Delivery) -> Work | None:
        event: ImageEvent | None = None
        try:
            event = parse(delivery.value, delivery.headers, at_us=now_us())
            if event.location is not None:
                self._grants.check(event.tenant_id, event.location)
        except EventError as exc:
            self._fail(Work(delivery, event), exc, "receive")
            return None
        return Work(delivery, event)


def paused_gauge(metrics: WorkerMetrics) -> Callable[[str, bool], None]:
    """Outages as a metric."""

    def set_paused(cause: str, down: bool) -> None:
        metrics.paused.labels(cause).set(int(down))

    return set_paused
