"""Qdrant Edge: the embedded index. The only file that knows the binding; it runs in the index process alone.

What is done here that the documentation does not ask for was measured (docs/index.md): no call
releases Python's lock, so one thread is enough; nothing is optimised unless somebody says so; `load`
with a configuration drops what it does not repeat; an update is durable against kill -9 at once (its
log is on) and against power loss after `flush`.
"""

from __future__ import annotations

import time
import uuid
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import structlog
from qdrant_edge import (
    CountRequest,
    Distance,
    EdgeConfig,
    EdgeOptimizersConfig,
    EdgeShard,
    EdgeVectorParams,
    FacetRequest,
    FieldCondition,
    Filter,
    HnswIndexConfig,
    IntegerIndexParams,
    KeywordIndexParams,
    MatchAny,
    MatchValue,
    Memory,
    PayloadSelector,
    QuantizationSearchParams,
    Query,
    QueryRequest,
    RangeFloat,
    ScalarQuantizationConfig,
    ScalarType,
    ScrollRequest,
    SearchParams,
    UpdateOperation,
)
from qdrant_edge import Point as EdgePoint

from embedder.index.payload import INTEGERS, KEYWORDS, from_payload, to_payload
from embedder.index.points import Point, PutVector, State, Sweep, Vector, Write, Written, apply, point_id
from embedder.index.policy import FULL_SCAN_THRESHOLD_KB, Policy, check_limit, choose
from embedder.index.protocol import CollectionSpec, Hit, Hits, IndexStats, Page
from embedder.models.vectors import check_vector
from streams.errors import ConfigError, DependencyError

log = structlog.get_logger(__name__)

Answer = TypeVar("Answer")

VECTOR = "image"
OPTIMISE_AT = 20_000
"""So many points outside of the graph are searched row by row: about 5 ms more per search."""
OPTIMISE_IDLE_AT = 2_000
OPTIMISE_IDLE_S = 5.0
MAX_TENANTS = 1_000_000


class EdgeIndex:
    """One collection as one shard. Not thread-safe; the index process calls it from one thread."""

    def __init__(self, spec: CollectionSpec, home: Path) -> None:
        """Open the shard under `home`, or create it with all payload indexes.

        Raises:
            ConfigError: it cannot be opened (another process has it, a damaged file).
        """
        self._spec = spec
        folder = home / "shard"
        try:
            self._shard = EdgeShard.load(str(folder)) if folder.exists() else _create(folder, spec.dim)
        except Exception as exc:  # the binding raises bare exceptions with a text only
            raise ConfigError(f"the index in {folder} cannot be opened: {exc}") from exc
        info = self._shard.info()
        self._unoptimised = info.points_count - info.indexed_vectors_count

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
            number, payload = point_id(point.tenant_id, point.image_id), to_payload(point)
            if point.image_id in vectors or point.image_id not in known:
                vector = vectors.get(point.image_id)
                named: Any = {} if vector is None else {VECTOR: _unit(vector)}
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

    def similar(self, tenant_id: str, image_id: str, *, limit: int) -> Hits | None:
        check_limit(limit)
        records = _asked(self._shard.retrieve, [point_id(tenant_id, image_id)], True, [VECTOR])
        if not records or (records[0].payload or {}).get("tenant_id") != tenant_id:
            return None
        stored: Any = records[0].vector
        if not stored or VECTOR not in stored:
            return None
        found = self._nearest(tenant_id, np.asarray(stored[VECTOR], np.float32), limit=limit + 1)
        others = tuple(hit for hit in found.hits if hit.image_id != image_id)
        return Hits(others[:limit], found.exact)

    def search(self, tenant_id: str, vector: Vector, *, limit: int) -> Hits:
        check_limit(limit)
        check_vector(vector, self._spec.dim)
        return self._nearest(tenant_id, _unit(vector), limit=limit)

    def _nearest(self, tenant_id: str, vector: Vector, *, limit: int) -> Hits:
        own = _tenant(tenant_id)
        asked: Any = vector
        policy = choose(_asked(self._shard.count, CountRequest(filter=own, exact=False)))
        request = QueryRequest(
            limit=limit,
            query=Query.Nearest(asked, using=VECTOR),
            filter=own,
            params=_params(policy),
            with_payload=PayloadSelector.Include(["image_id"]),
        )
        found = _asked(self._shard.query, request)
        hits = (Hit(str((one.payload or {})["image_id"]), max(-1.0, min(1.0, float(one.score)))) for one in found)
        return Hits(tuple(sorted(hits, key=lambda hit: (-hit.score, hit.image_id))), policy.exact)

    def list(self, tenant_id: str, *, limit: int, cursor: str | None = None, states: Sequence[State] = ()) -> Page:
        check_limit(limit)
        offset = None if cursor is None else _read_cursor(cursor)
        request = ScrollRequest(limit=limit, offset=offset, filter=_tenant(tenant_id, states), with_payload=True)
        records, following = _asked(self._shard.scroll, request)
        points = tuple(from_payload(record.payload or {}) for record in records)
        return Page(points, None if following is None else str(following))

    def count(self, tenant_id: str) -> Mapping[State, int]:
        return self._by_state(_tenant(tenant_id))

    # ---- maintenance -------------------------------------------------------------------------------

    def stats(self) -> IndexStats:
        attempts = self._facet("attempt.state", None, limit=10)
        tenants = self._facet("tenant_id", None, limit=MAX_TENANTS)
        return IndexStats("edge", self._spec.name, self._by_state(None), attempts, len(tenants))

    def sweep(self, before_us: int, *, limit: int) -> int:
        made: Any = FieldCondition(key="indexed_at_us", range=RangeFloat(lt=float(before_us)))
        deleted: Any = FieldCondition(key="state", match=MatchValue(State.DELETED.value))
        request = ScrollRequest(limit=limit, filter=Filter(must=[deleted, made]), with_payload=True)
        records, _ = _asked(self._shard.scroll, request)
        old: dict[str, list[Write]] = {}
        for record in records:
            point = from_payload(record.payload or {})
            old.setdefault(point.tenant_id, []).append(Sweep(point.image_id, before_us))
        for tenant_id, writes in old.items():
            self.write_now(tenant_id, writes)
        return len(records)

    def flush(self) -> None:
        _asked(self._shard.flush)

    def maintain(self, *, idle_s: float) -> None:
        """Build graphs where enough points wait for them: soon when nobody asks, in any case at 20,000.

        Blocks searches meanwhile (at 100,000 points 2 s in the middle, 2.6 s at most).
        """
        due = self._unoptimised >= OPTIMISE_AT
        if due or (self._unoptimised >= OPTIMISE_IDLE_AT and idle_s >= OPTIMISE_IDLE_S):
            started, points = time.monotonic(), self._unoptimised
            _asked(self._shard.optimize)
            self._unoptimised = 0
            log.info("optimised", points=points, took_s=round(time.monotonic() - started, 3))

    def close(self) -> None:
        try:
            self.flush()
        finally:
            _asked(self._shard.close)

    def _by_state(self, own: Filter | None) -> dict[State, int]:
        found = self._facet("state", own, limit=len(State))
        return {state: found.get(state.value, 0) for state in State}

    def _facet(self, key: str, own: Filter | None, *, limit: int) -> dict[str, int]:
        found = _asked(self._shard.facet, FacetRequest(key=key, limit=limit, exact=True, filter=own))
        return {str(hit.value): hit.count for hit in found.hits}


