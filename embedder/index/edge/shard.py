"""Qdrant Edge: the embedded index. The only file that asks the binding, in a process of its own.

What is done here that the documentation does not ask for was measured (docs/index.md): no call
releases Python's lock, so one thread is enough; nothing is optimised unless somebody says so; `load`
with a configuration drops what it does not repeat; an update is durable against kill -9 at once (its
log is on) and against power loss after `flush`.
"""

from __future__ import annotations

import time
import uuid
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import structlog
from qdrant_edge import (
    CountRequest,
    EdgeShard,
    FacetRequest,
    FieldCondition,
    MatchValue,
    PayloadSelector,
    QuantizationSearchParams,
    QueryRequest,
    RangeFloat,
    Record,
    ScoredPoint,
    ScrollRequest,
    SearchParams,
    UpdateOperation,
)
from qdrant_edge import Filter as EdgeFilter
from qdrant_edge import Point as EdgePoint
from qdrant_edge import Query as EdgeQuery

from embedder.index.edge.conditions import any_tenant, conditions
from embedder.index.edge.create import VECTOR, create
from embedder.index.edge.pointer import Pointer
from embedder.index.facets import TAGS, from_keywords, most_frequent, prefix_of
from embedder.index.filters import Filter, check_filter
from embedder.index.payload import from_payload, to_payload
from embedder.index.points import Point, PutVector, State, Sweep, Vector, Write, Written, apply, point_id
from embedder.index.policy import EXACT, Policy, edge_policy
from embedder.index.protocol import CollectionSpec, Facet, Hit, Hits, IndexStats, Page, TenantStats
from embedder.index.query import (
    Example,
    Query,
    check_part,
    check_query,
    each_answered,
    refuse_example,
    target,
    unit,
)
from embedder.models.vectors import check_vector
from streams.errors import ConfigError, DependencyError, QueryError

log = structlog.get_logger(__name__)

Answer = TypeVar("Answer")

MAX_TENANTS = 1_000_000
FACET_FIRST, FACET_MOST = 200, 20_000
"""Values of all attributes lie in one field, the most frequent come first: so many are looked through."""


