"""The index process: it alone owns the collections, everybody else asks it over a unix socket.

One thread does everything. The engine's calls hold Python's lock anyway, so a second thread would only add waiting.
Requests are served in the order they arrive, and maintenance fits between them. Where another process holds the
points, it is handed the next questions before it has answered the last (:class:`Forwards`).
"""

from __future__ import annotations

import asyncio
import os
import time
from collections import deque
from collections.abc import Callable, Coroutine
from contextlib import suppress
from pathlib import Path
from typing import Any

import msgspec
import structlog
from prometheus_client import CollectorRegistry

from embedder.index.codec import encode
from embedder.index.collections import Collections
from embedder.index.metrics import IndexMetrics
from embedder.index.protocol import Receipt
from embedder.index.service.flushing import Flushing, send
from embedder.index.service.operations import (
    CHANGES,
    HELD,
    PURE,
    SEARCHES,
    WHOLE,
    Forwards,
    checked_writes,
    perform,
    search_batch,
)
from embedder.index.service.wire import HEAD, MAX_FRAME_BYTES, Request, decode_request, error_data
from streams.errors import DependencyError
from streams.event import now_us

log = structlog.get_logger(__name__)

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
        self._stop = asyncio.Event()
        self._flushing = Flushing(collections, self._metrics, clock, self._end)
        self._writable = asyncio.Event()
        self._writable.set()
        self._held: asyncio.Future[None]
        self._last_request_at = self._maintained_at = clock()
        self._tasks: set[asyncio.Task[None]] = set()
        self._n_forwarded = 0
        self._all_answered = asyncio.Event()
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
        await self._last_answers()
        if self._flushing.failed is None:
            self._flushing.flush()
        await self._hang_up()
        if self._flushing.failed is not None:
            raise self._flushing.failed

    async def _last_answers(self) -> None:
        """Until what was handed on is answered, for a second."""
        if self._n_forwarded:
            self._all_answered.clear()
            with suppress(TimeoutError):
                await asyncio.wait_for(self._all_answered.wait(), LAST_ANSWERS_S)

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
                    self._flushing.searched()
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
            if not self._forward(request, writer):
                await self._answer(request, writer)

    def _forward(self, request: Request, writer: asyncio.StreamWriter) -> bool:
        """Hand a question on to the process that holds the points, where one does; the answer goes out by itself."""
        if request.operation not in PURE:
            return False
        started = self._clock()
        try:
            engine = self._collections.get(request.collection)
            if not isinstance(engine, Forwards):
                return False
            engine.soon(
                request.operation, request.arguments, lambda answer: self._pass_on(answer, request, writer, started)
            )
        except Exception as exc:  # noqa: BLE001 - as in `_answer`
            self._failed(exc, request, writer, started)
            return True
        self._n_forwarded += 1
        return True

    def _pass_on(
        self, answer: msgspec.Raw | Exception, request: Request, writer: asyncio.StreamWriter, started: float
    ) -> None:
        self._n_forwarded -= 1
        if not self._n_forwarded:
            self._all_answered.set()
        if isinstance(answer, Exception):
            self._refuse(answer, request, writer, started)
            return
        try:
            send(writer, encode((request.id, None, answer)))
        except ValueError as exc:  # with this client's number it is larger than a frame may be
            self._refuse(exc, request, writer, started)
            return
        self._metrics.observe(request.operation, "ok", self._clock() - started)

    def _failed(self, error: Exception, request: Request, writer: asyncio.StreamWriter, started: float) -> None:
        if error_data(error)[0] == "internal":
            log.error("request failed", operation=request.operation, exc_info=error)
        self._refuse(error, request, writer, started)

    def _refuse(self, error: BaseException, request: Request, writer: asyncio.StreamWriter, started: float) -> None:
        self._metrics.observe(request.operation, "failed", self._clock() - started)
        send(writer, encode((request.id, error_data(error), None)))

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
        send(writer, body)

    async def _answer(self, request: Request, writer: asyncio.StreamWriter) -> None:
        started = self._clock()
        try:
            if request.operation in HELD:
                await self._writable.wait()
            result = await self._write(request) if request.operation == "write" else self._execute(request)
        except Exception as exc:  # noqa: BLE001 - whatever it was, who asked is told, and others are not concerned
            self._failed(exc, request, writer, started)
            return
        self._metrics.observe(request.operation, "ok", self._clock() - started)
        if request.operation in CHANGES or request.operation == "write":
            self._flushing.acknowledge(writer, request.id, result)
        else:
            send(writer, encode((request.id, None, msgspec.Raw(result))))

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

    def _end(self) -> None:
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
            self._flushing.fail(exc)
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
