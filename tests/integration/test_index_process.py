"""The index process among clients that send nonsense, a second start, and many who share it: no one costs another."""

from __future__ import annotations

import os
import signal
import socket
import stat
import struct
import threading
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pytest

from embedder.index.apart.engine import EngineApart
from embedder.index.codec import encode
from embedder.index.edge.shard import EdgeIndex
from embedder.index.exact import ExactIndex
from embedder.index.points import Attempt, AttemptState, Note, State, Write
from embedder.index.protocol import CollectionSpec, Receipt
from embedder.index.query import like
from embedder.index.service.client import IndexClient
from embedder.index.service.wire import HEAD, MAX_FRAME_BYTES, decode_answer, frame
from streams.errors import ConfigError, DependencyError, EventError, QueryError, Reason
from streams.event import MIN_VERSION
from tests.contract.index_cases import bury, put, towards
from tests.index_process import IndexProcess
from tests.script import VECTOR_DIM
from tests.settling import settle
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


# ---- who may start -----------------------------------------------------------------------------------


def test_a_second_process_on_the_same_data_is_refused(process: IndexProcess, client: IndexClient) -> None:
    """One line says who is in the way; the first goes on as if nothing had been."""
    write(client, put("a"))
    second = IndexProcess(process.data, engine="exact", socket=process.data / "second.sock")
    second.launch()
    assert second.ended() != 0
    assert "refused: another index process has" in second.log
    assert client.get(TENANT, "a") is not None


def test_a_socket_that_answers_is_not_taken(process: IndexProcess, client: IndexClient, tmp_path: Path) -> None:
    """Other data, the same socket: refused, and the first process keeps its clients."""
    second = IndexProcess(tmp_path / "other", engine="exact", socket=process.socket)
    second.launch()
    assert second.ended() != 0
    assert "refused:" in second.log
    assert client.ping() == process.pid
    with closing(process.client()) as another:
        assert another.ping() == process.pid


def test_a_file_is_no_socket(tmp_path: Path) -> None:
    """A path that holds somebody's file is refused, and the file stays."""
    precious = tmp_path / "notes.txt"
    precious.write_text("mine")
    process = IndexProcess(tmp_path / "data", engine="exact", socket=precious)
    process.launch()
    assert process.ended() != 0
    assert "refused:" in process.log
    assert precious.read_text() == "mine"


@pytest.mark.parametrize("engine", ["edge", "exact", "numpy"])
def test_a_socket_path_too_long_and_an_unknown_engine_are_one_line(tmp_path: Path, engine: str) -> None:
    """What Linux cannot bind, and an engine nobody knows, are said before anything is made."""
    socket_path = tmp_path / "s" if engine == "numpy" else tmp_path / ("d" * 90) / "s"
    process = IndexProcess(tmp_path / "data", engine=engine, socket=socket_path)
    process.launch()
    assert process.ended() != 0
    assert process.log.startswith("refused: ")
    assert process.log.count("\n") == 1
    assert not (tmp_path / "data" / "collections").exists()


def test_only_the_owner_may_connect(process: IndexProcess) -> None:
    """The socket has mode 600."""
    assert stat.S_IMODE(process.socket.stat().st_mode) == 0o600


# ---- what clients send -------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "nonsense",
    [
        HEAD.pack(5) + b"\xc1\xc1\xc1\xc1\xc1",
        HEAD.pack(0),
        HEAD.pack(MAX_FRAME_BYTES + 1),
        struct.pack("<I", 0xFFFFFFFF),
        frame(encode({"not": "a request"})),
        frame(encode((1, "get"))),
        frame(encode((-(2**63), None, "", ()))),
        frame(os.urandom(4096)),
        b"GET / HTTP/1.1\r\nHost: localhost\r\n\r\n" * 3,
    ],
    ids=["no-msgpack", "empty", "too-long", "far-too-long", "no-list", "too-short", "wrong-types", "random", "http"],
)
def test_a_malformed_frame_closes_that_connection_only(
    process: IndexProcess, client: IndexClient, nonsense: bytes
) -> None:
    """Whoever sends what is no request is hung up on; the others do not notice."""
    write(client, put("a"))
    with socket.socket(socket.AF_UNIX) as rude:
        rude.settimeout(10.0)
        rude.connect(str(process.socket))
        rude.sendall(nonsense)
        assert rude.recv(1) == b"", "hung up without an answer"
    assert client.get(TENANT, "a") is not None
    assert "Traceback" not in process.log