class EdgeIndex:
    """One collection as one shard. Not thread-safe, and it holds Python's lock while it works."""

    def __init__(self, spec: CollectionSpec, home: Path, *, folder: Path | None = None) -> None:
        """Open the shard under `home`, or create it with all payload indexes; `folder` is a copy optimised just now.

        Raises:
            ConfigError: it cannot be opened (another process has it, a damaged file).
        """
        self._spec = spec
        fresh = folder is not None
        self.folder = folder or Pointer(home).folder()
        try:
            self._shard = EdgeShard.load(str(self.folder)) if self.folder.exists() else create(self.folder, spec)
        except Exception as exc:  # the binding raises bare exceptions with a text only
            raise ConfigError(f"the index in {self.folder} cannot be opened: {exc}") from exc
        info = self._shard.info()
        self._unoptimised = 0 if fresh else info.points_count - info.indexed_vectors_count

    # ---- writes ------------------------------------------------------------------------------------

    def read(self, tenant_id: str, image_ids: Sequence[str]) -> list[Point | None]:
        found = self._read(tenant_id, image_ids)
        return [found.get(image_id) for image_id in image_ids]

    def write_now(self, tenant_id: str, writes: Sequence[Write]) -> list[Written]:
        """Apply the table by read and write: nobody else writes this shard."""
        for write in writes:
            if isinstance(write, PutVector):
                check_vector(write.vector, self._spec.dim)
        known = self._read(tenant_id, [write.image_id for write in writes])
        points: dict[str, Point] = dict(known)
        vectors: dict[str, Vector | None] = {}
        changed: dict[str, None] = {}  # in order
        removed: dict[str, Point] = {}
        results = []
        for write in writes:
            change = apply(tenant_id, points.get(write.image_id), write)
            results.append(change.written)
            if not change.changed:
                continue
            if change.point is None:
                removed[write.image_id] = points.pop(write.image_id)
                changed.pop(write.image_id, None)
                continue
            removed.pop(write.image_id, None)
            points[write.image_id] = change.point
            changed[write.image_id] = None
            if change.vector is not None:
                vectors[write.image_id] = write.vector if isinstance(write, PutVector) else None
        if removed:
            numbers: Any = [point_id(tenant_id, image_id) for image_id in removed]
            _asked(self._shard.update, UpdateOperation.delete_points(numbers))
        self._store([points[image_id] for image_id in changed], known, vectors)
        return results

    def _store(self, points: Sequence[Point], known: Mapping[str, Point], vectors: Mapping[str, Vector | None]) -> None:
        """Whole points in one call; a change that leaves the vector alone replaces the payload only."""
        whole = []
        for point in points:
            number, payload = point_id(point.tenant_id, point.image_id), to_payload(point, self._spec.fields)
            if point.image_id in vectors or point.image_id not in known:
                vector = vectors.get(point.image_id)
                named: Any = {}
                if vector is not None:
                    named[VECTOR] = unit(vector)  # the engine leaves very short ones as they are
                whole.append(EdgePoint(number, named, payload))
            else:
                _asked(self._shard.update, UpdateOperation.overwrite_payload([number], payload))
        if whole:
            _asked(self._shard.update, UpdateOperation.upsert_points(whole))
            self._unoptimised += len(whole)

    def _read(self, tenant_id: str, image_ids: Sequence[str]) -> dict[str, Point]:
        numbers: Any = [point_id(tenant_id, image_id) for image_id in dict.fromkeys(image_ids)]
        records = _asked(self._shard.retrieve, numbers, True, False)
        points = [from_payload(record.payload or {}) for record in records]
        return {point.image_id: point for point in points if point.tenant_id == tenant_id}

    # ---- searches ----------------------------------------------------------------------------------

    def spec(self) -> CollectionSpec:
        return self._spec

    def get(self, tenant_id: str, image_id: str) -> Point | None:
        return self._read(tenant_id, [image_id]).get(image_id)

    def search(self, tenant_id: str, query: Query) -> Hits:
        check_query(query, dim=self._spec.dim, fields=self._spec.fields)
        named = self._vectors(tenant_id, query.named)

        def vectors(examples: Sequence[Example]) -> list[Vector]:
            return [named[one] if isinstance(one, str) else unit(one) for one in examples]

        return self._nearest(tenant_id, target(vectors(query.positive), vectors(query.negative)), query)

    def search_batch(self, tenant_id: str, queries: Sequence[Query]) -> list[Hits | QueryError]:
        return each_answered(lambda query: self.search(tenant_id, query), queries)

    def _vectors(self, tenant_id: str, image_ids: Sequence[str]) -> dict[str, Vector]:
        """The vectors of the tenant's own images; QueryError for one without."""
        if not image_ids:
            return {}
        numbers: Any = [point_id(tenant_id, image_id) for image_id in image_ids]
        found: dict[str, Vector] = {}
        points: dict[str, Point] = {}
        for record in _asked(self._shard.retrieve, numbers, True, [VECTOR]):
            point = from_payload(record.payload or {})
            if point.tenant_id != tenant_id:
                continue
            points[point.image_id] = point
            stored: Any = record.vector
            if stored and VECTOR in stored:
                found[point.image_id] = np.asarray(stored[VECTOR], np.float32)
        for image_id in image_ids:
            if image_id not in found:
                raise refuse_example(image_id, points.get(image_id))
        return found

    def _nearest(self, tenant_id: str, vector: Vector, query: Query) -> Hits:
        allowed = conditions(tenant_id, self._spec.fields, query.filter)
        asked: Any = vector
        estimated = _asked(self._shard.count, CountRequest(filter=allowed, exact=False))
        policy = EXACT if query.exact else edge_policy(estimated, filtered=query.filter is not None)
        request = QueryRequest(
            limit=query.reach + len(query.named),  # those fall out below
            query=EdgeQuery.Nearest(asked, using=VECTOR),
            filter=allowed,
            params=_params(policy),
            with_payload=True if query.with_points else PayloadSelector.Include(["image_id"]),
        )
        found = _asked(self._shard.query, request)
        hits = sorted((_hit(one, query) for one in found), key=lambda hit: (-hit.score, hit.image_id))
        lowest = -1.0 if query.score_threshold is None else query.score_threshold
        kept = [hit for hit in hits if hit.image_id not in query.named and hit.score >= lowest]
        return Hits(tuple(kept[query.offset : query.reach]), policy.exact)

    def facet(self, tenant_id: str, field: str, *, filter: Filter | None = None, limit: int = 10) -> Facet:  # noqa: A002
        check_part(limit)
        check_filter(filter, self._spec.fields)
        prefix_of(field, self._spec.fields)
        allowed = conditions(tenant_id, self._spec.fields, filter, states=(State.INDEXED,))
        key, asked = ("tags", limit + 1) if field == TAGS else ("kv", FACET_FIRST)
        while True:
            counts = self._facet(key, allowed, limit=asked)
            values = from_keywords(field, counts, self._spec.fields)
            complete = len(counts) < asked
            if complete or asked >= FACET_MOST or len(values) > limit:
                return Facet(most_frequent(values, limit), complete or len(values) > limit)
            asked = min(asked * 10, FACET_MOST)

    def list(
        self,
        tenant_id: str,
        *,
        limit: int,
        cursor: str | None = None,
        states: Sequence[State] = (),
        filter: Filter | None = None,  # noqa: A002
    ) -> Page:
        check_part(limit)
        check_filter(filter, self._spec.fields)
        offset = None if cursor is None else _read_cursor(cursor)
        allowed = conditions(tenant_id, self._spec.fields, filter, states=states)
        request = ScrollRequest(limit=limit, offset=offset, filter=allowed, with_payload=True)
        records, following = _asked(self._shard.scroll, request)
        points = tuple(from_payload(record.payload or {}) for record in records)
        return Page(points, None if following is None else str(following))

    def count(self, tenant_id: str) -> Mapping[State, int]:
        return self._by_state(conditions(tenant_id))

    # ---- maintenance -------------------------------------------------------------------------------

    def stats(self) -> IndexStats:
        attempts = self._facet("attempt.state", None, limit=10)
        tenants = self._facet("tenant_id", None, limit=MAX_TENANTS)
        return IndexStats("edge", self._spec.name, self._by_state(None), attempts, len(tenants))

    def sweep(self, before_us: int, *, limit: int) -> int:
        made: Any = FieldCondition(key="indexed_at_us", range=RangeFloat(lt=float(before_us)))
        deleted: Any = FieldCondition(key="state", match=MatchValue(State.DELETED.value))
        request = ScrollRequest(limit=limit, filter=EdgeFilter(must=[deleted, made]), with_payload=True)
        records, _ = _asked(self._shard.scroll, request)
        old: dict[str, list[Write]] = {}
        for record in records:
            point = from_payload(record.payload or {})
            old.setdefault(point.tenant_id, []).append(Sweep(point.image_id, before_us))
        for tenant_id, writes in old.items():
            self.write_now(tenant_id, writes)
        return len(records)

    def everything(self, part: int) -> Iterator[Sequence[tuple[Point, Vector | None]]]:
        """Every point with its vector, in parts."""
        offset = None
        while True:
            request = ScrollRequest(limit=part, offset=offset, with_payload=True, with_vector=True)
            records, offset = _asked(self._shard.scroll, request)
            yield [
                (from_payload(record.payload or {}), None if not stored else np.asarray(stored[VECTOR], np.float32))
                for record in records
                for stored in [_vectors_of(record)]
            ]
            if offset is None:
                return

    def put_back(self, part: Sequence[tuple[Point, Vector | None]]) -> None:
        """Store points that :meth:`everything` of another index gave, as they are."""
        for tenant_id in {point.tenant_id for point, _ in part}:
            own = [(point, vector) for point, vector in part if point.tenant_id == tenant_id]
            self._store([point for point, _ in own], {}, {point.image_id: vector for point, vector in own})

    def tenant_stats(self, tenant_id: str) -> TenantStats:
        attempts = self._facet("attempt.state", conditions(tenant_id), limit=10)
        return TenantStats(self._spec.name, self.count(tenant_id), attempts)

    def delete_tenant(self, tenant_id: str) -> int:
        own = conditions(tenant_id)
        n = _asked(self._shard.count, CountRequest(filter=own, exact=True))
        _asked(self._shard.update, UpdateOperation.delete_points_by_filter(own))
        return n

    def sample(self) -> tuple[str, str] | None:
        for start in (uuid.uuid4(), None):  # ids are spread evenly; behind the last one begins the first
            request = ScrollRequest(limit=1, offset=start, filter=any_tenant(State.INDEXED), with_payload=True)
            records, _ = _asked(self._shard.scroll, request)
            if records:
                point = from_payload(records[0].payload or {})
                return point.tenant_id, point.image_id
        return None

    def flush(self) -> None:
        _asked(self._shard.flush)

    def waiting(self) -> int:
        return self._unoptimised

    def n_points(self, *, counted: bool = False) -> int:
        """How many points there are, tombstones and empty ones included.

        As the engine keeps count, at once, or `counted` one by one, which takes 0.15 s for a million. The two were
        never seen to differ.
        """
        if counted:
            return _asked(self._shard.count, CountRequest(exact=True))
        return _asked(self._shard.info).points_count

    def optimise(self) -> None:
        """Build every graph that is missing, now, in this process. Blocks: half a millisecond for each new point."""
        started, points = time.monotonic(), self._unoptimised
        _asked(self._shard.optimize)
        self._unoptimised = 0
        log.info("optimised", points=points, took_s=round(time.monotonic() - started, 3))

    def close(self) -> None:
        try:
            self.flush()
        finally:
            _asked(self._shard.close)

    def _by_state(self, own: EdgeFilter | None) -> dict[State, int]:
        found = self._facet("state", own, limit=len(State))
        return {state: found.get(state.value, 0) for state in State}

    def _facet(self, key: str, own: EdgeFilter | None, *, limit: int) -> dict[str, int]:
        found = _asked(self._shard.facet, FacetRequest(key=key, limit=limit, exact=True, filter=own))
        return {str(hit.value): hit.count for hit in found.hits}


def _asked(call: Callable[..., Answer], *arguments: object) -> Answer:
    """One call of the binding, whose errors are bare exceptions with a text: what was asked for was checked
    before, so it is the engine that is unwell (a full disk, a file gone), and not this one picture."""
    try:
        return call(*arguments)
    except Exception as exc:
        raise DependencyError("index", f"Qdrant Edge failed: {exc}") from exc


def _vectors_of(record: Record) -> Any:
    return record.vector


def _hit(found: ScoredPoint, query: Query) -> Hit:
    payload = found.payload or {}
    point = from_payload(payload) if query.with_points else None
    return Hit(str(payload["image_id"]), max(-1.0, min(1.0, float(found.score))), point)


def _params(policy: Policy) -> SearchParams:
    if policy.exact:
        return SearchParams(exact=True)
    rescored = QuantizationSearchParams(rescore=True, oversampling=policy.oversampling)
    return SearchParams(hnsw_ef=policy.hnsw_ef, quantization=rescored)


def _read_cursor(cursor: str) -> uuid.UUID:
    try:
        return uuid.UUID(cursor)
    except ValueError as exc:
        raise ValueError("this cursor was not given out here") from exc
