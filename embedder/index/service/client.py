"""The worker's and the API's way to the index process: one socket, many calls under way, one thread that reads."""

from __future__ import annotations

import itertools
import select
import socket
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import Future
from concurrent.futures import TimeoutError as FutureTimeout
from pathlib import Path
from typing import TypeVar

import msgspec
import numpy as np

from embedder.index.codec import encode, encode_writes
from embedder.index.points import Point, PutVector, State, Vector, Write
from embedder.index.protocol import CollectionSpec, Hits, IndexStats, Page, Receipt
from embedder.index.service.wire import HEAD, MAX_FRAME_BYTES, Answer, decode_answer, frame, raised
from embedder.models.vectors import check_vector
from streams.errors import DependencyError
from streams.threads import name_this_thread

Result = TypeVar("Result")

HANGS_AFTER_S = 30.0
"""A write waits for a flush and perhaps for maintenance; longer than this the process is given up."""

_points = msgspec.msgpack.Decoder(list[Point | None]).decode
_point: Callable[[msgspec.Raw], Point | None] = msgspec.msgpack.Decoder(Point | None).decode
_hits: Callable[[msgspec.Raw], Hits | None] = msgspec.msgpack.Decoder(Hits | None).decode
_page = msgspec.msgpack.Decoder(Page).decode
_count = msgspec.msgpack.Decoder(dict[State, int]).decode
_spec = msgspec.msgpack.Decoder(CollectionSpec).decode
_stats = msgspec.msgpack.Decoder(IndexStats).decode
_receipt = msgspec.msgpack.Decoder(Receipt).decode


class _Connection:
    """One open socket. It is never mended: when it breaks, every call under way fails and a new one is made."""

    def __init__(self, path: Path, *, timeout_s: float) -> None:
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        try:
            self._socket.settimeout(timeout_s)
            self._socket.connect(str(path))
        except OSError as exc:
            self._socket.close()
            raise DependencyError(
                "index", f"the index process does not answer at {path}: {exc.strerror or exc}"
            ) from exc
        self._socket.settimeout(None)
        self._lock = threading.Lock()
        self._under_way: dict[int, tuple[Future[msgspec.Raw], float]] = {}
        self._buffer = bytearray()
        self.broken: DependencyError | None = None
        self._reader = threading.Thread(target=self._read, name="index-answers", daemon=True)
        self._reader.start()

    def send(self, request_id: int, body: bytes) -> Future[msgspec.Raw]:
        future: Future[msgspec.Raw] = Future()
        with self._lock:
            if self.broken is not None:
                raise self.broken
            self._under_way[request_id] = (future, time.monotonic())
            try:
                self._socket.sendall(frame(body))
            except OSError as exc:
                self._under_way.pop(request_id)
                raise DependencyError("index", f"the index process went away: {exc.strerror or exc}") from exc
        return future

    def close(self, why: str = "the connection to the index was closed") -> None:
        """Fail what is under way; may be called twice, from any thread."""
        with self._lock:
            if self.broken is None:
                self.broken = DependencyError("index", why)
                try:
                    self._socket.shutdown(socket.SHUT_RDWR)
                except OSError:
                    self._socket.close()  # it was not connected any more
            failed, self._under_way = self._under_way, {}
            broken = self.broken
        for future, _at in failed.values():
            future.set_exception(broken)

    def _read(self) -> None:
        name_this_thread("index-answers")
        why = "the index process went away"
        try:
            while (answer := self._next()) is not None:
                with self._lock:
                    future, _at = self._under_way.pop(answer.id, (None, 0.0))
                if future is None:
                    continue  # its caller gave up waiting
                if answer.error is not None:
                    future.set_exception(raised(answer.error))
                else:
                    future.set_result(answer.result.copy())
        except (OSError, ValueError) as exc:
            why = f"the index process went away: {exc}"
        finally:
            self.close(why)
            self._socket.close()

    def _next(self) -> Answer | None:
        head = self._receive(HEAD.size)
        if head is None:
            return None
        (length,) = HEAD.unpack(head)
        if length > MAX_FRAME_BYTES:
            raise ValueError(f"an answer of {length} bytes")
        body = self._receive(length)
        return None if body is None else decode_answer(body)

    def _receive(self, n: int) -> bytes | None:
        """The next `n` bytes, None at the end of the stream; gives a process up that does not answer any more."""
        while len(self._buffer) < n:
            readable, _, _ = select.select([self._socket], [], [], 1.0)
            if not readable:
                self._check_silence()
                continue
            part = self._socket.recv(1 << 18)
            if not part:
                return None
            self._buffer += part
        taken = bytes(self._buffer[:n])
        del self._buffer[:n]
        return taken

    def _check_silence(self) -> None:
        with self._lock:
            oldest = min((at for _future, at in self._under_way.values()), default=None)
        if oldest is not None and time.monotonic() - oldest > HANGS_AFTER_S:
            raise ValueError(f"no answer for {HANGS_AFTER_S:g} s")