@pytest.mark.parametrize(
    ("operation", "arguments"),
    [
        ("get", ("acme",)),
        ("get", "acme"),
        ("search", ("acme", ((b"\x00" * 7,), (), None, None, 3, 0, False))),
        ("search", ("acme", (([1.0] * 8,), (), None, None, 3, 0, False))),
        ("search", ("acme", (("a",), (), None, None, 2**64 - 1, 0, False))),
        ("search", ("acme", (("a",), (), {"type": "all", "parts": []}, None, 3, 0, False))),
        ("search", ("acme", (("a",), (), {"type": "tag"}, None, 3, 0, False))),
        ("search_batch", ("acme", "a")),
        ("facet", ("acme", "tags", None, 0)),
        ("delete_tenant", None),
        ("list", ("acme", 3, None, ["no such state"], None)),
        ("write", ("acme", [("steal", {})])),
        ("write", ("acme", [("put", {"image_id": "a"})])),
        ("write", None),
        ("ensure", {"model_id": "m", "preprocessing_id": "p", "dim": 0}),
        ("ensure", {"model_id": "m", "preprocessing_id": "p", "dim": 10**9}),
        ("ensure", {"model_id": "../../m", "preprocessing_id": "p", "dim": 8}),
        ("ensure", ("m",)),
        ("__init__", None),
        ("close", None),
    ],
)
def test_a_wrong_call_is_an_error_of_its_own(
    process: IndexProcess, client: IndexClient, operation: str, arguments: object
) -> None:
    """What is a frame but no call gets an answer that says so; the connection and the index go on."""
    write(client, put("a"))
    with socket.socket(socket.AF_UNIX) as asking:
        asking.settimeout(10.0)
        asking.connect(str(process.socket))
        asking.sendall(frame(encode((7, operation, SPEC.name, arguments))))
        answer = decode_answer(_body(asking))
        assert answer.id == 7
        assert answer.error is not None
        assert answer.error[0] in {"value", "config", "query"}
        asking.sendall(frame(encode((8, "ping", "", None))))
        assert decode_answer(_body(asking)).id == 8
    assert "Traceback" not in process.log
    assert sorted(path.name for path in (process.data / "collections").iterdir()) == [SPEC.name]


def _body(connection: socket.socket) -> bytes:
    with connection.makefile("rb") as stream:
        (length,) = HEAD.unpack(stream.read(HEAD.size))
        return stream.read(length)


def test_half_a_request_costs_nothing(process: IndexProcess, client: IndexClient) -> None:
    """Clients that die in mid-frame, or before their write is acknowledged, leave no trace but the write."""
    for n in range(20):
        with socket.socket(socket.AF_UNIX) as dying:
            dying.connect(str(process.socket))
            dying.sendall(HEAD.pack(1000) + b"\x94")
        leaving = process.client(SPEC)
        receipt = leaving.write(TENANT, [put(f"i{n}")])
        leaving.close()
        with pytest.raises(DependencyError):
            receipt.result(0)
    wait_until(lambda: _open_files(process.pid) < 20)
    write(client, put("a"))
    assert "Traceback" not in process.log


def _open_files(pid: int) -> int:
    return len(list(Path(f"/proc/{pid}/fd").iterdir()))


def test_errors_keep_their_class(process: IndexProcess, client: IndexClient) -> None:
    """What the index process refuses is raised at the caller as what it is, and each call has its own."""
    with pytest.raises(EventError) as refused:
        client.search(TENANT, like(np.ones(3, np.float32), limit=1))
    assert refused.value.reason is Reason.VECTOR_INVALID
    with pytest.raises(ValueError, match="cursor"):
        client.list(TENANT, limit=1, cursor="?")
    too_large = CollectionSpec(SPEC.model_id, SPEC.preprocessing_id, SPEC.dim * 2)
    with closing(process.client(too_large)) as other, pytest.raises(ConfigError, match="dim"):
        other.get(TENANT, "a")


