"""The index process: it alone owns the collections, everybody else asks it over a unix socket.

One thread does everything. The engine's calls hold Python's lock anyway, so a second thread would
only add waiting; requests are served in the order they arrive, and maintenance fits between them.
"""

from __future__ import annotations

import asyncio
import fcntl
import os
import signal
import socket
import stat
import time
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path

import msgspec
import structlog
from prometheus_client import CollectorRegistry

from embedder.index.codec import encode
from embedder.index.collections import Collections, Engine
from embedder.index.metrics import IndexMetrics
from embedder.index.protocol import CollectionSpec
from embedder.index.service.operations import CHANGES, READS, WHOLE, search_batch
from embedder.index.service.wire import HEAD, MAX_FRAME_BYTES, Request, decode_request, error_data, frame
from streams.errors import ConfigError, DependencyError
from streams.status_server import StatusServer, process_registry

log = structlog.get_logger(__name__)

FLUSH_SHARE = 25
"""A flush that took t is followed by the next no sooner than 25 t later: at most 4 % of the time is
spent in flushes, which block searches (docs/index.md)."""
MAX_FLUSH_WAIT_S = 1.0
MAINTAIN_EVERY_S = 0.5
MAINTAIN_BUSY_S = 0.02
LAST_ANSWERS_S = 1.0
STUCK_S = 60.0
"""An optimisation at a million points takes less: what holds the thread longer does not come back."""
MAX_SOCKET_PATH_BYTES = 100
"""Linux allows 107; room for the suffix of a temporary name."""


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
        self._flush_at: asyncio.TimerHandle | asyncio.Handle | None = None
        self._flushed_at = 0.0
        self._flush_took_s = 0.0
        self._last_request_at = self._maintained_at = clock()
        self._batches: set[asyncio.Future[None]] = set()
        self._clients: dict[asyncio.StreamWriter, asyncio.Task[None] | None] = {}

    async def serve(self, socket_path: Path, stop: asyncio.Event) -> None:
        """Answer until `stop` is set; what was applied by then is flushed and acknowledged.

        Raises:
            DependencyError: a flush failed; everything that waited for it was told so.
        """
        self._stop = stop
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

    async def _client(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """One connection. What it sends wrongly closes it, and nothing else."""
        self._clients[writer] = asyncio.current_task()
        try:
            while True:
                (length,) = HEAD.unpack(await reader.readexactly(HEAD.size))
                if length > MAX_FRAME_BYTES:
                    log.warning("client dropped", why=f"a frame of {length} bytes")
                    return
                request = decode_request(await reader.readexactly(length))
                self._last_request_at = self._clock()
                if request.operation == "search_batch":  # its connection goes on meanwhile
                    batch = asyncio.ensure_future(self._answer_batch(request, writer))
                    self._batches.add(batch)
                    batch.add_done_callback(self._batches.discard)
                else:
                    self._answer(request, writer)
                await writer.drain()
        except (asyncio.IncompleteReadError, ConnectionError):
            return  # it hung up
        except msgspec.DecodeError as exc:
            log.warning("client dropped", why=str(exc))
        finally:
            self._clients.pop(writer, None)
            writer.close()

    async def _answer_batch(self, request: Request, writer: asyncio.StreamWriter) -> None:
        """One question after the other, with what others ask between them."""
        try:
            answers = []
            for answer in search_batch(self._collections.get(request.collection), request.arguments):
                answers.append(answer)
                await asyncio.sleep(0)
            body = encode((request.id, None, answers))
        except Exception as exc:
            if error_data(exc)[0] == "internal":
                log.exception("request failed", operation=request.operation)
            body = encode((request.id, error_data(exc), None))
        if not writer.is_closing():
            writer.write(frame(body))

    def _answer(self, request: Request, writer: asyncio.StreamWriter) -> None:
        started = self._clock()
        try:
            result = self._execute(request)
        except Exception as exc:
            self._metrics.observe(request.operation, "failed", self._clock() - started)
            if error_data(exc)[0] == "internal":
                log.exception("request failed", operation=request.operation)
            writer.write(frame(encode((request.id, error_data(exc), None))))
            return
        self._metrics.observe(request.operation, "ok", self._clock() - started)
        if request.operation in CHANGES:
            self._waiting.append((writer, request.id, result))
            self._flush_soon()
        else:
            writer.write(frame(encode((request.id, None, msgspec.Raw(result)))))

    def _execute(self, request: Request) -> bytes:
        if request.operation == "ping":
            return encode(os.getpid())
        whole = WHOLE.get(request.operation)
        if whole is not None:
            return whole(self._collections, request.arguments)
        engine = self._collections.get(request.collection)
        operation = READS.get(request.operation) or CHANGES.get(request.operation)
        if operation is None:
            raise ValueError(f"unknown operation {request.operation[:40]!r}")
        return operation(engine, request.arguments)

    # ---- durability: at once when idle, else about once a second ------------------------------------

    def _flush_soon(self) -> None:
        if self._flush_at is not None:
            return
        loop = asyncio.get_running_loop()
        pause_s = min(MAX_FLUSH_WAIT_S, self._flush_took_s * FLUSH_SHARE)
        wait_s = self._flushed_at + pause_s - self._clock()
        if wait_s <= 0:
            self._flush_at = loop.call_soon(self._flush)  # after what has arrived by now
        else:
            self._flush_at = loop.call_later(wait_s, self._flush)

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
        log.critical("index ends: it cannot make writes durable", error=error.message)
        self._failed = error
        self._stop.set()

    def _busy(self) -> bool:
        return any(engine.busy() for engine in self._collections.opened())

    def _maintain(self) -> None:
        started = self._clock()
        idle_s = started - self._last_request_at
        for engine in self._collections.opened():
            engine.maintain(idle_s=idle_s)
        self._maintained_at = self._clock()
        self._metrics.maintenance.observe(self._maintained_at - started)

    def health(self) -> tuple[bool, dict[str, float]]:
        """Whether the one thread moves; asked from another one. An optimisation may hold it for seconds."""
        late_s = max(0.0, self._clock() - self._maintained_at - MAINTAIN_EVERY_S)
        return late_s < STUCK_S, {"event_loop_late_s": round(late_s, 3)}


async def _drained(writer: asyncio.StreamWriter) -> None:
    """Returns when everything written was handed to the kernel; a client that is gone does not matter any more."""
    writer.transport.set_write_buffer_limits(high=0)  # else `drain` is content with a full buffer
    try:
        await writer.drain()
    except ConnectionError:
        log.warning("client went away before its last answer")


def _claim(socket_path: Path) -> None:
    """Remove the socket of a process that was killed; ConfigError for anything else that is there."""
    try:
        mode = socket_path.lstat().st_mode
    except FileNotFoundError:
        return
    if not stat.S_ISSOCK(mode):
        raise ConfigError(f"{socket_path} is a file, not a socket: choose another path")
    with socket.socket(socket.AF_UNIX) as probe:
        probe.settimeout(1.0)
        try:
            probe.connect(str(socket_path))
        except TimeoutError:
            pass  # its queue of callers is full: somebody is there
        except OSError:
            socket_path.unlink(missing_ok=True)
            return
    raise ConfigError(f"another process answers at {socket_path}: stop it, or choose another path")


@dataclass(frozen=True, slots=True)
class StatusAddress:
    """Where the process tells about itself."""

    host: str
    port: int


def serve_forever(*, data: Path, engine: str, socket_path: Path, status: StatusAddress | None = None) -> int:
    """``lookalike index serve``: until SIGTERM or Ctrl-C; returns the exit code. Runs in the main thread.

    The exit code is 1 where writes could not be made durable: a new start reads what is on the disk.

    Raises:
        ConfigError: another index process has this folder or socket, or one of them cannot be made.
    """
    if len(os.fsencode(socket_path)) > MAX_SOCKET_PATH_BYTES:
        raise ConfigError(
            f"the socket's path is too long for Linux (over {MAX_SOCKET_PATH_BYTES} bytes): {socket_path}"
        )
    try:
        data.mkdir(parents=True, exist_ok=True)
        socket_path.parent.mkdir(parents=True, exist_ok=True)
        lock = (data / "lock").open("w")
    except OSError as exc:
        raise ConfigError(f"{data} cannot be written: {exc.strerror or exc}") from exc
    with lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as exc:
            raise ConfigError(f"another index process has {data}: stop it, or choose another folder") from exc
        _claim(socket_path)
        try:
            asyncio.run(_serve(data, engine, socket_path, status))
        except DependencyError:  # told already; whoever supervises starts it again on what is on the disk
            return 1
        finally:
            socket_path.unlink(missing_ok=True)
    return 0


async def _serve(data: Path, engine: str, socket_path: Path, status: StatusAddress | None) -> None:
    registry = process_registry()
    collections = Collections(data, _opener(engine), engine=engine)
    with ExitStack() as stack:
        stack.callback(collections.close)
        collections.open_all()
        stop = asyncio.Event()
        loop = asyncio.get_running_loop()
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(number, stop.set)
        server = IndexServer(collections, metrics=IndexMetrics(registry, folder=data))
        if status is not None:
            stack.enter_context(
                StatusServer(status.host, status.port, registry=registry, health=server.health, ready=server.health)
            )
        await server.serve(socket_path, stop)


def _opener(engine: str) -> Callable[[CollectionSpec, Path], Engine]:
    if engine == "exact":
        from embedder.index.exact import ExactIndex  # noqa: PLC0415 - only the engine that is used is loaded

        return lambda spec, home: ExactIndex(spec, journal=home / "journal")
    if engine == "edge":
        from embedder.index.edge.shard import EdgeIndex  # noqa: PLC0415 - as above

        return EdgeIndex
    raise ConfigError(f"index engine {engine!r} is not known: use edge or exact")
