"""A Qdrant server as the index: one collection behind an alias, for any number of workers and APIs."""

from __future__ import annotations

import uuid
from collections.abc import Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any

import numpy as np
from qdrant_client import QdrantClient, models

from embedder.index.facets import TAGS, from_keywords, most_frequent, prefix_of
from embedder.index.filters import Filter, check_filter
from embedder.index.payload import REVISION, from_payload
from embedder.index.points import Point, PutVector, State, Vector, Write, point_id
from embedder.index.policy import APPROXIMATE, EXACT, Policy, server_policy
from embedder.index.protocol import CollectionSpec, Facet, Hit, Hits, IndexStats, Page, Receipt, TenantStats
from embedder.index.qdrant_server.conditions import any_tenant, conditions
from embedder.index.qdrant_server.schema import MAX_TENANTS, VECTOR
from embedder.index.qdrant_server.sweep import sweep
from embedder.index.qdrant_server.transport import Transport, asked
from embedder.index.qdrant_server.writes import write_all
from embedder.index.query import Query, answered, check_part, check_query, refuse_example, target, unit
from embedder.models.vectors import check_vector
from streams.errors import QueryError
from streams.event import now_us

FACET_FIRST, FACET_MOST = 200, 20_000
"""Values of all attributes lie in one field, the most frequent come first: so many are looked through."""
WRITERS = 4
"""Calls under way at once: one waits for the server while another is being encoded."""


