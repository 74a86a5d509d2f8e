"""Questions that another process answers: the server hands the next ones on, and goes on with everything else."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import closing, contextmanager
from pathlib import Path

import msgspec
import pytest
from prometheus_client import CollectorRegistry

from embedder.index.codec import encode
from embedder.index.collections import Collections
from embedder.index.exact import ExactIndex
from embedder.index.metrics import IndexMetrics
from embedder.index.points import State, Write, Written
from embedder.index.query import like
from embedder.index.service.client import IndexClient
from embedder.index.service.flushing import Flushing
from embedder.index.service.operations import READS
from embedder.index.service.server import IndexServer
from streams.errors import DependencyError, QueryError
from tests.contract.index_cases import SPEC, put, towards
from tests.waiting import wait_until


class Elsewhere(ExactIndex):
    """An index whose questions are answered when the test says so."""

    def __init__(self) -> None:
        super().__init__(SPEC)
        self.asked: list[tuple[str, msgspec.Raw, Callable[[msgspec.Raw | Exception], None]]] = []
        self.loop: asyncio.AbstractEventLoop | None = None
        self.did: list[str] = []

    def forward(self, operation: str, arguments: msgspec.Raw) -> bytes:
        self.did.append(operation)
        return READS[operation](self, arguments)

    def soon(self, operation: str, arguments: msgspec.Raw, then: Callable[[msgspec.Raw | Exception], None]) -> None:
        self.did.append(operation)
        self.loop = asyncio.get_running_loop()
        self.asked.append((operation, arguments.copy(), then))

    def catch_up(self) -> None:
        """Nothing is waited for here."""

    def write_now(self, tenant_id: str, writes: Sequence[Write]) -> list[Written]:
        self.did += ["write"] * len(writes)
        return super().write_now(tenant_id, writes)

    def answer(self, n: int = 0) -> None:
        """Answer the n-th of what is open; an event loop's thread must not be needed for it."""
        operation, arguments, then = self.asked.pop(n)
        self._hand_on(then, msgspec.Raw(READS[operation](self, arguments)))

    def fail(self, error: Exception) -> None:
        self._hand_on(self.asked.pop(0)[2], error)

    def _hand_on(self, then: Callable[[msgspec.Raw | Exception], None], answer: msgspec.Raw | Exception) -> None:
        assert self.loop is not None
        self.loop.call_soon_threadsafe(then, answer)


class Served:
    """A server of such an index, and what its clients ask meanwhile."""

    def __init__(self, index: Elsewhere, socket_path: Path) -> None:
        self.index = index
        self.socket_path = socket_path
        self.client = IndexClient(socket_path, spec=SPEC, timeout_s=30.0)
        self._threads = ThreadPoolExecutor(8)

    def search(self) -> Future[list[str]]:
        found = self._threads.submit(self.client.search, "acme", like(towards(1.0)))
        ids: Future[list[str]] = self._threads.submit(lambda: [hit.image_id for hit in found.result(30).hits])
        return ids

    def close(self) -> None:
        """Hang up once everybody has an answer, or was told that there will be none."""
        self._threads.shutdown()
        self.client.close()

    def wait_asked(self, n: int) -> None:
        wait_until(lambda: len(self.index.asked) == n)


@contextmanager
def serving(folder: Path) -> Iterator[Served]:
    index = Elsewhere()
    index.write("acme", [put("a")])
    index.did.clear()
    collections = Collections(folder, lambda _spec, _home: index, engine="exact")
    loop, stop = asyncio.new_event_loop(), asyncio.Event()
    socket_path = folder / "index.sock"
    server = threading.Thread(target=loop.run_until_complete, args=(IndexServer(collections).serve(socket_path, stop),))
    server.start()
    served = Served(index, socket_path)
    wait_until(lambda: _answers(served))
    try:
        yield served
    finally:
        loop.call_soon_threadsafe(stop.set)
        server.join(30)
        assert not server.is_alive()
        served.close()
        loop.close()


def _answers(served: Served) -> bool:
    try:
        served.client.ping()
    except DependencyError:
        return False
    return True


def test_the_next_question_goes_on_before_the_last_is_answered(tmp_path: Path) -> None:
    """Of one connection as of several; and what the server answers itself waits for none of them."""
    with serving(tmp_path) as served, closing(IndexClient(served.socket_path, spec=SPEC)) as another:
        first, second = served.search(), served.search()
        served.wait_asked(2)
        assert another.ping() == served.client.ping()
        assert not first.done()
        served.index.answer()
        served.index.answer()
        assert first.result(30) == second.result(30) == ["a"]


