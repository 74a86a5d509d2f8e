"""Bucket notifications become image events: poll → read → HEAD → event acknowledged → offset.

A notification is a hint only: stores lose, repeat, reorder and misname them. What is announced is what a HEAD
finds: the object that is there now, or that there is none. Each key is looked at by one thread, so that this
process's looks at it have an order. It lives here and not in `streams` because it needs the object store.
"""

from __future__ import annotations

import threading
import time
import traceback
from collections.abc import Callable
from dataclasses import dataclass

import structlog

from embedder.normalize.metrics import NormalizeMetrics
from embedder.normalize.observe import Place, Versions, event_of
from embedder.normalize.queue import DelayQueue
from embedder.normalize.scope import Scope
from embedder.normalize.work import Look, Pending
from embedder.objects.protocol import ObjectInfo, ObjectMissingError, ObjectStore
from embedder.stages.outages import Outages, StoppedError
from streams.consume.source import Delivery, Source
from streams.errors import DependencyError, EventError, Reason, RetryableError
from streams.event import encode, now_us
from streams.notifications.hint import Kind, Notification
from streams.notifications.read import read
from streams.producer import Producer
from streams.report.dead_letters import DeadLetter, DeadLetters
from streams.threads import name_this_thread
from streams.topics import Lane, TopicNames

log = structlog.get_logger(__name__)

FIRST_DELAY_S = 0.1
MAX_DELAY_S = 1.0
UNEXPECTED_TRIES = 3


@dataclass(frozen=True, slots=True)
class NormalizerOptions:
    """How a normalizer works. Times in seconds.

    `look_again_s` is for how long an object that was announced and is not there is looked for before it counts
    as removed; `retry_window_s` for how long one that cannot be had is tried.
    """

    worker_id: str
    max_in_flight: int = 1024
    head_threads: int = 8
    look_again_s: float = 1.0
    retry_window_s: float = 5.0
    drain_s: float = 12.0


