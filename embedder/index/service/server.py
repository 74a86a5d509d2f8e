"""The index process: it alone owns the collections, everybody else asks it over a unix socket.

One thread does everything. The engine's calls hold Python's lock anyway, so a second thread would
only add waiting; requests are served in the order they arrive, and maintenance fits between them.
"""

from __future__ import annotations

import asyncio
import os
import time
from collections import deque
from collections.abc import Callable, Coroutine
from pathlib import Path
from typing import Any

import msgspec
import structlog
from prometheus_client import CollectorRegistry

from embedder.index.codec import encode
from embedder.index.collections import Collections
from embedder.index.metrics import IndexMetrics
from embedder.index.protocol import Receipt
from embedder.index.service.operations import CHANGES, HELD, SEARCHES, WHOLE, checked_writes, perform, search_batch
from embedder.index.service.wire import HEAD, MAX_FRAME_BYTES, Request, decode_request, error_data, frame
from streams.errors import DependencyError
from streams.event import now_us

log = structlog.get_logger(__name__)

FLUSH_SHARE = 30
"""A flush that took t is followed by the next no sooner than 30 t later: some 3 % of the time is spent in flushes,
which block searches. With 5 % the slowest twentieth of searches would be those that met one (docs/index.md)."""
FLUSH_SHARE_UNASKED = 10
"""While nobody searches only the workers' lookups are disturbed: writes are acknowledged sooner. With 4, one lookup in
five met a flush, and in a flood it was a tenant's slowest twentieth that did (docs/chaos.md, scenario 19)."""
SEARCHED_S = 2.0
"""For how long after a search another one is expected."""
MAX_FLUSH_WAIT_S = 3.0
WRITE_PIECE = 4
"""Writes applied in one go, about 1 ms: a search must not wait for a whole call of them."""
MAX_HELD = 64
"""Writes of one connection that wait for a copy while its searches are answered; with more, those wait too."""
MAINTAIN_EVERY_S = 0.5
MAINTAIN_BUSY_S = 0.02
LAST_ANSWERS_S = 1.0
STUCK_S = 60.0
"""No step of maintenance takes a second: what holds the thread so long does not come back."""


