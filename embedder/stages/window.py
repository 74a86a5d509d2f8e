"""How much a worker has in hand: by time, by bytes, and no more than a number of events."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable

WORK_AHEAD_S = 1.25
"""About a second of work is in hand: enough to keep every stage busy, little enough that a revoke drains it."""
MIN_WINDOW = 16
BULK_SHARE_WHILE_SHUNTING = 0.25
"""What one tenant was moved to bulk for must not be undone by bulk filling the window."""


class Window:
    """How much may be worked on: what was done in the last second, and a quarter more to grow.

    What only waits for the index to make it durable is no work any more. It would else fill the window for
    the up to one second that a flush takes, and a window of a second's work could not grow out of that:
    a worker with an idle network did 22 pictures/s instead of 30. `max_events` bounds both together; a
    revoke waits for one more flush, however many wait for it.
    """

    def __init__(
        self, *, max_events: int, max_bytes: int = 1 << 30, clock: Callable[[], float] = time.monotonic
    ) -> None:
        """`max_bytes` bounds the records' values; pictures are bounded by the stages that hold them."""
        self._max = max_events
        self._max_bytes = max_bytes
        self._clock = clock
        self._lock = threading.Lock()
        self._in_flight = 0
        self._handed_over = 0
        self._bulk = 0
        self._bytes = 0
        self._done = 0
        self._measured_at = clock()
        self._size = min(MIN_WINDOW, max_events)

    def free(self) -> int:
        """Room for so many more, from the rate of the second before."""
        with self._lock:
            now = self._clock()
            elapsed = now - self._measured_at
            if elapsed >= 1.0:
                rate = self._done / elapsed
                self._size = max(min(MIN_WINDOW, self._max), min(self._max, int(rate * WORK_AHEAD_S)))
                self._done, self._measured_at = 0, now
            elif self._done >= self._size:  # a second's worth went through in less: no need to wait for its end
                self._size = min(self._max, self._size * 2)
            room = min(self._size - self._in_flight + self._handed_over, self._max - self._in_flight)
            return max(0, min(room, self._room_for_bytes()))

    def free_bulk(self) -> int:
        """Room for so many more of bulk while a tenant is being moved there."""
        return max(0, int(self.size * BULK_SHARE_WHILE_SHUNTING) - self._bulk)

    def take(self, n: int, *, n_bulk: int = 0, n_bytes: int = 0) -> None:
        with self._lock:
            self._in_flight += n
            self._bulk += n_bulk
            self._bytes += n_bytes

    def hand_over(self, n: int) -> None:
        """The work of so many events is done: their writes wait for the index."""
        with self._lock:
            self._handed_over += n
            self._done += n

    def take_back(self, n: int) -> None:
        """So many writes have to be looked at or sent again."""
        with self._lock:
            self._handed_over -= n

    def release(self, *, handed_over: bool = False, bulk: bool = False, n_bytes: int = 0) -> None:
        """An event has left the worker; `handed_over` where its write was with the index until then."""
        with self._lock:
            self._in_flight -= 1
            self._bulk -= bulk
            self._bytes -= n_bytes
            if handed_over:
                self._handed_over -= 1
            else:
                self._done += 1

    @property
    def size(self) -> int:
        """How many events this worker has room for at present, those that wait for the index among them.

        Shares are of this: of the work alone, tenants that wait for a flush would all be above theirs.
        """
        return self._size + self._handed_over

    @property
    def in_flight(self) -> int:
        """Taken and not released, whether worked on or waiting for the index."""
        return self._in_flight

    @property
    def in_flight_bytes(self) -> int:
        return self._bytes

    def _room_for_bytes(self) -> int:
        """As many records as fit, taken to be as large as those in hand; one, as long as there is any room."""
        left = self._max_bytes - self._bytes
        if left <= 0:
            return 0
        if self._in_flight <= 0:
            return self._max
        return max(1, left * self._in_flight // max(1, self._bytes))
