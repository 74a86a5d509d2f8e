"""Every index there is, ready to be written and asked: what tests/contract/test_index.py runs on."""

from __future__ import annotations

import itertools
import uuid
import warnings
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import closing, contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Protocol, TypeVar

import numpy as np
from qdrant_client import QdrantClient

from embedder.index.edge.shard import EdgeIndex
from embedder.index.exact import ExactIndex
from embedder.index.fields import Field, Kind
from embedder.index.points import Bury, PutVector, State, Vector, Write, Written
from embedder.index.protocol import CollectionSpec, Maintenance, Receipt, Searcher, Sweeper, Writer
from embedder.index.qdrant_server.connect import GRPC_PORT, Server
from embedder.index.qdrant_server.index import ServerIndex
from embedder.index.qdrant_server.schema import VECTOR, vector_params
from embedder.index.qdrant_server.transport import ClientTransport
from embedder.index.query import like
from streams.event import MIN_VERSION, Attribute, Location, now_us
from tests import real_qdrant
from tests.index_process import IndexProcess
from tests.script import VECTOR_DIM

Item = TypeVar("Item")

FIELDS = (Field("price", Kind.NUMBER), Field("taken_at", Kind.TIME))
SPEC = CollectionSpec("hash", "test-v1", VECTOR_DIM, FIELDS)
DURABLE_S = 30.0
REOPEN_EVERY = 30
"""So many writes between two openings of the indexes that show that they come back as they were."""


class Index(Writer, Searcher, Maintenance, Sweeper, Protocol):
    """All that can be asked of one collection."""


@dataclass(frozen=True)
class Stand:
    """One index, shared by the tests of a module, each with tenants of its own.

    `served`: behind a socket, where any thread may call and a write takes as long as a flush.
    """

    index: Index
    served: bool
    engine: str
    _numbers: Iterator[int]

    def tenant(self) -> str:
        """The name of a tenant that nobody has used yet."""
        return f"t{next(self._numbers)}"

    def each(self, play: Callable[[Item], object], items: Sequence[Item]) -> None:
        """Call `play` for every item: at once where the index may be called so, which shares the flushes."""
        if not self.served:
            for item in items:
                play(item)
            return
        with ThreadPoolExecutor(len(items)) as threads:
            for _ in threads.map(play, items):
                pass


class ReopeningExact(ExactIndex):
    """Opens its file again every few writes: what it answers then is what the file held."""

    def __init__(self, journal: Path) -> None:
        super().__init__(SPEC, journal=journal)
        self._path = journal
        self._n_writes = 0

    def write(self, tenant_id: str, writes: Sequence[Write]) -> Future[Receipt]:
        receipt = super().write(tenant_id, writes)
        self._n_writes += 1
        if self._n_writes % REOPEN_EVERY == 0:
            self.close()
            ExactIndex.__init__(self, SPEC, journal=self._path)
        return receipt


class ReopeningEdge(EdgeIndex):
    """Qdrant Edge in this process, opened again every few writes."""

    def __init__(self, home: Path) -> None:
        super().__init__(SPEC, home)
        self._home = home
        self._n_writes = 0

    def write(self, tenant_id: str, writes: Sequence[Write]) -> Future[Receipt]:
        done: Future[Receipt] = Future()
        done.set_result(Receipt(tuple(self.write_now(tenant_id, writes)), now_us()))
        self._n_writes += 1
        if self._n_writes % REOPEN_EVERY == 0:
            self.close()
            EdgeIndex.__init__(self, SPEC, self._home)
        return done


class DroppedServer(ServerIndex):
    """Removes its collection at the end."""

    def __init__(self, server: Server, index: ServerIndex) -> None:
        super().__init__(server.client, index._transport, index.spec(), name=index.name)

    def close(self) -> None:
        self._writers.shutdown()
        self._client.delete_collection(self.name)
        self._client.close()


STANDS = (
    "exact",
    "exact reopened",
    "edge reopened",
    "exact served",
    "edge served",
    "qdrant local",
    *(("qdrant server",) if real_qdrant.URL else ()),
)
"""A Qdrant server is tried where LOOKALIKE_QDRANT_URL names one, and then it has to answer: without the
variable there is no such stand, instead of one that is skipped. "qdrant local" is the client's own
imitation in this process: the same adapter, no payload indexes, no graphs, no gRPC."""