class IndexServer:
    """Serves `collections` until asked to stop. All methods on one event loop's thread."""

    def __init__(
        self,
        collections: Collections,
        *,
        metrics: IndexMetrics | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._collections = collections
        self._metrics = metrics or IndexMetrics(CollectorRegistry())
        self._clock = clock
        self._waiting: list[tuple[asyncio.StreamWriter, int, bytes]] = []
        self._stop = asyncio.Event()
        self._failed: DependencyError | None = None
        self._writable = asyncio.Event()
        self._writable.set()
        self._held: asyncio.Future[None]
        self._flush_at: asyncio.TimerHandle | asyncio.Handle | None = None
        self._flushed_at = 0.0
        self._flush_took_s = 0.0
        self._searched_at = float("-inf")
        self._last_request_at = self._maintained_at = clock()
        self._tasks: set[asyncio.Task[None]] = set()
        self._clients: dict[asyncio.StreamWriter, asyncio.Task[None] | None] = {}

    async def serve(self, socket_path: Path, stop: asyncio.Event) -> None:
        """Answer until `stop` is set; what was applied by then is flushed and acknowledged.

        Raises:
            DependencyError: a flush failed, and everything that waited for it was told so; or an engine is lost.
        """
        self._stop = stop
        self._held = asyncio.get_running_loop().create_future()
        server = await asyncio.start_unix_server(self._client, path=str(socket_path), limit=MAX_FRAME_BYTES + HEAD.size)
        os.chmod(socket_path, 0o600)
        log.info("index answers", socket=str(socket_path))
        while not stop.is_set():
            self._maintain()
            try:
                await asyncio.wait_for(stop.wait(), MAINTAIN_BUSY_S if self._busy() else MAINTAIN_EVERY_S)
            except TimeoutError:
                continue
        server.close()
        if self._failed is None:
            self._flush()
        await self._hang_up()
        if self._failed is not None:
            raise self._failed

    async def _hang_up(self) -> None:
        """Let the last answers out; whoever does not read them costs all together one second."""
        clients = dict(self._clients)
        draining = [asyncio.ensure_future(_drained(writer)) for writer in clients]
        if draining:
            await asyncio.wait(draining, timeout=LAST_ANSWERS_S)
        for writer in clients:
            writer.transport.abort()
        serving = [task for task in (*draining, *clients.values()) if task is not None]
        if serving:
            await asyncio.wait(serving, timeout=LAST_ANSWERS_S)
        unfinished = set(self._tasks)  # held writes among them: the collections are closed next
        for task in unfinished:
            task.cancel()
        await asyncio.gather(*unfinished, return_exceptions=True)

    async def _client(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """One connection. What it sends wrongly closes it, and nothing else."""
        self._clients[writer] = asyncio.current_task()
        held: deque[asyncio.Task[None]] = deque()
        try:
            while True:
                (length,) = HEAD.unpack(await reader.readexactly(HEAD.size))
                if length > MAX_FRAME_BYTES:
                    log.warning("client dropped", why=f"a frame of {length} bytes")
                    return
                request = decode_request(await reader.readexactly(length))
                self._last_request_at = self._clock()
                if request.operation in SEARCHES:
                    self._searched_at = self._last_request_at
                await self._in_turn(request, writer, held)
                await writer.drain()
        except (asyncio.IncompleteReadError, ConnectionError):
            return  # it hung up
        except msgspec.DecodeError as exc:
            log.warning("client dropped", why=str(exc))
        finally:
            self._clients.pop(writer, None)
            writer.close()

    async def _in_turn(self, request: Request, writer: asyncio.StreamWriter, held: deque[asyncio.Task[None]]) -> None:
        """Answer what a connection asks in its order, but let searches overtake writes that wait for a copy.

        `held` are those; what is neither a search nor another one of them waits for them, so that a client reads
        what it wrote.
        """
        if request.operation == "search_batch":  # its connection goes on meanwhile
            self._aside(self._answer_batch(request, writer))
        elif request.operation in HELD and len(held) < MAX_HELD:
            task = self._aside(self._answer_after(held[-1] if held else None, request, writer))
            await asyncio.wait((task, self._held), return_when=asyncio.FIRST_COMPLETED)
            if not task.done():
                held.append(task)
        else:
            while held and request.operation not in SEARCHES:
                await held.popleft()
            await self._answer(request, writer)

    def _aside(self, answering: Coroutine[Any, Any, None]) -> asyncio.Task[None]:
        task = asyncio.ensure_future(answering)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        return task

    async def _answer_after(
        self, before: asyncio.Task[None] | None, request: Request, writer: asyncio.StreamWriter
    ) -> None:
        if before is not None:
            await before
        await self._answer(request, writer)

    async def _answer_batch(self, request: Request, writer: asyncio.StreamWriter) -> None:
        """One question after the other, with what others ask between them."""
        try:
            answers = []
            for answer in search_batch(self._collections.get(request.collection), request.arguments):
                answers.append(answer)
                await _let_others_in()
            body = encode((request.id, None, answers))
        except Exception as exc:
            if error_data(exc)[0] == "internal":
                log.exception("request failed", operation=request.operation)
            body = encode((request.id, error_data(exc), None))
        if not writer.is_closing():
            writer.write(frame(body))

    async def _answer(self, request: Request, writer: asyncio.StreamWriter) -> None:
        started = self._clock()
        try:
            if request.operation in HELD:
                await self._writable.wait()
            result = await self._write(request) if request.operation == "write" else self._execute(request)
        except Exception as exc:
            self._metrics.observe(request.operation, "failed", self._clock() - started)
            if error_data(exc)[0] == "internal":
                log.exception("request failed", operation=request.operation)
            writer.write(frame(encode((request.id, error_data(exc), None))))
            return
        self._metrics.observe(request.operation, "ok", self._clock() - started)
        if request.operation in CHANGES or request.operation == "write":
            self._waiting.append((writer, request.id, result))
            self._flush_soon()
        else:
            writer.write(frame(encode((request.id, None, msgspec.Raw(result)))))

    async def _write(self, request: Request) -> bytes:
        """Apply in pieces, with what others ask between them; nothing where one of the vectors cannot be stored.

        The same connection's next request waits, so that a client reads what it wrote.
        """
        tenant_id, writes = checked_writes(self._collections.get(request.collection), request.arguments)
        written = []
        for start in range(0, len(writes), WRITE_PIECE):
            await self._writable.wait()
            engine = self._collections.get(request.collection)  # it may be another one after each piece
            written += engine.write_now(tenant_id, writes[start : start + WRITE_PIECE])
            await _let_others_in()
        return encode(Receipt(tuple(written), now_us()))

    def _execute(self, request: Request) -> bytes:
        if request.operation == "ping":
            return encode(os.getpid())
        whole = WHOLE.get(request.operation)
        if whole is not None:
            return whole(self._collections, request.arguments)
        return perform(self._collections.get(request.collection), request.operation, request.arguments)

    # ---- durability: at once when idle, else a small share of the time ------------------------------------

    def _flush_soon(self) -> None:
        if self._flush_at is not None:
            return
        loop = asyncio.get_running_loop()
        now = self._clock()
        wait_s = self._flushed_at + self._pause_s(now) - now
        if wait_s <= 0:
            self._flush_at = loop.call_soon(self._flush)  # after what has arrived by now
        else:
            self._flush_at = loop.call_later(wait_s, self._flush)

    def _pause_s(self, now: float) -> float:
        """What must lie between two flushes."""
        share = FLUSH_SHARE if now - self._searched_at < SEARCHED_S else min(FLUSH_SHARE, FLUSH_SHARE_UNASKED)
        return min(MAX_FLUSH_WAIT_S, self._flush_took_s * share)

    def _flush(self) -> None:
        self._flush_at = None
        started = self._clock()
        try:
            for engine in self._collections.opened():
                engine.flush()
        except DependencyError as exc:
            self._fail(exc)
        self._flushed_at = self._clock()
        self._flush_took_s = self._flushed_at - started
        self._metrics.flush.observe(self._flush_took_s)
        waiting, self._waiting = self._waiting, []
        for writer, request_id, result in waiting:
            if not writer.is_closing():
                error = None if self._failed is None else error_data(self._failed)
                writer.write(frame(encode((request_id, error, None if error else msgspec.Raw(result)))))

    def _fail(self, error: DependencyError) -> None:
        """What is on the disk is not known any more: end, so that the next start reads it."""
        log.critical("index ends: what is not acknowledged is not sure to be kept", error=error.message)
        self._failed = error
        self._stop.set()

    def _busy(self) -> bool:
        return any(engine.busy() for engine in self._collections.opened())

    def _maintain(self) -> None:
        started = self._clock()
        idle_s = started - self._last_request_at
        try:
            for engine in self._collections.opened():
                engine.maintain(idle_s=idle_s)
        except DependencyError as exc:
            self._fail(exc)
        self._hold(any(engine.held() for engine in self._collections.opened()))
        self._maintained_at = self._clock()
        self._metrics.maintenance.observe(self._maintained_at - started)

    def _hold(self, held: bool) -> None:
        """Let writes wait, or go on: `_writable` is for those that wait, `_held` wakes who waits for a write."""
        if held == self._held.done():
            return
        if held:
            self._writable.clear()
            self._held.set_result(None)
        else:
            self._writable.set()
            self._held = asyncio.get_running_loop().create_future()

    def health(self) -> tuple[bool, dict[str, float]]:
        """Whether the one thread moves; asked from another one."""
        late_s = max(0.0, self._clock() - self._maintained_at - MAINTAIN_EVERY_S)
        return late_s < STUCK_S, {"event_loop_late_s": round(late_s, 3)}


async def _let_others_in() -> None:
    """What has arrived is read in one turn of the loop, wakes its connection in the next, is answered in a third."""
    for _ in range(3):
        await asyncio.sleep(0)


async def _drained(writer: asyncio.StreamWriter) -> None:
    """Returns when everything written was handed to the kernel; a client that is gone does not matter any more."""
    writer.transport.set_write_buffer_limits(high=0)  # else `drain` is content with a full buffer
    try:
        await writer.drain()
    except ConnectionError:
        log.warning("client went away before its last answer")
