"""When a dependency is down: hold what is in hand, admit nothing, probe until it is back, lose nothing."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from typing import Protocol, TypeVar

import structlog

from streams.errors import DependencyError

log = structlog.get_logger(__name__)
Result = TypeVar("Result")

FIRST_PROBE_S = 0.1
MAX_PROBE_S = 2.0
BROKER_SILENT_S = 5.0
"""Without an acknowledgement, while some are waited for, until the broker counts as down. A leader that moves takes
a second or two; the watchdog's two minutes are far away."""


class StoppedError(Exception):
    """The worker stops while a dependency is down: this work stays uncommitted and comes again."""


class PausedGauge(Protocol):
    """Told when a dependency goes down (True) and comes back (False)."""

    def __call__(self, cause: str, down: bool, /) -> None: ...


class Outages:
    """Which dependencies are down now. The probe is the very call that failed, repeated with back-off."""

    def __init__(self, *, stopping: threading.Event, gauge: PausedGauge) -> None:
        self._stopping = stopping
        self._gauge = gauge
        self._lock = threading.Lock()
        self._down: dict[str, float] = {}

    @property
    def any(self) -> bool:
        """Whether the worker must not admit new events."""
        return bool(self._down)

    def causes(self) -> list[str]:
        return sorted(self._down)

    def call(self, action: Callable[[], Result]) -> Result:
        """`action`'s result, however long its dependency takes to come back.

        Raises:
            StoppedError: the worker is asked to stop meanwhile.
        """
        delay_s = FIRST_PROBE_S
        failed: DependencyError | None = None
        while True:
            try:
                result = action()
            except DependencyError as exc:
                failed = exc
                self.down(exc)
            else:
                if failed is not None:
                    self.up(failed.dependency)
                return result
            if self._stopping.wait(delay_s):
                raise StoppedError from failed
            delay_s = min(MAX_PROBE_S, delay_s * 2)

    def down(self, error: DependencyError) -> None:
        """`error`'s dependency does not answer. One line when it starts, not one per event."""
        with self._lock:
            first = error.dependency not in self._down
            self._down.setdefault(error.dependency, time.monotonic())
            self._gauge(error.dependency, True)
        if first:
            log.warning("paused", cause=error.dependency, error=error.message)

    def hear_broker(self, silent_s: float) -> None:
        """What was sent has waited so long for an acknowledgement; the producer itself goes on trying.

        Without this an outage would look like a hung stage: events in flight get older until the watchdog acts.
        """
        if silent_s > BROKER_SILENT_S:
            self.down(DependencyError("broker", f"nothing is acknowledged since {silent_s:.0f} s"))
        elif "broker" in self._down:
            self.up("broker")

    def up(self, dependency: str) -> None:
        """It answers again."""
        with self._lock:
            since = self._down.pop(dependency, None)
            self._gauge(dependency, False)
        if since is not None:
            log.warning("resumed", cause=dependency, after_s=round(time.monotonic() - since, 3))
