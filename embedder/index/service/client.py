"""The worker's and the API's way to the index process."""

from __future__ import annotations

import itertools
import threading
from collections.abc import Callable, Sequence
from concurrent.futures import Future
from concurrent.futures import TimeoutError as FutureTimeout
from pathlib import Path

import msgspec

from embedder.index.codec import asked, encode, encode_writes
from embedder.index.points import PutVector, Write
from embedder.index.protocol import CollectionInfo, CollectionSpec, Hits, Receipt
from embedder.index.query import Query, each_answered
from embedder.index.service.calls import Calls, Result
from embedder.index.service.connection import Connection
from embedder.index.service.wire import ErrorData, raised
from embedder.models.vectors import check_vector
from streams.errors import DependencyError, QueryError

_answers = msgspec.msgpack.Decoder(list[tuple[ErrorData | None, Hits | None]]).decode
_receipt = msgspec.msgpack.Decoder(Receipt).decode
_collections = msgspec.msgpack.Decoder(list[CollectionInfo]).decode
_nothing = msgspec.msgpack.Decoder(None).decode
_number = msgspec.msgpack.Decoder(int).decode


class IndexClient(Calls):
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
        self._connection: Connection | None = None
        self._connecting: Future[Connection] | None = None

    def write(self, tenant_id: str, writes: Sequence[Write]) -> Future[Receipt]:
        for write in writes:
            if isinstance(write, PutVector) and self._own is not None:
                check_vector(write.vector, self._own.dim)
        answered = self._send(self._connected(), "write", encode_writes(tenant_id, writes))
        receipt: Future[Receipt] = Future()
        answered.add_done_callback(lambda done: _hand_over(done, receipt, _receipt))
        return receipt

    def search_batch(self, tenant_id: str, queries: Sequence[Query]) -> Sequence[Hits | QueryError]:
        ready = each_answered(asked, queries)
        sound = [one for one in ready if not isinstance(one, QueryError)]
        found = iter(self._ask("search_batch", encode((tenant_id, sound)), _answers) if sound else ())
        return [one if isinstance(one, QueryError) else _answer(*next(found)) for one in ready]

    def flush(self) -> None:
        self._ask("flush", encode(None), _nothing)

    # ---- Administration ----------------------------------------------------------------------------

    def collections(self) -> Sequence[CollectionInfo]:
        return self._ask("collections", encode(None), _collections)

    def create(self, spec: CollectionSpec) -> None:
        self._ask("ensure", encode(spec), _nothing)

    def optimise(self, name: str) -> None:
        self._ask("optimise", encode(name), _nothing)

    def switch(self, name: str) -> None:
        self._ask("switch", encode(name), _nothing)

    def drop(self, name: str) -> None:
        self._ask("drop", encode(name), _nothing)

    def ping(self) -> int:
        """The process id of the index process."""
        return self._ask("ping", encode(None), _number)

    def close(self) -> None:
        """Hang up; calls under way fail. A later call connects again."""
        with self._lock:
            connection, self._connection = self._connection, None
        if connection is not None:
            connection.close()

    # ---- calls -------------------------------------------------------------------------------------

    def _ask(self, operation: str, arguments: bytes, decode: Callable[[msgspec.Raw], Result]) -> Result:
        connection = self._connected()
        return decode(self._wait(connection, self._send(connection, operation, arguments)))

    def _wait(self, connection: Connection, answered: Future[msgspec.Raw]) -> msgspec.Raw:
        try:
            return answered.result(self._timeout_s)
        except FutureTimeout as exc:
            if answered.done():
                raise
            # It hangs: whatever else was asked on this connection would hang as well. Not on a newer one.
            connection.close(f"the index process did not answer within {self._timeout_s:g} s")
            raise DependencyError("index", f"the index process did not answer within {self._timeout_s:g} s") from exc

    def _send(self, connection: Connection, operation: str, arguments: bytes) -> Future[msgspec.Raw]:
        number = next(self._ids)
        name = self._own.name if self._own is not None else ""
        return connection.send(number, encode((number, operation, name, msgspec.Raw(arguments))))

    def _connected(self) -> Connection:
        """The open connection, or a new one; who comes while another thread connects shares its fate."""
        with self._lock:
            if self._connection is not None and not self._connection.broken:
                return self._connection
            connecting = self._connecting
            if connecting is None:
                mine = self._connecting = Future()
        if connecting is not None:
            return connecting.result()  # whoever connects is done within its own time-outs
        try:
            connection = self._connect()
        except BaseException as exc:
            with self._lock:
                self._connecting = None
            mine.set_exception(exc)
            raise
        with self._lock:
            self._connection, self._connecting = connection, None
        mine.set_result(connection)
        return connection

    def _connect(self) -> Connection:
        connection = Connection(self._path, timeout_s=self._timeout_s)
        if self._own is None:
            return connection
        try:
            self._wait(connection, self._send(connection, "ensure", encode(self._own)))
        except BaseException:
            connection.close()
            raise
        return connection


def _answer(error: ErrorData | None, hits: Hits | None) -> Hits | QueryError:
    if hits is not None:
        return hits
    told = raised(error)
    if isinstance(told, QueryError):
        return told
    raise told


def _hand_over(
    answered: Future[msgspec.Raw], receipt: Future[Receipt], decode: Callable[[msgspec.Raw], Receipt]
) -> None:
    error = answered.exception()
    if error is not None:
        receipt.set_exception(error)
    else:
        receipt.set_result(decode(answered.result()))