def local_server() -> ServerIndex:
    """The server's adapter on the imitation that comes with the client."""
    client = QdrantClient(":memory:")
    client.create_collection(SPEC.name, vectors_config={VECTOR: vector_params(SPEC.dim)})
    index = ServerIndex(client, ClientTransport(client, SPEC.name), SPEC)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # told once: the imitation is always exact
        index.search("nobody", like(towards(1)))
    return index


def real_server() -> ServerIndex:
    """A collection of its own on the server of LOOKALIKE_QDRANT_URL; its failure is the test's."""
    assert real_qdrant.URL is not None
    spec = replace(SPEC, model_id=f"hash-{uuid.uuid4().hex[:8]}")
    server = Server(
        real_qdrant.URL,
        alias=f"test-{uuid.uuid4().hex[:8]}",
        api_key=real_qdrant.API_KEY,
        grpc_port=int(real_qdrant.GRPC_PORT or GRPC_PORT),
    )
    return DroppedServer(server, server.ensure(spec))


@contextmanager
def standing(name: str, folder: Path) -> Iterator[Stand]:
    """The index of this name, its files in `folder`."""
    engine, _, how = name.partition(" ")
    numbers = itertools.count(1)
    if how == "served":
        process = IndexProcess(folder / "data", engine=engine, flush_share=0.5)
        with process, closing(process.client(SPEC)) as client:
            yield Stand(client, True, engine, numbers)
        return
    if engine == "qdrant":
        with closing(local_server() if how == "local" else real_server()) as server:
            yield Stand(server, how == "server", engine, numbers)
        return
    index: ExactIndex | ReopeningEdge
    if engine == "edge":
        index = ReopeningEdge(folder)
    else:
        index = ReopeningExact(folder / "journal") if how else ExactIndex(SPEC)
    with closing(index):
        yield Stand(index, False, engine, numbers)


def towards(*values: float) -> Vector:
    """A vector that begins with `values`; zeros follow."""
    vector = np.zeros(VECTOR_DIM, np.float32)
    vector[: len(values)] = values
    return vector


def put(
    image_id: str,
    vector: Vector | None = None,
    *,
    version: int = 1,
    etag: str = "a",
    tags: tuple[str, ...] = (),
    attributes: dict[str, Attribute] | None = None,
    size_px: tuple[int, int] = (640, 480),
    created_at_us: int = MIN_VERSION,
    dim: int = VECTOR_DIM,
) -> PutVector:
    """A write that makes an image searchable; its vector defaults to the first axis, `dim` floats long."""
    return PutVector(
        image_id=image_id,
        version=MIN_VERSION + version,
        vector=np.eye(1, dim, dtype=np.float32)[0] if vector is None else vector,
        location=Location("pictures", f"{image_id}.jpg", etag, size_bytes=9, content_type="image/jpeg"),
        etag=etag,
        sha256=etag * 64,
        indexed_at_us=MIN_VERSION,
        created_at_us=created_at_us,
        engine="torch-cpu-fp32",
        tags=tags,
        attributes=attributes or {},
        width_px=size_px[0],
        height_px=size_px[1],
    )


def bury(image_id: str, *, version: int = 2) -> Bury:
    """A write that leaves a tombstone."""
    return Bury(image_id, MIN_VERSION + version, at_us=MIN_VERSION)


def write(index: Index, tenant_id: str, *writes: Write) -> list[Written]:
    return list(index.write(tenant_id, writes).result(DURABLE_S).written)


def found(index: Index, tenant_id: str, vector: Vector, *, limit: int = 100) -> dict[str, float]:
    """Score by image, best first."""
    return {hit.image_id: hit.score for hit in index.search(tenant_id, like(vector, limit=limit)).hits}


def listed(index: Index, tenant_id: str, *, limit: int, states: tuple[State, ...] = ()) -> list[list[str]]:
    """The image ids of every page."""
    pages: list[list[str]] = []
    cursor: str | None = None
    while True:
        page = index.list(tenant_id, limit=limit, cursor=cursor, states=states)
        pages.append([point.image_id for point in page.points])
        cursor = page.next_cursor
        if cursor is None:
            return pages
