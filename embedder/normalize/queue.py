"""What waits for a thread, some of it for a while longer."""

from __future__ import annotations

import heapq
import itertools
import threading
import time
from collections.abc import Callable
from typing import Generic, TypeVar

T = TypeVar("T")


class DelayQueue(Generic[T]):
    """By the time at which each is due, so that nothing starves. Its bound is what its users admit."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._waiting: list[tuple[float, int, T]] = []
        self._order = itertools.count()
        self._changed = threading.Condition()
        self._closed = False

    def put(self, item: T, *, delay_s: float = 0.0) -> None:
        """Hand it out, no sooner than after `delay_s`."""
        with self._changed:
            heapq.heappush(self._waiting, (self._clock() + delay_s, next(self._order), item))
            self._changed.notify()

    def take(self) -> T | None:
        """Wait for the next; None once it is closed."""
        with self._changed:
            while not self._closed:
                now = self._clock()
                if self._waiting and self._waiting[0][0] <= now:
                    return heapq.heappop(self._waiting)[2]
                self._changed.wait(self._waiting[0][0] - now if self._waiting else None)
            return None

    def close(self) -> None:
        """Wake everybody; nothing is handed out any more."""
        with self._changed:
            self._closed = True
            self._changed.notify_all()