class ServerIndex:
    """Writer, Searcher and Maintenance of one collection. Thread-safe.

    A write waits until the server has applied it and has it in its log; where and when that is on a disk
    is the server's matter (`flush_interval_sec`, replicas), so :meth:`flush` has nothing to do.
    """

    def __init__(
        self, client: QdrantClient, transport: Transport, spec: CollectionSpec, *, name: str | None = None
    ) -> None:
        """`name` is the one it has on the server, where a migration has made it another than the spec's."""
        self._client = client
        self._transport = transport
        self._spec = spec
        self.name = spec.name if name is None else name
        self._writers = ThreadPoolExecutor(WRITERS, thread_name_prefix="index-write")

    # ---- Writer ------------------------------------------------------------------------------------

    def read(self, tenant_id: str, image_ids: Sequence[str]) -> list[Point | None]:
        ids = [str(point_id(tenant_id, image_id)) for image_id in image_ids]
        payloads = self._transport.get(list(dict.fromkeys(ids)))
        points = (None if number not in payloads else from_payload(payloads[number]) for number in ids)
        return [point if point is not None and point.tenant_id == tenant_id else None for point in points]

    def write(self, tenant_id: str, writes: Sequence[Write]) -> Future[Receipt]:
        for write in writes:
            if isinstance(write, PutVector):
                check_vector(write.vector, self._spec.dim)
        return self._writers.submit(self._write, tenant_id, tuple(writes))

    def _write(self, tenant_id: str, writes: Sequence[Write]) -> Receipt:
        return Receipt(tuple(write_all(self._transport, tenant_id, writes, self._spec.fields)), now_us())

    # ---- Searcher ----------------------------------------------------------------------------------

    def spec(self) -> CollectionSpec:
        return self._spec

    def get(self, tenant_id: str, image_id: str) -> Point | None:
        return self.read(tenant_id, [image_id])[0]

    def search(self, tenant_id: str, query: Query) -> Hits:
        request, policy = self._request(tenant_id, query)
        with asked():
            (found,) = self._client.query_batch_points(self.name, [request])
        return _hits(found.points, query, policy)

    def search_batch(self, tenant_id: str, queries: Sequence[Query]) -> list[Hits | QueryError]:
        ready = [answered(lambda query: self._request(tenant_id, query), query) for query in queries]
        requests = [one[0] for one in ready if not isinstance(one, QueryError)]
        with asked():
            found = iter(self._client.query_batch_points(self.name, requests) if requests else ())
        return [
            one if isinstance(one, QueryError) else _hits(next(found).points, query, one[1])
            for one, query in zip(ready, queries, strict=True)
        ]

    def _request(self, tenant_id: str, query: Query) -> tuple[models.QueryRequest, Policy]:
        check_query(query, dim=self._spec.dim, fields=self._spec.fields)
        named = self._vectors(tenant_id, query.named)
        positive = [named[one] if isinstance(one, str) else unit(one) for one in query.positive]
        negative = [named[one] if isinstance(one, str) else unit(one) for one in query.negative]
        allowed = conditions(tenant_id, self._spec.fields, query.filter)
        policy = EXACT if query.exact else APPROXIMATE
        if query.filter is not None and not query.exact:  # a whole tenant is safe either way: nothing to ask for
            with asked():
                estimated = self._client.count(self.name, allowed, exact=False).count
            policy = server_policy(estimated, filtered=True)
        request = models.QueryRequest(
            query=target(positive, negative).tolist(),
            using=VECTOR,
            filter=allowed,
            params=_params(policy),
            limit=query.reach + len(query.named),  # those fall out
            with_payload=True if query.with_points else ["image_id"],
        )
        return request, policy

    def _vectors(self, tenant_id: str, image_ids: Sequence[str]) -> dict[str, Vector]:
        """The vectors of the tenant's own images; the server itself would take another tenant's id."""
        if not image_ids:
            return {}
        ids = {str(point_id(tenant_id, image_id)): image_id for image_id in image_ids}
        with asked():
            records = self._client.retrieve(self.name, list(ids), with_payload=True, with_vectors=[VECTOR])
        found: dict[str, Vector] = {}
        points: dict[str, Point] = {}
        for record in records:
            point = from_payload(record.payload or {})
            if point.tenant_id != tenant_id:
                continue
            points[point.image_id] = point
            vectors: Any = record.vector
            if vectors and VECTOR in vectors:
                found[point.image_id] = unit(np.asarray(vectors[VECTOR], np.float32))
        for image_id in image_ids:
            if image_id not in found:
                raise refuse_example(image_id, points.get(image_id))
        return found

    def facet(self, tenant_id: str, field: str, *, filter: Filter | None = None, limit: int = 10) -> Facet:  # noqa: A002
        check_part(limit)
        check_filter(filter, self._spec.fields)
        prefix_of(field, self._spec.fields)
        allowed = conditions(tenant_id, self._spec.fields, filter, states=(State.INDEXED,))
        key, asked_for = ("tags", limit + 1) if field == TAGS else ("kv", FACET_FIRST)
        while True:
            counts = self._facet(key, allowed, limit=asked_for)
            values = from_keywords(field, counts, self._spec.fields)
            complete = len(counts) < asked_for or len(values) > limit
            if complete or asked_for >= FACET_MOST:
                return Facet(most_frequent(values, limit), complete)
            asked_for = min(asked_for * 10, FACET_MOST)

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
        offset = None if cursor is None else read_cursor(cursor)
        allowed = conditions(tenant_id, self._spec.fields, filter, states=states)
        with asked():
            records, following = self._client.scroll(
                self.name, scroll_filter=allowed, limit=limit, offset=offset, with_payload=True
            )
        points = tuple(from_payload(record.payload or {}) for record in records)
        return Page(points, None if following is None else str(following))

    def count(self, tenant_id: str) -> Mapping[State, int]:
        return self._by_state(conditions(tenant_id))

    # ---- Maintenance -------------------------------------------------------------------------------

    def stats(self) -> IndexStats:
        attempts = self._facet("attempt.state", None, limit=10)
        tenants = self._facet("tenant_id", None, limit=MAX_TENANTS)
        return IndexStats("qdrant", self.name, self._by_state(None), attempts, len(tenants))

    def sample(self) -> tuple[str, str] | None:
        with asked():
            found, _ = self._client.scroll(
                self.name,
                scroll_filter=any_tenant(State.INDEXED),
                limit=1,
                offset=str(uuid.uuid4()),
                with_payload=True,
            )
            if not found:  # behind the last id begins the first
                found, _ = self._client.scroll(
                    self.name, scroll_filter=any_tenant(State.INDEXED), limit=1, with_payload=True
                )
        if not found:
            return None
        point = from_payload(found[0].payload or {})
        return point.tenant_id, point.image_id

    def tenant_stats(self, tenant_id: str) -> TenantStats:
        attempts = self._facet("attempt.state", conditions(tenant_id), limit=10)
        return TenantStats(self.name, self.count(tenant_id), attempts)

    def delete_tenant(self, tenant_id: str) -> int:
        own = conditions(tenant_id)
        with asked():
            n = self._client.count(self.name, own, exact=True).count
            self._client.delete(self.name, points_selector=models.FilterSelector(filter=own), wait=True)
        return n

    def sweep(self, before_us: int, *, limit: int) -> int:
        return sweep(self._client, self._transport, self.name, self._spec.fields, before_us=before_us, limit=limit)

    def flush(self) -> None:
        """Every write has waited for the server already."""

    def close(self) -> None:
        """Let calls under way end, and hang up."""
        self._writers.shutdown()
        self._client.close()

    def _by_state(self, own: models.Filter | None) -> dict[State, int]:
        found = self._facet("state", own, limit=len(State))
        return {state: found.get(state.value, 0) for state in State}

    def _facet(self, key: str, own: models.Filter | None, *, limit: int) -> dict[str, int]:
        with asked():
            found = self._client.facet(self.name, key, facet_filter=own, limit=limit, exact=True)
        return {str(hit.value): hit.count for hit in found.hits}


def _params(policy: Policy) -> models.SearchParams:
    if policy.exact:
        return models.SearchParams(exact=True)
    rescored = models.QuantizationSearchParams(rescore=True, oversampling=policy.oversampling)
    return models.SearchParams(hnsw_ef=policy.hnsw_ef, quantization=rescored)


def _hits(found: Sequence[models.ScoredPoint], query: Query, policy: Policy) -> Hits:
    hits = sorted((_hit(one, query) for one in found), key=lambda hit: (-hit.score, hit.image_id))
    lowest = -1.0 if query.score_threshold is None else query.score_threshold
    kept = [hit for hit in hits if hit.image_id not in query.named and hit.score >= lowest]
    return Hits(tuple(kept[query.offset : query.reach]), policy.exact)


def _hit(found: models.ScoredPoint, query: Query) -> Hit:
    payload = {name: value for name, value in (found.payload or {}).items() if name != REVISION}
    point = from_payload(payload) if query.with_points else None
    return Hit(str(payload["image_id"]), max(-1.0, min(1.0, float(found.score))), point)


def read_cursor(cursor: str) -> str:
    """The id of the point to go on with; ValueError for what was not given out here."""
    try:
        return str(uuid.UUID(cursor))
    except ValueError as exc:
        raise ValueError("this cursor was not given out here") from exc
