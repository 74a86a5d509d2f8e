"""The index process that dies, hangs, or loses its holder: nothing acknowledged is lost, nobody waits."""

from __future__ import annotations

import fcntl
import os
import random
import signal
import socket
import threading
import time
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import numpy as np
import pytest

from embedder.index.codec import encode
from embedder.index.points import State, Write
from embedder.index.protocol import CollectionSpec, Receipt
from embedder.index.query import like
from embedder.index.service.client import IndexClient
from embedder.index.service.wire import frame
from streams.errors import DependencyError
from streams.event import MIN_VERSION
from tests.contract.index_cases import bury, put, towards
from tests.index_process import IndexProcess
from tests.script import VECTOR_DIM
from tests.waiting import wait_until

SPEC = CollectionSpec("hash", "test-v1", VECTOR_DIM)
OTHER = CollectionSpec("hash", "test-v2", VECTOR_DIM)
TENANT = "acme"
DURABLE_S = 30.0
KILLS = int(os.environ.get("INDEX_KILLS", "5"))


@pytest.fixture
def process(tmp_path: Path) -> Iterator[IndexProcess]:
    """A process that answers, with numpy inside: what is tested here is around the engine."""
    with IndexProcess(tmp_path / "data", engine="exact") as started:
        yield started


@pytest.fixture
def client(process: IndexProcess) -> Iterator[IndexClient]:
    with closing(process.client(SPEC)) as connected:
        yield connected


def write(client: IndexClient, *writes: Write) -> Receipt:
    return client.write(TENANT, writes).result(DURABLE_S)


# ---- deaths ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("how", ["edge", "edge optimising", "exact"])
def test_what_was_acknowledged_survives_kill_9(tmp_path: Path, how: str) -> None:
    """Killed in the middle of writes: every acknowledged write is there, none half, and nothing else.

    Five times, or as often as INDEX_KILLS says; "optimising": while another process builds a copy that is to
    take the shard's place, at every stage of that. Each image is written with rising versions; what is stored
    of it is at least the newest version
    that was acknowledged and at most the newest that was sent, whole.
    """
    rng = random.Random(5)
    sent: dict[str, int] = {}
    acknowledged: dict[str, int] = {}
    engine, _, optimising = how.partition(" ")
    process = IndexProcess(tmp_path / "data", engine=engine)
    with process, closing(process.client(SPEC)) as client:
        for _ in range(KILLS):
            if optimising:
                client.optimise(SPEC.name)
            first, at_s = threading.Event(), rng.uniform(0.05, 3.0 if optimising else 0.4)
            killer = threading.Thread(target=_kill_after, args=(process, first, at_s))
            killer.start()
            _write_until_it_dies(client, rng, sent, acknowledged, first)
            killer.join()
            process.ended()
            process.start()
            _check_survivors(client, sent, acknowledged)
    assert len(acknowledged) > KILLS


def _kill_after(process: IndexProcess, first: threading.Event, at_s: float) -> None:
    """At a random moment after the first acknowledgement, however slow the machine is."""
    first.wait(DURABLE_S)
    time.sleep(at_s)
    process.send(signal.SIGKILL)