def test_each_gets_its_own_answer_in_whatever_order_they_come(tmp_path: Path) -> None:
    with serving(tmp_path) as served:
        search = served.search()
        served.wait_asked(1)
        with ThreadPoolExecutor(1) as threads:
            count = threads.submit(served.client.count, "acme")
            served.wait_asked(2)
            served.index.answer(1)
            assert count.result(30)[State.INDEXED] == 1
            assert not search.done()
        served.index.answer()
        assert search.result(30) == ["a"]


def test_a_client_reads_what_it_wrote(tmp_path: Path) -> None:
    """A question goes on when the write before it on the same connection was applied, not earlier."""
    with serving(tmp_path) as served, ThreadPoolExecutor(2) as threads:
        written = served.client.write("acme", [put(f"i{n}") for n in range(20)])
        got = threads.submit(served.client.get, "acme", "i19")
        served.wait_asked(1)
        assert served.index.did == ["write"] * 20 + ["get"]
        served.index.answer()
        assert got.result(30) is not None
        assert len(written.result(30).written) == 20


def test_an_error_from_there_is_the_one_of_that_question(tmp_path: Path) -> None:
    with serving(tmp_path) as served:
        wrong, right = served.search(), served.search()
        served.wait_asked(2)
        served.index.fail(QueryError(404, "image_not_found", "no such image"))
        served.index.answer()
        results = [wrong.exception(30), right.exception(30)]
        assert [type(one) for one in results if one is not None] == [QueryError]


def test_a_process_that_cannot_be_asked_is_an_error_and_no_end(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def soon(*_asked: object) -> None:
        raise DependencyError("index", "the process that holds the vectors ended")

    with serving(tmp_path) as served:
        monkeypatch.setattr(Elsewhere, "soon", soon)
        with pytest.raises(DependencyError, match="holds the vectors ended"):
            served.client.count("acme")
        assert served.client.ping()


@pytest.mark.parametrize("max_held", [0, 64])
def test_what_changes_points_is_not_overtaken(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, max_held: int) -> None:
    """A sweep answers like a question and is none: it is waited for, also where so many are held that it is last."""
    monkeypatch.setattr("embedder.index.service.server.MAX_HELD", max_held)
    with serving(tmp_path) as served:
        assert served.client.sweep(1, limit=10) == 0
        assert served.index.did == ["sweep"]
        assert not served.index.asked


def test_whatever_goes_wrong_is_the_error_of_that_question(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A file that cannot be read for once: everything else on the same connection goes on."""

    def get(_self: Collections, _name: str) -> None:
        raise OSError(24, "Too many open files")

    with serving(tmp_path) as served:
        search = served.search()
        served.wait_asked(1)
        with monkeypatch.context() as patched:
            patched.setattr(Collections, "get", get)
            with pytest.raises(RuntimeError, match="Too many open files"):
                served.client.count("acme")
        served.index.answer()
        assert search.result(30) == ["a"]


def test_searches_under_way_are_no_part_of_what_a_flush_takes(tmp_path: Path) -> None:
    """It says how long the next one waits."""
    now = 0.0

    class Timed(Elsewhere):
        def catch_up(self) -> None:
            nonlocal now
            now += 5.0

        def flush(self) -> None:
            nonlocal now
            now += 0.25

    index = Timed()
    collections = Collections(tmp_path, lambda _spec, _home: index, engine="exact")
    collections.ensure(SPEC)
    collections.get(SPEC.name)
    flushing = Flushing(collections, IndexMetrics(CollectorRegistry()), lambda: now, lambda: None)
    flushing.flush()
    assert flushing.took_s == 0.25


def test_a_stop_waits_for_questions_under_way(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("embedder.index.service.server.LAST_ANSWERS_S", 30.0)
    with serving(tmp_path) as served:
        search = served.search()
        served.wait_asked(1)
        threading.Timer(0.2, served.index.answer).start()
    assert search.result(30) == ["a"]


def test_a_stop_does_not_wait_for_a_process_that_hangs(tmp_path: Path) -> None:
    with serving(tmp_path) as served:
        search = served.search()
        served.wait_asked(1)
    assert isinstance(search.exception(30), DependencyError)
    _operation, _arguments, then = served.index.asked[0]
    then(msgspec.Raw(encode(None)))  # the loop is closed by now, and nobody listens


def test_an_answer_too_large_is_an_error_of_that_question(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with serving(tmp_path) as served:
        search = served.search()
        served.wait_asked(1)
        monkeypatch.setattr("embedder.index.service.wire.MAX_FRAME_BYTES", 100)
        served.index._hand_on(served.index.asked.pop()[2], msgspec.Raw(encode(bytes(101))))
        assert isinstance(search.exception(30), ValueError)
        monkeypatch.undo()
        assert served.client.ping()
