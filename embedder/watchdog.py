"""The worker's watchdog: an event that is in flight for too long means a hung stage, and a hung stage is ended.

Kafka does not notice it: the poll thread goes on polling (docs/kafka.md). The process says where every
thread stands and ends with 70; its partitions go to others, and whoever supervises it starts it again.
"""

from __future__ import annotations

import faulthandler
import os
import sys
import threading
import time
from collections.abc import Callable

import structlog

from streams.threads import name_this_thread

log = structlog.get_logger(__name__)

EXIT_STUCK = 70
"""EX_SOFTWARE of sysexits.h."""


class Watchdog:
    """Told the age of the oldest event in flight; acts when it is too old, or when it is told nothing any more."""

    def __init__(
        self,
        *,
        limit_s: float,
        on_stuck: Callable[[str], None],
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """`limit_s` must be above what one event may take with all its tries in place; `on_stuck` is called once."""
        self._limit_s = limit_s
        self._on_stuck = on_stuck
        self._clock = clock
        self._told_at = clock()
        self._oldest_s = 0.0
        self._stop = threading.Event()
        self._acted = False

    def tell(self, oldest_s: float) -> None:
        """The oldest event in flight is `oldest_s` old; called by the poll thread, several times a second."""
        self._oldest_s, self._told_at = oldest_s, self._clock()

    @property
    def silent_s(self) -> float:
        """Seconds since the poll thread last told anything."""
        return max(0.0, self._clock() - self._told_at)

    def look(self) -> None:
        """Act where it is too long."""
        silent_s = self._clock() - self._told_at
        if self._acted or max(self._oldest_s, silent_s) < self._limit_s:
            return
        self._acted = True
        self._on_stuck(
            f"the poll thread is silent for {silent_s:.0f} s"
            if silent_s >= self._limit_s
            else f"an event is in flight for {self._oldest_s:.0f} s"
        )

    def start(self) -> None:
        """Look once a second on a thread of its own, until :meth:`stop`."""
        self._told_at = self._clock()
        threading.Thread(target=self._run, name="watchdog", daemon=True).start()

    def stop(self) -> None:
        self._stop.set()

    def _run(self) -> None:
        name_this_thread("watchdog")
        while not self._stop.wait(min(1.0, self._limit_s / 4)):
            self.look()


def end_process(why: str) -> None:
    """Print where every thread stands, then end at once: a hung thread cannot be waited for."""
    log.critical("stuck: this process ends, others take over", why=why, exit_code=EXIT_STUCK)
    sys.stdout.flush()
    faulthandler.dump_traceback(all_threads=True)
    os._exit(EXIT_STUCK)