def _asked(call: Callable[..., Answer], *arguments: object) -> Answer:
    """One call of the binding, whose errors are bare exceptions with a text: what was asked for was checked
    before, so it is the engine that is unwell (a full disk, a file gone), and not this one picture."""
    try:
        return call(*arguments)
    except Exception as exc:
        raise DependencyError("index", f"Qdrant Edge failed: {exc}") from exc


def _unit(vector: Vector) -> Vector:
    """The engine leaves very short vectors as they are, and then their scores are no cosines."""
    return np.asarray(vector / np.linalg.norm(vector), np.float32)


def _create(folder: Path, dim: int) -> EdgeShard:
    quantization = ScalarQuantizationConfig(type=ScalarType.Int8, quantile=0.99, memory=Memory.Pinned)
    graph = HnswIndexConfig(m=0, ef_construct=100, full_scan_threshold=FULL_SCAN_THRESHOLD_KB, payload_m=16)
    vector = EdgeVectorParams(
        size=dim,
        distance=Distance.Cosine,
        memory=Memory.Cold,
        quantization_config=quantization,
        hnsw_config=graph,
    )
    folder.parent.mkdir(parents=True, exist_ok=True)
    scratch = folder.with_name("shard.new")  # a shard appears with all its indexes or not at all
    _remove(scratch)
    shard = EdgeShard.create(
        str(scratch),
        EdgeConfig(
            vectors={VECTOR: vector},
            optimizers=EdgeOptimizersConfig(indexing_threshold=20_000, default_segment_number=4),
            payload_memory=Memory.Cold,
            wal_enabled=True,
            max_search_threads=1,
        ),
    )
    shard.update(UpdateOperation.create_field_index("tenant_id", KeywordIndexParams(is_tenant=True)))
    for name in KEYWORDS:
        shard.update(UpdateOperation.create_field_index(name, KeywordIndexParams(enable_hnsw=False)))
    for name in INTEGERS:
        shard.update(UpdateOperation.create_field_index(name, IntegerIndexParams(enable_hnsw=False)))
    shard.flush()
    shard.close()
    scratch.rename(folder)
    return EdgeShard.load(str(folder))


def _remove(folder: Path) -> None:
    import shutil  # noqa: PLC0415 - needed once in a collection's life

    shutil.rmtree(folder, ignore_errors=True)


def _params(policy: Policy) -> SearchParams:
    if policy.exact:
        return SearchParams(exact=True)
    rescored = QuantizationSearchParams(rescore=True, oversampling=policy.oversampling)
    return SearchParams(hnsw_ef=policy.hnsw_ef, quantization=rescored)


def _tenant(tenant_id: str, states: Sequence[State] = ()) -> Filter:
    """The condition every request carries."""
    conditions: Any = [FieldCondition(key="tenant_id", match=MatchValue(tenant_id))]
    if states:
        conditions.append(FieldCondition(key="state", match=MatchAny([state.value for state in states])))
    return Filter(must=conditions)


def _read_cursor(cursor: str) -> uuid.UUID:
    try:
        return uuid.UUID(cursor)
    except ValueError as exc:
        raise ValueError("this cursor was not given out here") from exc
