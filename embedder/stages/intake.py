"""The poll thread: as many records as the worker has room for, read as events, checked, handed on or moved to bulk."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Sequence

from embedder.metrics import WorkerMetrics
from embedder.objects.grants import Grants
from embedder.stages.outages import Outages
from embedder.stages.window import Window
from embedder.stages.work import Work, WorkQueue
from streams.consume.fairness import LiveShares
from streams.consume.retry import read_note
from streams.consume.source import Delivery, Source
from streams.errors import EventError
from streams.event import ImageEvent, now_us, parse
from streams.onward import other_collection
from streams.report.shunts import Shunts
from streams.topics import RETRY_LANES, SOURCE_MAX_BYTES, Lane

TEND_EVERY_S = 0.25
NO_ROOM_WAIT_S = 0.02
"""A worker with its hands full polls for callbacks only: 200 times a second took 2 % of its CPU."""


class Intake:
    """One thread: polls without pause, whatever the rest of the worker does."""

    def __init__(
        self,
        *,
        source: Source,
        grants: Grants,
        window: Window,
        outages: Outages,
        shares: LiveShares,
        shunts: Shunts,
        collection: str,
        lookup: WorkQueue,
        metrics: WorkerMetrics,
        fail: Callable[[Work, Exception, str], None],
        tend: Callable[[float], None],
    ) -> None:
        """`tend` is called about four times a second with the age of the oldest event in flight, in seconds."""
        self._source = source
        self._grants = grants
        self._window = window
        self._outages = outages
        self._shares = shares
        self._shunts = shunts
        self._collection = collection
        self._lookup = lookup
        self._metrics = metrics
        self._fail = fail
        self._tend = tend
        self._behind = False
        self._lost_data = 0

    def run(self, stopping: threading.Event) -> None:
        """Until `stopping` is set."""
        last = time.monotonic()
        tend_at = last
        while not stopping.is_set():
            room = self._room()
            deliveries = self._source.poll(room, max_bulk=self._max_bulk())
            now = time.monotonic()
            self._metrics.poll_gap.observe(now - last)
            last = now
            if deliveries:
                self._take(deliveries)
            if now >= tend_at:
                tend_at = now + TEND_EVERY_S
                self._look_around()
            if room == 0:
                stopping.wait(NO_ROOM_WAIT_S)  # no room: the poll above did not wait for a record

    def _room(self) -> int:
        return 0 if self._outages.any or self._shunts.full else self._window.free()

    def _max_bulk(self) -> int | None:
        """While a tenant is moved to bulk, bulk must leave room for the others of live."""
        return self._window.free_bulk() if self._shares.shunting else None

    def _take(self, deliveries: Sequence[Delivery]) -> None:
        at_us = now_us()
        works = [work for delivery in deliveries if (work := self._admit(delivery, at_us)) is not None]
        if works:
            self._count(works)
            self._lookup.put_many(works)

    def _count(self, works: Sequence[Work]) -> None:
        deliveries = [work.delivery for work in works]
        n_bulk = sum(one.lane is Lane.BULK for one in deliveries)
        self._window.take(len(works), n_bulk=n_bulk, n_bytes=sum(one.size_bytes for one in deliveries))

    def _admit(self, delivery: Delivery, at_us: int) -> Work | None:
        """What the pipeline is to do with this record; None: it is finished or moved on, or fails here."""
        lane = delivery.lane
        if lane is not Lane.LIVE and other_collection(delivery.headers, self._collection):
            self._metrics.skipped.inc()
            delivery.finish()
            return None
        event: ImageEvent | None = None
        try:
            event = parse(delivery.value, delivery.headers, at_us=at_us, published_us=delivery.timestamp_ms * 1000)
            if event.location is not None:
                self._grants.check(event.tenant_id, event.location)
        except EventError as exc:
            self._refuse(Work(delivery, event), exc)
            return None
        except Exception as exc:  # noqa: BLE001 - a record that breaks the parser must not end the worker: verdict.py
            self._refuse(Work(delivery, None), exc)
            return None
        shared = lane is Lane.LIVE and not event.is_delete and delivery.size_bytes < SOURCE_MAX_BYTES
        if shared and not self._enter(event.tenant_id):
            self._shunts.move(delivery)
            return None
        work = Work(delivery, event)
        work.counted_live = shared
        if lane in RETRY_LANES:
            work.note = read_note(delivery.headers)
        return work

    def _refuse(self, work: Work, error: Exception) -> None:
        delivery = work.delivery
        if delivery.lane in RETRY_LANES:
            work.note = read_note(delivery.headers)
        self._count([work])
        self._fail(work, error, "receive")

    def _enter(self, tenant_id: str) -> bool:
        return self._shares.enter(tenant_id, window=self._window.size, behind=self._behind)

    def _look_around(self) -> None:
        """What is looked at now and then: whether live waits, who is calm again, what must be seen from outside."""
        waiting = self._source.lag(Lane.LIVE)
        self._behind = waiting is not None and waiting > self._window.size
        self._shares.tend()
        metrics = self._metrics
        metrics.in_flight.labels("events").set(self._window.in_flight)
        metrics.in_flight.labels("bytes").set(self._window.in_flight_bytes)
        metrics.in_flight.labels("held").set(self._source.held)
        metrics.in_flight.labels("shunts").set(self._shunts.in_flight)
        if self._source.lost_data > self._lost_data:
            metrics.lost_data.inc(self._source.lost_data - self._lost_data)
            self._lost_data = self._source.lost_data
        self._tend(self._source.oldest_in_flight_s())


def paused_gauge(metrics: WorkerMetrics) -> Callable[[str, bool], None]:
    """Outages as a metric."""

    def set_paused(cause: str, down: bool) -> None:
        metrics.paused.labels(cause).set(int(down))

    return set_paused
