"""When what was written becomes durable, and is acknowledged: at once when idle, else in a small share of the time."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

import msgspec
import structlog

from embedder.index.codec import encode
from embedder.index.collections import Collections
from embedder.index.metrics import IndexMetrics
from embedder.index.service.operations import Forwards
from embedder.index.service.wire import error_data, frame
from streams.errors import DependencyError

log = structlog.get_logger(__name__)

FLUSH_SHARE = 40
"""A flush that took t is followed by the next no sooner than 40 t later: 2.5 % of the time is spent in flushes, which
block searches. At 30, one search in twenty met one, so that the p95 was theirs (docs/index.md)."""
FLUSH_SHARE_UNASKED = 10
"""While nobody searches only the workers' lookups are disturbed: writes are acknowledged sooner. With 4, one lookup in
five met a flush, and in a flood it was a tenant's slowest twentieth that did (docs/chaos.md, scenario 19)."""
SEARCHED_S = 2.0
"""For how long after a search another one is expected."""
MAX_FLUSH_WAIT_S = 3.0


class Flushing:
    """Keeps the answers of writes until they are durable. All methods on one event loop's thread."""

    def __init__(
        self,
        collections: Collections,
        metrics: IndexMetrics,
        clock: Callable[[], float],
        on_failed: Callable[[], None],
    ) -> None:
        """`on_failed` is called once nothing can be acknowledged any more."""
        self._collections = collections
        self._metrics = metrics
        self._clock = clock
        self._on_failed = on_failed
        self._waiting: list[tuple[asyncio.StreamWriter, int, bytes]] = []
        self._at: asyncio.TimerHandle | asyncio.Handle | None = None
        self.failed: DependencyError | None = None
        self.took_s = 0.0
        self._ended_at = 0.0
        self._searched_at = float("-inf")

    def searched(self) -> None:
        """Somebody waits for answers now, who is not to meet a flush."""
        self._searched_at = self._clock()

    def acknowledge(self, writer: asyncio.StreamWriter, request_id: int, result: bytes) -> None:
        """Answer with `result` once everything applied by now is durable; with an error where that fails."""
        self._waiting.append((writer, request_id, result))
        if self._at is not None:
            return
        loop = asyncio.get_running_loop()
        now = self._clock()
        wait_s = self._ended_at + self.pause_s(now) - now
        if wait_s <= 0:
            self._at = loop.call_soon(self.flush)  # after what has arrived by now
        else:
            self._at = loop.call_later(wait_s, self.flush)

    def pause_s(self, now: float) -> float:
        """What must lie between two flushes."""
        share = FLUSH_SHARE if now - self._searched_at < SEARCHED_S else min(FLUSH_SHARE, FLUSH_SHARE_UNASKED)
        return min(MAX_FLUSH_WAIT_S, self.took_s * share)

    def flush(self) -> None:
        """Flush, and answer everybody who waits for that."""
        self._at = None
        started = self._clock()
        try:
            for engine in self._collections.opened():
                if isinstance(engine, Forwards):
                    engine.catch_up()  # searches are no part of what a flush takes
            started = self._clock()
            for engine in self._collections.opened():
                engine.flush()
        except DependencyError as exc:
            self.fail(exc)
        self._ended_at = self._clock()
        self.took_s = self._ended_at - started
        self._metrics.flush.observe(self.took_s)
        waiting, self._waiting = self._waiting, []
        for writer, request_id, result in waiting:
            error = None if self.failed is None else error_data(self.failed)
            send(writer, encode((request_id, error, None if error else msgspec.Raw(result))))

    def fail(self, error: DependencyError) -> None:
        """What is on the disk is not known any more: end, so that the next start reads it."""
        log.critical("index ends: what is not acknowledged is not sure to be kept", error=error.message)
        self.failed = error
        self._on_failed()


def send(writer: asyncio.StreamWriter, body: bytes) -> None:
    """A frame for a client, if it is still there."""
    if not writer.is_closing():
        writer.write(frame(body))