class Normalizer:
    """One process's loop. :meth:`run` once."""

    def __init__(
        self,
        *,
        source: Source,
        producer: Producer,
        objects: ObjectStore,
        scope: Scope,
        names: TopicNames,
        metrics: NormalizeMetrics,
        options: NormalizerOptions,
        stop: threading.Event,
        clock: Callable[[], int] = now_us,
    ) -> None:
        """`stop` asks it to drain and end; it sets it itself when something breaks. `clock` gives µs since 1970."""
        self._source = source
        self._producer = producer
        self._objects = objects
        self._scope = scope
        self._topic = names.lane(Lane.LIVE)
        self._dead_letters = DeadLetters(producer, names.dead)
        self._metrics = metrics
        self._options = options
        self._stop = stop
        self._clock = clock
        self._stopping = threading.Event()
        self._outages = Outages(stopping=self._stopping, gauge=metrics.set_paused)
        self._queues: list[DelayQueue[Look]] = [DelayQueue() for _ in range(options.head_threads)]
        self._lock = threading.Lock()
        self._in_flight = 0
        self._crashed: BaseException | None = None
        self._polled_at = time.monotonic()

    @property
    def silent_s(self) -> float:
        """Seconds since the poll thread last polled: what its health is measured by."""
        return time.monotonic() - self._polled_at

    def run(self) -> int:
        """Work until asked to stop, then drain. Returns how many notifications stayed unfinished (they come again).

        Raises:
            BaseException: what ended it, after the threads were stopped.
        """
        threads = [self._thread(number, queue) for number, queue in enumerate(self._queues)]
        left = 0
        try:
            self._poll()
            left = self._source.close(0.0 if self._crashed or self._outages.any else self._options.drain_s)
        finally:
            self._stopping.set()
            for queue in self._queues:
                queue.close()
            for thread in threads:
                thread.join()
        self._producer.flush(5.0)
        if self._crashed is not None:
            raise self._crashed
        return left

    def _poll(self) -> None:
        while not self._stop.is_set():
            room = 0 if self._outages.any else max(0, self._options.max_in_flight - self._in_flight)
            for delivery in self._source.poll(room):
                self._admit(delivery)
            self._metrics.in_flight.set(self._in_flight)
            self._polled_at = time.monotonic()
            if room == 0:
                self._stop.wait(0.005)  # no room: the poll above did not wait for a record

    # ---- from a record to looks ----------------------------------------------------------------------

    def _admit(self, delivery: Delivery) -> None:
        with self._lock:
            self._in_flight += 1
        try:
            notification = read(delivery.value)
        except EventError as exc:
            notification = Notification(problem=exc)
        places, n_ignored, problem = self._scope.places(notification)
        self._metrics.notifications.labels("ignored").inc(n_ignored)
        pending = Pending(delivery, n_parts=len(places) + (problem is not None), on_done=self._done)
        if problem is not None:
            self._bury(pending, problem, tries=1)
        for kind, place in places:
            queue = self._queues[hash((place.bucket, place.key)) % len(self._queues)]
            queue.put(Look(pending, place, kind))

    # ---- looking ---------------------------------------------------------------------------------------

    def _thread(self, number: int, queue: DelayQueue[Look]) -> threading.Thread:
        def run() -> None:
            name_this_thread(f"head-{number}")
            try:
                self._look_at_all(queue, Versions(self._clock))
            except StoppedError:
                log.info("stopped while a dependency was down", causes=self._outages.causes())
            except BaseException as exc:  # noqa: BLE001 - the thread's loop ends here: `run` raises it
                self._crash(exc)

        thread = threading.Thread(target=run, name=f"head-{number}", daemon=True)
        thread.start()
        return thread

    def _look_at_all(self, queue: DelayQueue[Look], versions: Versions) -> None:
        while (look := queue.take()) is not None:
            if look.pending.delivery.lost:
                look.pending.part_done()  # its partition went to another process, which gets it again
                continue
            look.tries += 1
            try:
                again = self._look(look, versions)
            except StoppedError:
                raise
            except Exception as exc:  # noqa: BLE001 - whatever one object does must not end this thread
                again = self._failed(look, exc)
            if again:
                queue.put(look, delay_s=min(MAX_DELAY_S, FIRST_DELAY_S * 2.0 ** (look.tries - 1)))

    def _look(self, look: Look, versions: Versions) -> bool:
        """Look and announce; True where it is to be looked at again."""
        look_us, found = self._outages.call(lambda: self._head(look.place, versions))
        if found is None and look.kind is Kind.CREATED and look.waited_s < self._options.look_again_s:
            return True  # not every store shows an object as soon as it tells of it
        if found is not None and found.announced:
            self._metrics.notifications.labels("own").inc()
            look.pending.part_done()
            return False
        modified_us = None if found is None else found.modified_us
        self._announce(look, found, versions.of(look.place, look_us=look_us, modified_us=modified_us))
        return False

    def _head(self, place: Place, versions: Versions) -> tuple[int, ObjectInfo | None]:
        look_us, began_at = versions.look(), time.monotonic()
        try:
            return look_us, self._objects.head(place.location)
        except ObjectMissingError:
            return look_us, None
        finally:
            self._metrics.heads.observe(time.monotonic() - began_at)

    def _announce(self, look: Look, found: ObjectInfo | None, version: int) -> None:
        event = event_of(look.place, found, version=version)
        key, value, headers = encode(event)
        result = "deleted" if event.is_delete else "created"
        self._producer.send(
            self._topic,
            key=key,
            value=value,
            headers=headers,
            on_ack=lambda error: self._acknowledged(look.pending, result, error),
        )

    def _failed(self, look: Look, error: Exception) -> bool:
        """True where it is to be tried again; else it is dead-lettered."""
        match error:
            case DependencyError():
                raise error  # the producer is beyond repair
            case EventError():
                again = False
            case RetryableError():
                again = look.waited_s < self._options.retry_window_s
            case _:
                again = look.tries < UNEXPECTED_TRIES
        if not again:
            self._bury(look.pending, error, tries=look.tries)
        return again

    # ---- the end of a notification -----------------------------------------------------------------------

    def _bury(self, pending: Pending, error: Exception, *, tries: int) -> None:
        reason, cause = _reason(error)
        expected = isinstance(error, EventError | RetryableError)
        message = str(error) if expected else "".join(traceback.format_exception(error))[-4000:]
        delivery = pending.delivery
        log.warning(
            "notification dead-lettered",
            reason=reason,
            error=f"{type(error).__name__}: {error}"[:500],
            partition=delivery.partition,
            offset=delivery.offset,
        )
        letter = DeadLetter(
            reason=reason,
            stage="normalize",
            error=type(error).__name__,
            message=message,
            attempts=tries,
            worker=self._options.worker_id,
            at_us=now_us(),
            collection="",  # none: what is made of it goes to every one
            cause=cause,
        )
        self._metrics.dead_letters.labels(reason.value).inc()
        self._dead_letters.report(letter, delivery, on_ack=lambda failed: self._acknowledged(pending, "dead", failed))

    def _acknowledged(self, pending: Pending, result: str, error: DependencyError | None) -> None:
        if error is not None:
            self._crash(error)
            return
        self._metrics.notifications.labels(result).inc()
        pending.part_done()

    def _done(self) -> None:
        with self._lock:
            self._in_flight -= 1

    def _crash(self, error: BaseException) -> None:
        if self._crashed is None:
            self._crashed = error
            log.critical("normalizer ends", error=f"{type(error).__name__}: {error}")
        self._stop.set()


def _reason(error: Exception) -> tuple[Reason, Reason | None]:
    match error:
        case EventError(reason=reason):
            return reason, None
        case RetryableError(reason=reason):
            return Reason.ATTEMPTS_EXHAUSTED, reason
        case _:
            return Reason.INTERNAL_ERROR, None
