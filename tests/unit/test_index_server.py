"""The index server's own promise: nothing is acknowledged that did not become durable."""

from __future__ import annotations

import asyncio
import socket
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import closing, contextmanager
from pathlib import Path

import msgspec
import numpy as np
import pytest
from prometheus_client import CollectorRegistry

from embedder.index.collections import Collections
from embedder.index.exact import ExactIndex
from embedder.index.metrics import IndexMetrics
from embedder.index.points import Point, State, Write, Written
from embedder.index.protocol import Hits
from embedder.index.query import Query, like
from embedder.index.service.client import IndexClient
from embedder.index.service.flushing import Flushing
from embedder.index.service.server import IndexServer
from streams.errors import DependencyError, EventError
from tests.contract.index_cases import SPEC, put, towards
from tests.waiting import wait_until


class Slow(ExactIndex):
    """An index that takes its time for each question and tells when one is asked."""

    def __init__(self) -> None:
        super().__init__(SPEC)
        self.asked: list[str] = []

    def search(self, tenant_id: str, query: Query) -> Hits:
        self.asked.append(tenant_id)
        time.sleep(0.02)
        return super().search(tenant_id, query)


class SlowToWrite(ExactIndex):
    """An index that takes its time for each part of a call, and tells what it did in which order."""

    def __init__(self) -> None:
        super().__init__(SPEC)
        self.did: list[str] = []

    def write_now(self, tenant_id: str, writes: Sequence[Write]) -> list[Written]:
        self.did += ["write"] * len(writes)
        time.sleep(0.02)
        return super().write_now(tenant_id, writes)

    def search(self, tenant_id: str, query: Query) -> Hits:
        self.did.append("search")
        return super().search(tenant_id, query)


@contextmanager
def _served(index: ExactIndex, folder: Path) -> Iterator[Path]:
    """The socket of a server of this index, in a thread of its own."""
    collections = Collections(folder, lambda _spec, _home: index, engine="exact")
    socket_path = folder / "index.sock"
    loop, stop = asyncio.new_event_loop(), asyncio.Event()
    server = threading.Thread(target=loop.run_until_complete, args=(IndexServer(collections).serve(socket_path, stop),))
    server.start()
    try:
        wait_until(lambda: _answers(socket_path))
        yield socket_path
    finally:
        loop.call_soon_threadsafe(stop.set)
        server.join(30)
        loop.close()


def _answers(socket_path: Path) -> bool:
    """The file is there a moment before anybody listens on it."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as probe:
        return probe.connect_ex(str(socket_path)) == 0


class Unflushable(ExactIndex):
    """An index on a disk that fails when it is asked to keep something."""

    def flush(self) -> None:
        raise DependencyError("index", "the disk is on fire")


def test_a_flush_that_fails_acknowledges_nothing_and_ends_the_server(tmp_path: Path) -> None:
    """Whoever waits for the flush is told, and the process ends: only a new start knows what is on the disk."""
    collections = Collections(tmp_path, lambda spec, _home: Unflushable(spec), engine="exact")
    socket_path = tmp_path / "index.sock"
    ended: list[BaseException] = []

    def serve() -> None:
        async def forever() -> None:
            await IndexServer(collections).serve(socket_path, asyncio.Event())

        try:
            asyncio.run(forever())
        except DependencyError as exc:
            ended.append(exc)

    thread = threading.Thread(target=serve)
    thread.start()
    wait_until(lambda: _answers(socket_path))
    with closing(IndexClient(socket_path, spec=SPEC)) as client:
        with pytest.raises(DependencyError, match="on fire"):
            client.write("acme", [put("a")]).result(30)
        thread.join(30)
    assert not thread.is_alive()
    assert "on fire" in str(ended[0])


def test_a_batch_lets_others_in_between(tmp_path: Path) -> None:
    """A question on the same connection is answered long before the 64 that were asked before it."""
    index = Slow()
    index.write("acme", [put("a")])
    with _served(index, tmp_path) as socket_path, closing(IndexClient(socket_path, spec=SPEC)) as client:
        client.ping()
        batch: list[int] = []
        asking = threading.Thread(
            target=lambda: batch.append(len(client.search_batch("acme", [like(towards(1))] * 64)))
        )
        asking.start()
        wait_until(lambda: len(index.asked) > 0)
        client.search("other", like(towards(1)))
        assert index.asked.index("other") < 32
        asking.join(30)
    assert batch == [64]


def test_a_call_of_many_writes_lets_searches_in_between(tmp_path: Path) -> None:
    """Another client's question is answered long before the 64 writes that came before it are applied."""
    index = SlowToWrite()
    with (
        _served(index, tmp_path) as socket_path,
        closing(IndexClient(socket_path, spec=SPEC)) as writer,
        closing(IndexClient(socket_path, spec=SPEC)) as asker,
    ):
        asker.ping()
        written = writer.write("acme", [put(f"i{n}") for n in range(64)])
        wait_until(lambda: len(index.did) > 0)
        asker.search("acme", like(towards(1)))
        assert index.did.index("search") < 32
        assert written.result(30).written == (Written.APPLIED,) * 64
        assert writer.count("acme")[State.INDEXED] == 64


