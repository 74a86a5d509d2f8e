"""Forgetting deletes: a thread that asks the index, once an hour, to drop tombstones nobody can need any more."""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import Self

import structlog

from embedder.index.protocol import Sweeper
from streams.errors import DependencyError
from streams.event import now_us
from streams.threads import name_this_thread

log = structlog.get_logger(__name__)

EVERY_S = 3600.0
AT_ONCE = 1000
"""Per call: a sweep blocks the index process as a write of so many points does."""


class TombstoneSweeper:
    """A context manager: within it tombstones are swept. Several workers may do so at once."""

    def __init__(
        self, index: Sweeper, *, life_s: float | None, swept: Callable[[int], None], every_s: float = EVERY_S
    ) -> None:
        """`life_s` is how long a delete must be remembered (`streams.durability`), None for ever."""
        self._index = index
        self._life_s = life_s
        self._swept = swept
        self._every_s = every_s
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, name="sweep", daemon=True)

    def sweep(self) -> int:
        """Once, now; returns how many tombstones were forgotten. Raises DependencyError."""
        if self._life_s is None:
            return 0
        before_us = now_us() - round(self._life_s * 1e6)
        total = 0
        while (n := self._index.sweep(before_us, limit=AT_ONCE)) and not self._stop.is_set():
            total += n
            self._swept(n)
        return total

    def __enter__(self) -> Self:
        if self._life_s is None:
            log.warning("deletes are remembered for ever: a topic has no limit of retention")
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        self._thread.join()

    def _run(self) -> None:
        name_this_thread("sweep")
        while not self._stop.wait(self._every_s):
            try:
                n = self.sweep()
            except DependencyError as exc:
                log.warning("tombstones not swept", error=exc.message)
                continue
            log.info("tombstones swept", n=n)