class IndexClient:
    """Writer (with a `spec`), Searcher and Maintenance of a collection in the index process. Thread-safe.

    A connection that is lost fails the calls under way with DependencyError; the next call connects
    again, so a restarted index process is found without anybody's help.
    """

    def __init__(self, socket_path: Path, *, spec: CollectionSpec | None = None, timeout_s: float = 10.0) -> None:
        """With `spec` the collection is made where it is not there; without it, what the alias means is asked.

        Nothing is connected here. `timeout_s` is for one call; a process that hangs is given up after it.
        """
        self._path = socket_path
        self._own = spec
        self._timeout_s = timeout_s
        self._ids = itertools.count(1)
        self._lock = threading.Lock()
        self._connection: _Connection | None = None

    # ---- Writer ------------------------------------------------------------------------------------

    def read(self, tenant_id: str, image_ids: Sequence[str]) -> list[Point | None]:
        return self._ask("read", encode((tenant_id, list(image_ids))), _points)

    def write(self, tenant_id: str, writes: Sequence[Write]) -> Future[Receipt]:
        for write in writes:
            if isinstance(write, PutVector) and self._own is not None:
                check_vector(write.vector, self._own.dim)
        answered = self._send("write", encode_writes(tenant_id, writes))
        receipt: Future[Receipt] = Future()
        answered.add_done_callback(lambda done: _hand_over(done, receipt, _receipt))
        return receipt

    # ---- Searcher ----------------------------------------------------------------------------------

    def spec(self) -> CollectionSpec:
        return self._ask("spec", encode(None), _spec)

    def get(self, tenant_id: str, image_id: str) -> Point | None:
        return self._ask("get", encode((tenant_id, image_id)), _point)

    def similar(self, tenant_id: str, image_id: str, *, limit: int) -> Hits | None:
        return self._ask("similar", encode((tenant_id, image_id, limit)), _hits)

    def search(self, tenant_id: str, vector: Vector, *, limit: int) -> Hits:
        raw = np.ascontiguousarray(vector, "<f4").tobytes()
        found = self._ask("search", encode((tenant_id, raw, limit)), _hits)
        assert found is not None
        return found

    def list(self, tenant_id: str, *, limit: int, cursor: str | None = None, states: Sequence[State] = ()) -> Page:
        return self._ask("list", encode((tenant_id, limit, cursor, list(states))), _page)

    def count(self, tenant_id: str) -> Mapping[State, int]:
        return self._ask("count", encode(tenant_id), _count)

    # ---- Maintenance -------------------------------------------------------------------------------

    def stats(self) -> IndexStats:
        return self._ask("stats", encode(None), _stats)

    def flush(self) -> None:
        self._ask("flush", encode(None), lambda _raw: None)

    def ping(self) -> int:
        """The process id of the index process."""
        return self._ask("ping", encode(None), msgspec.msgpack.Decoder(int).decode)

    def close(self) -> None:
        """Hang up; calls under way fail. A later call connects again."""
        with self._lock:
            connection, self._connection = self._connection, None
        if connection is not None:
            connection.close()

    # ---- calls -------------------------------------------------------------------------------------

    def _ask(self, operation: str, arguments: bytes, decode: Callable[[msgspec.Raw], Result]) -> Result:
        return decode(self._wait(self._send(operation, arguments)))

    def _wait(self, answered: Future[msgspec.Raw]) -> msgspec.Raw:
        try:
            return answered.result(self._timeout_s)
        except FutureTimeout as exc:
            if answered.done():
                raise
            self.close()  # it hangs: whatever else was asked of it would hang as well
            raise DependencyError("index", f"the index process did not answer within {self._timeout_s:g} s") from exc

    def _send(self, operation: str, arguments: bytes) -> Future[msgspec.Raw]:
        connection = self._connected()
        return self._send_on(connection, operation, arguments)

    def _send_on(self, connection: _Connection, operation: str, arguments: bytes) -> Future[msgspec.Raw]:
        number = next(self._ids)
        name = self._own.name if self._own is not None else ""
        return connection.send(number, encode((number, operation, name, msgspec.Raw(arguments))))

    def _connected(self) -> _Connection:
        with self._lock:
            if self._connection is not None and self._connection.broken is None:
                return self._connection
            connection = _Connection(self._path, timeout_s=self._timeout_s)
            if self._own is not None:
                ensured = self._send_on(connection, "ensure", encode(self._own))
                try:
                    ensured.result(self._timeout_s)
                except FutureTimeout as exc:
                    connection.close()
                    raise DependencyError("index", "the index process does not answer") from exc
                except BaseException:
                    connection.close()
                    raise
            self._connection = connection
            return connection


def _hand_over(
    answered: Future[msgspec.Raw], receipt: Future[Receipt], decode: Callable[[msgspec.Raw], Receipt]
) -> None:
    error = answered.exception()
    if error is not None:
        receipt.set_exception(error)
    else:
        receipt.set_result(decode(answered.result()))