def _write_until_it_dies(
    client: IndexClient,
    rng: random.Random,
    sent: dict[str, int],
    acknowledged: dict[str, int],
    first: threading.Event,
) -> None:
    lock = threading.Lock()

    def write_until_it_dies() -> None:
        while True:
            with lock:
                versions = {f"i{rng.randrange(40)}": 0 for _ in range(8)}
                for image_id in versions:
                    versions[image_id] = sent[image_id] = sent.get(image_id, 0) + 1
                batch = [_write_of(image_id, version) for image_id, version in versions.items()]
            try:
                write(client, *batch)
            except DependencyError:
                return
            with lock:
                for image_id, version in versions.items():
                    acknowledged[image_id] = max(version, acknowledged.get(image_id, 0))
            first.set()

    threads = [threading.Thread(target=write_until_it_dies) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(DURABLE_S)
        assert not thread.is_alive(), "a writer hangs although the process is dead"


def _write_of(image_id: str, version: int) -> Write:
    """Every fourth version is a delete; a picture's first axis is its version."""
    if version % 4 == 0:
        return bury(image_id, version=version)
    return put(image_id, towards(1, version), version=version, etag=str(version))


def _check_survivors(client: IndexClient, sent: dict[str, int], acknowledged: dict[str, int]) -> None:
    points = {point.image_id: point for point in client.list(TENANT, limit=1000).points}
    assert acknowledged.keys() <= points.keys() <= sent.keys()
    hits = {hit.image_id: hit.score for hit in client.search(TENANT, like(towards(1), limit=1000)).hits}
    for image_id, point in points.items():
        version = point.version - MIN_VERSION
        assert acknowledged.get(image_id, 0) <= version <= sent[image_id], image_id
        if version % 4 == 0:
            assert point.state is State.DELETED
            assert image_id not in hits
        else:
            assert (point.state, point.etag) == (State.INDEXED, str(version))
            assert hits[image_id] == pytest.approx(1 / np.sqrt(1 + version**2), abs=1e-5)
    counted = client.count(TENANT)
    assert counted[State.INDEXED] == len(hits)
    assert counted[State.INDEXED] + counted[State.DELETED] == len(points)


def test_a_holder_that_dies_ends_the_process(tmp_path: Path) -> None:
    """The process that has the vectors is killed alone (the kernel picks the largest): the index ends, with 1, so
    that whoever supervises it starts it again; what was acknowledged is there."""
    process = IndexProcess(tmp_path / "data", engine="edge")
    with process, closing(process.client(SPEC)) as client:
        write(client, put("a"))
        (holder,) = _children(process.pid)
        os.kill(holder, signal.SIGKILL)
        assert process.ended() == 1
        with pytest.raises(DependencyError):
            write(client, put("b"))
        process.start()
        assert client.count(TENANT)[State.INDEXED] == 1
        write(client, put("b"))


def test_no_holder_is_left_behind(tmp_path: Path) -> None:
    """A process that is killed takes the one that has its vectors with it."""
    process = IndexProcess(tmp_path / "data", engine="edge")
    with process, closing(process.client(SPEC)) as client:
        write(client, put("a"))
        (holder,) = _children(process.pid)
        process.kill()
        wait_until(lambda: _is_gone(holder))
        process.start()
        assert client.count(TENANT)[State.INDEXED] == 1
        (other,) = _children(process.pid)
        process.send(signal.SIGTERM)
        assert process.ended() == 0
        assert _is_gone(other)


def _is_gone(pid: int) -> bool:
    """Ended, whether or not somebody has asked how."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] == "Z"
    except (FileNotFoundError, ProcessLookupError):
        return True


def _children(pid: int) -> list[int]:
    return [int(one) for one in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]


@pytest.mark.parametrize("engine", ["edge", "exact"])
def test_sigterm_acknowledges_what_was_applied(tmp_path: Path, engine: str) -> None:
    """Asked to stop it flushes, acknowledges, ends with 0 within 5 s, and removes its socket."""
    process = IndexProcess(tmp_path / "data", engine=engine)
    with process, closing(process.client(SPEC)) as client:
        write(client, put("first"))
        receipts = [client.write(TENANT, [put(f"i{n}")]) for n in range(20)]
        assert client.get(TENANT, "i19") is not None, "applied, though perhaps not acknowledged"
        started = time.monotonic()
        process.send(signal.SIGTERM)
        for receipt in receipts:
            assert len(receipt.result(DURABLE_S).written) == 1
        assert process.ended() == 0
        assert time.monotonic() - started < 5.0
        assert not process.socket.exists()
        process.start()
        assert client.count(TENANT)[State.INDEXED] == 21


def test_sigterm_waits_for_no_client_that_hangs(process: IndexProcess, client: IndexClient) -> None:
    """Clients that ask and never read their answers cost one common second at the end, not one each."""
    write(client, *(put(f"i{n:03}", tags=("x" * 200,) * 60) for n in range(100)))
    ask = frame(encode((1, "list", SPEC.name, (TENANT, 100, None, [], None))))
    deaf = []
    for _ in range(12):
        one = socket.socket(socket.AF_UNIX)
        one.connect(str(process.socket))
        one.sendall(ask * 4)
        deaf.append(one)
    for _ in range(20):
        assert client.ping() == process.pid  # one thread serves: by now it has begun with every one of them
    started = time.monotonic()
    process.send(signal.SIGTERM)
    assert process.ended() == 0
    assert time.monotonic() - started < 5.0
    for one in deaf:
        one.close()


def test_a_client_finds_the_process_that_was_started_again(process: IndexProcess, client: IndexClient) -> None:
    """Calls under way fail with DependencyError, later ones too while it is away; then the same client goes on."""
    write(client, put("a"))
    process.kill()
    for _ in range(3):
        with pytest.raises(DependencyError) as refused:
            client.get(TENANT, "a")
        assert refused.value.dependency == "index"
    with pytest.raises(DependencyError):
        client.write(TENANT, [put("b")]).result(DURABLE_S)
    process.start()
    assert client.get(TENANT, "a") is not None
    write(client, put("b"))
    assert client.count(TENANT)[State.INDEXED] == 2


def test_a_writer_makes_its_collection_again(process: IndexProcess, client: IndexClient, tmp_path: Path) -> None:
    """The data were moved away while the process was down: the writer goes on with an empty collection."""
    write(client, put("a"))
    process.kill()
    (process.data / "collections").rename(tmp_path / "moved")
    process.start()
    assert client.get(TENANT, "a") is None
    write(client, put("a"))


def test_a_process_that_hangs_is_given_up(process: IndexProcess) -> None:
    """Stopped in the middle (SIGSTOP): reads and writes fail with DependencyError, and later ones are answered."""
    client = IndexClient(process.socket, spec=SPEC, timeout_s=0.5)
    with closing(client):
        write(client, put("a"))
        process.send(signal.SIGSTOP)
        with pytest.raises(DependencyError):
            client.get(TENANT, "a")
        with pytest.raises(DependencyError):
            client.write(TENANT, [put("b")]).result(DURABLE_S)
        process.send(signal.SIGCONT)
        write(client, put("b"))
        assert client.get(TENANT, "b") is not None


def test_a_write_to_a_process_that_hangs_ends_too(process: IndexProcess) -> None:
    """More than the socket holds, sent to a stopped process: the writer is let go, and so is everybody beside it."""
    client = IndexClient(process.socket, spec=SPEC, timeout_s=0.5)
    with closing(client):
        write(client, put("a"))
        process.send(signal.SIGSTOP)
        big: list[Write] = [put(f"i{n}", tags=("x" * 250,) * 64) for n in range(200)]
        errors: list[BaseException] = []

        def send() -> None:
            try:
                client.write(TENANT, big).result(DURABLE_S)
            except DependencyError as exc:
                errors.append(exc)

        threads = [threading.Thread(target=send, daemon=True) for _ in range(3)]
        for thread in threads:
            thread.start()
        with pytest.raises(DependencyError):
            client.get(TENANT, "a")
        for thread in threads:
            thread.join(15.0)
            assert not thread.is_alive(), "a writer hangs with the process"
        assert len(errors) == 3
        process.send(signal.SIGCONT)
        assert client.get(TENANT, "a") is not None


def test_one_slow_answer_does_not_cost_the_next_connection(process: IndexProcess) -> None:
    """Many threads give a stopped process up together; the first that is answered again keeps its connection."""
    client = IndexClient(process.socket, timeout_s=0.4)
    with closing(process.client(SPEC)) as writer:
        write(writer, put("a"))
    failed = threading.Semaphore(0)

    def ask() -> None:
        try:
            client.get(TENANT, "a")
        except DependencyError:
            failed.release()

    with closing(client):
        assert client.get(TENANT, "a") is not None
        process.send(signal.SIGSTOP)
        threads = [threading.Thread(target=ask) for _ in range(20)]
        started = time.monotonic()
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(DURABLE_S)
        assert time.monotonic() - started < 20 * 0.4, "they waited one after the other"
        assert all(failed.acquire(blocking=False) for _ in threads)
        process.send(signal.SIGCONT)
        assert client.get(TENANT, "a") is not None


def test_a_start_waits_for_what_a_dead_process_left_behind(tmp_path: Path) -> None:
    """Its holder may have gigabytes to let go of, and keeps the folder's lock meanwhile."""
    process = IndexProcess(tmp_path / "data", engine="exact")
    process.data.mkdir()
    with (process.data / "lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        process.launch()
        try:
            wait_until(lambda: _has_open(process.pid, process.data / "lock"))
            fcntl.flock(lock, fcntl.LOCK_UN)
            wait_until(process.answers)
        finally:
            process.kill()


def _has_open(pid: int, path: Path) -> bool:
    return any(one.resolve() == path for one in Path(f"/proc/{pid}/fd").iterdir())
