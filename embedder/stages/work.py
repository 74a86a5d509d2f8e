"""One event on its way through the worker, and the queue between two stages."""

from __future__ import annotations

import heapq
import itertools
import threading
import time
from collections import deque
from collections.abc import Callable, Iterable
from dataclasses import dataclass

import msgspec

from embedder.index.points import Point, Step, Vector, Write
from embedder.models.protocol import Pixels
from streams.consume.fairness import FairQueue
from streams.consume.retry import RetryNote
from streams.consume.source import Delivery
from streams.errors import Reason
from streams.event import ImageEvent
from streams.report.outcomes import OutcomeState
from streams.topics import Lane

QUANTUM_BYTES = 256 * 1024
"""What a picture costs at least, however small: about what its embedding takes in bytes decoded."""


@dataclass(frozen=True, slots=True)
class Failure:
    """Why an event is given up; `stage` is where, `error` the exception's class.

    `later` is the retry lane it is given up for, None for good.
    """

    reason: Reason
    stage: str
    error: str
    message: str
    cause: Reason | None = None
    later: Lane | None = None


_FIRST_TIME = RetryNote()


class Work(msgspec.Struct, eq=False):
    """One delivery and what the stages found out about it. Only one stage holds it at a time."""

    delivery: Delivery
    event: ImageEvent | None
    """None where the record could not be read as an event."""
    note: RetryNote = _FIRST_TIME
    """What a retry record says of the rounds before."""
    counted_live: bool = False
    """Counted as this tenant's share of live."""
    on_trial: bool = False
    """Tried again because the dead-letter breaker held it."""
    marked_at: float = msgspec.field(default_factory=time.monotonic)
    stage_s: dict[str, float] = msgspec.field(default_factory=dict)
    tries: int = 0
    first_try_at: float | None = None
    step: Step | None = None
    stored: Point | None = None
    failure: Failure | None = None
    etag: str | None = None
    sha256: str = ""
    pixels: Pixels | None = None
    width_px: int = 0
    height_px: int = 0
    vector: Vector | None = None
    replaces_etag: str | None = None
    write: Write | None = None
    handed_over: bool = False
    """`write` is with the index: nothing but its durability is waited for."""
    applied_at_us: int | None = None
    """When `write` became visible to searches: before it was durable."""
    alone: bool = False
    """Write it in a call of its own: the call it was part of was refused."""
    becomes: OutcomeState | None = None
    """The outcome once `write` is applied."""

    def mark(self, stage: str) -> None:
        """The time since the last mark was spent in `stage`, waiting before it included."""
        now = time.monotonic()
        self.stage_s[stage] = self.stage_s.get(stage, 0.0) + now - self.marked_at
        self.marked_at = now

    def start_again(self) -> None:
        """Forget what failed: the next look decides anew."""
        self.failure, self.first_try_at, self.tries = None, None, 0
        self.step, self.replaces_etag, self.becomes = None, None, None
        self.drop_contents()

    def drop_contents(self) -> None:
        """Let go of what is large."""
        self.pixels, self.vector, self.write, self.alone = None, None, None, False

    @property
    def known_event(self) -> ImageEvent:
        """The event, where this stage is only reached with one."""
        assert self.event is not None
        return self.event


class WorkQueue:
    """What waits before a stage. Its bound is the worker's window: no more is admitted than may wait anywhere."""

    def __init__(self, on_lost: Callable[[Work], None], *, fair: bool = False) -> None:
        """`on_lost` is told of each work that is dropped because its partition went to another worker.

        A `fair` queue hands out by turns of tenants, every other one in order.
        """
        self._on_lost = on_lost
        self._ready: deque[Work] | FairQueue[Work] = FairQueue(_fair, quantum=QUANTUM_BYTES) if fair else deque()
        self._later: list[tuple[float, int, Work]] = []
        self._order = itertools.count()
        lock = threading.Lock()
        self._changed = threading.Condition(lock)
        self._room = threading.Condition(lock)
        self._closed = False

    def __len__(self) -> int:
        return len(self._ready) + len(self._later)

    def put(self, work: Work) -> None:
        with self._changed:
            self._ready.append(work)
            self._changed.notify()

    def put_many(self, works: Iterable[Work]) -> None:
        with self._changed:
            self._ready.extend(works)
            self._changed.notify_all()

    def put_later(self, work: Work, delay_s: float) -> None:
        """Hand it out again after `delay_s`: nobody sleeps for it."""
        with self._changed:
            heapq.heappush(self._later, (time.monotonic() + delay_s, next(self._order), work))
            self._changed.notify()

    def wait_below(self, n: int) -> None:
        """Wait until fewer than `n` are ready here, or the queue is closed."""
        with self._room:
            self._room.wait_for(lambda: self._closed or len(self._ready) < n)

    def take(self, max_works: int, *, timeout_s: float | None = None) -> list[Work]:
        """Wait for the first, then take what is there. Empty: `timeout_s` is over, or the queue is closed."""
        deadline = None if timeout_s is None else time.monotonic() + timeout_s
        with self._changed:
            while not self._closed:
                now = time.monotonic()
                while self._later and self._later[0][0] <= now:
                    self._ready.append(heapq.heappop(self._later)[2])
                if works := self._pop(max_works):
                    return works
                if deadline is not None and now >= deadline:
                    return []
                waits = [at - now for at in (deadline, self._later[0][0] if self._later else None) if at is not None]
                self._changed.wait(min(waits) if waits else None)
            return []

    def _pop(self, max_works: int) -> list[Work]:
        works: list[Work] = []
        while self._ready and len(works) < max_works:
            work = self._ready.popleft()
            if work.delivery.lost:
                self._on_lost(work)
            else:
                works.append(work)
        if works:
            self._room.notify_all()
        return works

    def close(self) -> None:
        """Wake everybody; nothing is handed out any more."""
        with self._changed:
            self._closed = True
            self._changed.notify_all()
            self._room.notify_all()

    @property
    def closed(self) -> bool:
        return self._closed


def _fair(work: Work) -> tuple[bool, str, int]:
    """Whose turn this work takes, and how much of it: a picture costs by its size, where it is known."""
    event = work.known_event
    size_bytes = event.location.size_bytes if event.location is not None else None
    return work.delivery.lane is Lane.BULK, event.tenant_id, max(QUANTUM_BYTES, size_bytes or 0)