class BeingCopied(SlowToWrite):
    """An index whose files are copied for as long as the test says."""

    def __init__(self) -> None:
        super().__init__()
        self.wanted = self.copying = False

    def busy(self) -> bool:
        return True

    def held(self) -> bool:
        return self.copying

    def maintain(self, *, idle_s: float) -> None:
        self.copying = self.wanted


def test_writes_wait_while_the_files_are_copied_and_searches_do_not(tmp_path: Path) -> None:
    """Nothing may change under the copy. What is searched meanwhile is answered, on the writer's own connection too;
    what is written is kept for after it, and whoever reads what is stored waits for that."""
    index = BeingCopied()
    with _served(index, tmp_path) as socket_path, closing(IndexClient(socket_path, spec=SPEC)) as client:
        client.count("acme")
        index.wanted = True
        wait_until(lambda: index.copying)
        written = [client.write("acme", [put(f"i{n}")]) for n in range(5)]
        read: list[Point | None] = []
        reading = threading.Thread(target=lambda: read.extend(client.read("acme", ["i4"])))
        reading.start()
        with closing(IndexClient(socket_path, spec=SPEC)) as other:
            for _ in range(20):
                assert other.search("acme", like(towards(1))).hits == ()
        assert not any(one.done() for one in written)
        assert not read
        index.wanted = False
        for one in written:
            assert one.result(30).written == (Written.APPLIED,)
        reading.join(30)
        assert read[0] is not None
        assert client.count("acme")[State.INDEXED] == 5


def test_a_call_of_many_writes_stops_in_the_middle_for_a_copy(tmp_path: Path) -> None:
    """Not one more piece of it is applied while files are copied, and its connection's searches are answered."""
    index = BeingCopied()
    with _served(index, tmp_path) as socket_path, closing(IndexClient(socket_path, spec=SPEC)) as client:
        client.count("acme")
        written = client.write("acme", [put(f"i{n}") for n in range(400)])
        wait_until(lambda: len(index.did) > 0)
        index.wanted = True
        wait_until(lambda: index.copying)
        client.search("acme", like(towards(1)))
        n_applied = index.did.count("write")
        for _ in range(20):
            client.search("acme", like(towards(1)))
        assert index.did.count("write") == n_applied < 400
        assert not written.done()
        index.wanted = False
        assert len(written.result(30).written) == 400


def test_of_a_call_with_one_bad_vector_nothing_is_applied(tmp_path: Path) -> None:
    """Also where it is the last of many, and would have been in the last piece."""
    bad = msgspec.structs.replace(put("bad"), vector=np.zeros(SPEC.dim, np.float32))
    with (
        _served(ExactIndex(SPEC), tmp_path) as socket_path,
        closing(IndexClient(socket_path, spec=SPEC)) as client,
    ):
        with pytest.raises(EventError, match="all zero"):
            client.write("acme", [*(put(f"i{n}") for n in range(20)), bad]).result(30)
        assert client.count("acme")[State.INDEXED] == 0


def test_flushes_are_further_apart_while_somebody_searches(tmp_path: Path) -> None:
    """Forty times what one takes, at most three seconds; ten times where nobody has asked for two seconds."""
    collections = Collections(tmp_path, lambda _spec, _home: ExactIndex(SPEC), engine="exact")
    now = 98.0
    flushing = Flushing(collections, IndexMetrics(CollectorRegistry()), lambda: now, lambda: None)
    flushing.took_s = 0.05
    assert flushing.pause_s(100.0) == pytest.approx(0.5)
    now = 99.0
    flushing.searched()
    assert flushing.pause_s(100.0) == pytest.approx(2.0)
    assert flushing.pause_s(101.5) == pytest.approx(0.5)
    flushing.took_s = 0.5
    assert flushing.pause_s(100.0) == 3.0


def test_a_search_is_noticed_and_a_workers_lookup_is_none(tmp_path: Path) -> None:
    """Reading what is stored of images, as each event does, puts nothing off."""
    index = ExactIndex(SPEC)
    collections = Collections(tmp_path, lambda _spec, _home: index, engine="exact")
    server = IndexServer(collections)
    loop, stop = asyncio.new_event_loop(), asyncio.Event()
    thread = threading.Thread(target=loop.run_until_complete, args=(server.serve(tmp_path / "i.sock", stop),))
    thread.start()
    wait_until(lambda: _answers(tmp_path / "i.sock"))
    with closing(IndexClient(tmp_path / "i.sock", spec=SPEC)) as client:
        client.read("acme", ["a"])
        assert server._flushing._searched_at == float("-inf")
        client.search("acme", like(towards(1)))
        assert server._flushing._searched_at > 0
    loop.call_soon_threadsafe(stop.set)
    thread.join(30)
    loop.close()