def test_a_call_too_large_is_the_callers(client: IndexClient) -> None:
    """More than a frame may hold is refused before it is sent; the connection goes on."""
    half = ("x" * 256,) * 64
    too_many: list[Write] = [put("a", tags=half)] * (MAX_FRAME_BYTES // 16_000)
    with pytest.raises(ValueError, match="limit"):
        client.write(TENANT, too_many)
    write(client, put("a"))


# ---- collections -------------------------------------------------------------------------------------


def test_before_any_collection_the_index_says_so(process: IndexProcess) -> None:
    """The API's client, started first, is told that no worker has run; it needs no second start afterwards."""
    with closing(process.client()) as api:
        assert api.ping() == process.pid
        with pytest.raises(DependencyError, match="collection"):
            api.spec()
        with closing(process.client(SPEC)) as worker:
            write(worker, put("a"))
        assert api.spec() == SPEC
        assert api.get(TENANT, "a") is not None


def test_the_first_collection_is_the_alias_until_it_is_switched(process: IndexProcess, client: IndexClient) -> None:
    """Workers write to their own collection; who asks the alias sees a switch at the next call."""
    with closing(process.client()) as api, closing(process.client(OTHER)) as second:
        write(client, put("old"))
        write(second, put("new"))
        assert api.spec() == SPEC
        assert (api.get(TENANT, "old") is None, api.get(TENANT, "new") is None) == (False, True)
        scratch = process.data / "alias.switched"
        scratch.write_text(OTHER.name)
        scratch.replace(process.data / "alias")
        assert api.spec() == OTHER
        assert (api.get(TENANT, "old") is None, api.get(TENANT, "new") is None) == (True, False)
        assert client.get(TENANT, "old") is not None


def test_collections_and_alias_are_there_after_a_restart(process: IndexProcess, client: IndexClient) -> None:
    """Both collections hold what they held, and the alias means what it meant."""
    with closing(process.client()) as api, closing(process.client(OTHER)) as second:
        write(client, put("old"))
        write(second, put("new"))
        process.send(signal.SIGTERM)
        assert process.ended() == 0
        process.start()
        assert api.spec() == SPEC
        assert client.get(TENANT, "old") is not None
        assert second.get(TENANT, "new") is not None
        assert second.get(TENANT, "old") is None


@pytest.mark.parametrize("damage", ["not json", "[]", '{"schema": 99}', ""])
def test_a_damaged_collection_stops_the_start_with_one_line(
    process: IndexProcess, client: IndexClient, damage: str
) -> None:
    """What cannot be read is not guessed at, and not answered from."""
    write(client, put("a"))
    process.kill()
    (process.data / "collections" / SPEC.name / "spec.json").write_text(damage)
    before = process.log
    process.launch()
    assert process.ended() != 0
    said = process.log[len(before) :]
    assert said.startswith("refused: ")
    assert said.count("\n") == 1


def test_another_engine_does_not_read_the_data(process: IndexProcess, client: IndexClient) -> None:
    """Data of `exact` opened with `edge` are refused, not ignored."""
    write(client, put("a"))
    process.kill()
    other = IndexProcess(process.data, engine="edge")
    other.launch()
    assert other.ended() != 0
    assert "refused: " in other.log


# ---- durability and quickness ------------------------------------------------------------------------


def test_a_write_is_searchable_before_it_is_acknowledged(process: IndexProcess, client: IndexClient) -> None:
    """Applied at once; the receipt says when, and comes after the flush."""
    receipts = [client.write(TENANT, [put(f"i{n}")]) for n in range(50)]
    assert len(client.search(TENANT, like(towards(1), limit=100)).hits) == 50
    applied = [receipt.result(DURABLE_S).applied_at_us for receipt in receipts]
    assert applied == sorted(applied)


def test_many_threads_share_one_client(process: IndexProcess, client: IndexClient) -> None:
    """Reads and writes of sixteen threads on one socket: each gets its own answer."""
    wrong: list[object] = []

    def work(number: int) -> None:
        for n in range(20):
            image_id = f"i{number}-{n}"
            receipt = client.write(TENANT, [put(image_id)])
            point = client.get(TENANT, image_id)
            if point is None or point.image_id != image_id or len(receipt.result(DURABLE_S).written) != 1:
                wrong.append((image_id, point))

    threads = [threading.Thread(target=work, args=(number,)) for number in range(16)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(DURABLE_S)
    assert wrong == []
    assert client.count(TENANT)[State.INDEXED] == 320


def test_a_flush_makes_what_was_applied_durable(process: IndexProcess, client: IndexClient) -> None:
    """After `flush` everything that any client has had applied survives kill -9."""
    for n in range(10):
        client.write(TENANT, [put(f"i{n}")])
    client.flush()
    process.kill()
    process.start()
    assert client.count(TENANT)[State.INDEXED] == 10


# ---- Qdrant Edge: what the product leans on ------------------------------------------------------------


def test_one_process_owns_a_shard(tmp_path: Path) -> None:
    """A second opening of the same shard is refused with one line, also without the index process's lock."""
    with closing(EdgeIndex(SPEC, tmp_path)), pytest.raises(ConfigError, match="cannot be opened"):
        EdgeIndex(SPEC, tmp_path)


def test_a_shard_that_was_not_finished_is_made_again(tmp_path: Path) -> None:
    """A death while a shard is made leaves nothing that is taken for one: it has all its payload indexes or is not."""
    EdgeIndex(SPEC, tmp_path).close()
    (tmp_path / "shard").rename(tmp_path / "shard.new")
    with closing(EdgeIndex(SPEC, tmp_path)) as index:
        index.write_now(TENANT, [put("a")])
        assert len(index.search(TENANT, like(towards(1), limit=1)).hits) == 1


@pytest.mark.parametrize("threshold_kb", [130_000, 500], ids=["scanned", "graph"])
def test_the_optimised_shard_finds_what_exact_finds(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, threshold_kb: int
) -> None:
    """10,000 pictures of two tenants, optimised and opened again: recall@10 ≥ .97, as before the optimising.

    Once as configured (below the threshold the engine scans short codes) and once with a threshold so
    low that it walks the tenant's graph: a configuration dropped at opening shows here.
    """
    monkeypatch.setattr("embedder.index.edge.create.full_scan_threshold_kb", lambda _dim: threshold_kb)
    spec = CollectionSpec("hash", "recall", 576)
    truth = ExactIndex(spec)
    rng = np.random.default_rng(11)
    centres = rng.normal(size=(200, spec.dim)).astype(np.float32)
    home = tmp_path / "edge"
    index = EdgeIndex(spec, home)
    for number in range(40):
        near = centres[rng.integers(0, 200, 250)] + 0.5 * rng.normal(size=(250, spec.dim)).astype(np.float32)
        batch = [put(f"i{number}-{n}", vector) for n, vector in enumerate(near.astype(np.float32))]
        tenant_id = "large" if number % 5 else "small"
        index.write_now(tenant_id, batch)
        truth.write_now(tenant_id, batch)
    queries = (centres[:30] + 0.5 * rng.normal(size=(30, spec.dim))).astype(np.float32)
    assert _recall(index, truth, queries) >= 0.97
    index.close()
    with closing(EngineApart(spec, home)) as apart:
        apart.maintain(idle_s=60.0)
        assert apart.busy(), "it optimises aside"
        settle(apart)
    with closing(EdgeIndex(spec, home)) as again:
        info = again._shard.info()
        assert info.indexed_vectors_count >= 0.9 * info.points_count, "the graph was built"
        assert _recall(again, truth, queries) >= 0.97
        again.write_now("large", [bury("i1-0"), Note("i1-1", Attempt(MIN_VERSION + 9, AttemptState.FAILED))])
        truth.write_now("large", [bury("i1-0"), Note("i1-1", Attempt(MIN_VERSION + 9, AttemptState.FAILED))])
        assert again.count("large") == truth.count("large")
        assert again.stats().points == truth.stats().points
        with pytest.raises(QueryError):
            again.search("large", like("i1-0", limit=3))
        assert len(again.search("large", like("i1-1", limit=3)).hits) == 3


def _recall(index: EdgeIndex, truth: ExactIndex, queries: npt.NDArray[np.float32]) -> float:
    """The worst of the tenants: a graph that is wrong for one must not hide behind the other."""
    shares = []
    for tenant_id in ("large", "small"):
        same = [
            {hit.image_id for hit in index.search(tenant_id, like(query, limit=10)).hits}
            & {hit.image_id for hit in truth.search(tenant_id, like(query, limit=10)).hits}
            for query in queries
        ]
        shares.append(sum(map(len, same)) / (10 * len(queries)))
    return min(shares)


def test_optimising_waits_for_enough_points_and_a_pause(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing below the lower number; above it only when idle; above the upper number at once; then not again."""
    monkeypatch.setattr("embedder.index.apart.upkeep.OPTIMISE_IDLE_AT", 10)
    monkeypatch.setattr("embedder.index.apart.upkeep.OPTIMISE_AT", 30)
    with closing(EngineApart(SPEC, tmp_path)) as index:
        index.write_now(TENANT, [put(f"i{n}") for n in range(9)])
        index.maintain(idle_s=60.0)
        assert not index.busy()
        index.write_now(TENANT, [put("i9")])
        index.maintain(idle_s=0.0)
        assert not index.busy()
        index.maintain(idle_s=60.0)
        settle(index)
        assert index.waiting() == 0
        index.maintain(idle_s=60.0)
        assert not index.busy()
        index.write_now(TENANT, [put(f"j{n}") for n in range(30)])
        index.maintain(idle_s=0.0)
        settle(index)
        assert index.waiting() == 0
