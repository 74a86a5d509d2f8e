"""The seam between async and blocking code: the only place where a call leaves the event loop's thread."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from queue import SimpleQueue
from typing import Any, TypeVar

from embedder.query_embedder import QueueFullError
from streams.errors import QueryError

T = TypeVar("T")


@dataclass(frozen=True, slots=True, eq=False)
class _Call:
    function: Callable[[], Any]
    future: asyncio.Future[Any]
    loop: asyncio.AbstractEventLoop


class Slots:
    """So many of something may be in hand; who comes when all are taken is told so at once. One event loop uses it."""

    def __init__(self, n: int, what: str) -> None:
        self._n = n
        self._what = what
        self._taken = 0

    @contextmanager
    def take(self) -> Iterator[None]:
        """One of them, for as long as the context lasts. QueueFullError where there is none."""
        if self._taken >= self._n:
            raise QueueFullError(f"{self._taken} {self._what} are in hand: ask again in a moment")
        self._taken += 1
        try:
            yield
        finally:
            self._taken -= 1


class Threads:
    """A few threads with a bound on what waits for them. One event loop uses it.

    A call that outlives its deadline keeps its thread until it returns, and counts as long: a
    dependency that hangs fills this, and nothing else. Daemon threads, so that it can't hold up a stop.
    """

    def __init__(self, *, n_threads: int, max_waiting: int, name: str) -> None:
        self._n_threads = n_threads
        self._max_calls = n_threads + max_waiting
        self._name = name
        self._calls: SimpleQueue[_Call | None] = SimpleQueue()
        self._n_calls = 0
        self._started = False

    async def run(self, function: Callable[[], T], *, deadline_s: float | None = None) -> T:
        """What `function` returns or raises.

        Raises:
            QueryError: 503 `overloaded`, nothing was done.
            TimeoutError: `deadline_s` passed; the call may still come to an end unseen. Without one it is the
                request's (`middleware/deadline.py`).
        """
        if self._n_calls >= self._max_calls:
            raise QueryError(503, "overloaded", "too many requests are waiting: ask again in a moment")
        if not self._started:
            self._start()
        loop = asyncio.get_running_loop()
        call = _Call(function, loop.create_future(), loop)
        self._n_calls += 1
        self._calls.put(call)
        async with asyncio.timeout(deadline_s):
            result: T = await call.future
        return result

    def close(self) -> None:
        """Idle threads end now, busy ones after their call."""
        for _ in range(self._n_threads if self._started else 0):
            self._calls.put(None)
        self._started = False

    def _start(self) -> None:
        self._started = True
        for number in range(self._n_threads):
            threading.Thread(target=self._work, name=f"{self._name}-{number}", daemon=True).start()

    def _work(self) -> None:
        while (call := self._calls.get()) is not None:
            result: Any = None
            error: Exception | None = None
            try:
                if not call.future.cancelled():
                    result = call.function()
            except Exception as exc:  # noqa: BLE001 - nothing is swallowed: it is raised again where the call came from
                error = exc
            with suppress(RuntimeError):  # the loop is closed: nobody waits any more
                call.loop.call_soon_threadsafe(self._finish, call.future, result, error)

    def _finish(self, future: asyncio.Future[Any], result: object, error: Exception | None) -> None:
        self._n_calls -= 1
        if future.cancelled():
            return
        if error is None:
            future.set_result(result)
        else:
            future.set_exception(error)
