"""A filled collection on a watched server, and what a test of its migration looks at."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

from embedder.index.fields import parse_fields
from embedder.index.payload import REVISION
from embedder.index.points import Attempt, AttemptState, Note, Point
from embedder.index.protocol import CollectionSpec
from embedder.index.qdrant_server.connect import Server
from embedder.index.qdrant_server.index import ServerIndex
from embedder.index.qdrant_server.migrate import Migrated, migrate
from streams.errors import Reason
from streams.event import MIN_VERSION
from tests.contract.index_cases import bury, put, towards, write
from tests.script import VECTOR_DIM
from tests.watched_qdrant import READS, Rig

OLD = CollectionSpec("hash", "migrated-v1", VECTOR_DIM)
FIELDS = parse_fields(["price:number", "taken_at:time"])
TENANTS = ("acme", "bell")
N_POINTS = 2 * 13


class KilledError(BaseException):
    """As kill -9: nothing that comes after it has any effect."""


class Steps:
    """Told of each step of a migration; does something before one of them, or kills it there for good."""

    def __init__(
        self,
        *,
        kill_at: int | None = None,
        kill_before: str | None = None,
        act: Callable[[str], None] | None = None,
        reads: bool = False,
    ) -> None:
        self.seen: list[str] = []
        self._kill_at = kill_at
        self._kill_before = kill_before
        self._act = act
        self._reads = reads

    def __call__(self, step: str) -> None:
        if step in READS and not self._reads:
            return
        self.seen.append(step)
        if step == self._kill_before:
            self._kill_at = 0
        if self._kill_at is not None and len(self.seen) > self._kill_at:
            raise KilledError
        if self._act is not None:
            self._act(step)


def new(rigged: Rig) -> CollectionSpec:
    return replace(rigged.spec, fields=FIELDS)


def filled(rigged: Rig) -> ServerIndex:
    """Two tenants: pictures with and without a vector, a tombstone, notes in each state."""
    index = rigged.server().ensure(rigged.spec)
    for tenant_id in TENANTS:
        pictures = [
            put(f"i{n}", towards(n + 1, 1), tags=("red",), attributes={"price": n, "colour": f"c{n % 2}"})
            for n in range(10)
        ]
        pictures[3] = put("i3", towards(4, 1), attributes={"price": 3.5, "taken_at": "2024-05-01T12:00:00Z"})
        write(index, tenant_id, *pictures)
        write(
            index,
            tenant_id,
            bury("i7"),
            bury("never", version=5),
            Note("new", Attempt(MIN_VERSION + 9, AttemptState.PENDING)),
            Note("bad", Attempt(MIN_VERSION + 9, AttemptState.FAILED, Reason.IMAGE_MISSING, tries=2)),
            Note("i2", Attempt(MIN_VERSION + 9, AttemptState.RETRYING)),
        )
    return index


def everything(index: ServerIndex) -> dict[str, tuple[Point, ...]]:
    return {tenant_id: index.list(tenant_id, limit=1000).points for tenant_id in TENANTS}


def revisions(rigged: Rig, name: str) -> dict[str, tuple[object, bool]]:
    """By id: the revision, and whether there is a vector."""
    records, _ = rigged.client.scroll(name, limit=1000, with_payload=[REVISION], with_vectors=True)
    return {str(record.id): ((record.payload or {})[REVISION], bool(record.vector)) for record in records}


def run(server: Server, **options: object) -> Migrated:
    return migrate(server, FIELDS, told=lambda _: None, pause=lambda _: None, **options)  # type: ignore[arg-type]
