"""The index in memory, compared row by row: the truth that every other index is held against."""

from __future__ import annotations

import heapq
import secrets
import threading
from collections import Counter
from collections.abc import Mapping, Sequence
from concurrent.futures import Future
from pathlib import Path

import numpy as np
import numpy.typing as npt

from embedder.index.exact_tenant import Tenant
from embedder.index.facets import most_frequent, values_of
from embedder.index.filters import Filter, check_filter, matches
from embedder.index.journal import Journal
from embedder.index.points import Point, PutVector, State, Sweep, Vector, Write, Written, apply, is_forgettable
from embedder.index.protocol import CollectionSpec, Facet, Hits, IndexStats, Page, Receipt, TenantStats
from embedder.index.query import (
    Query,
    check_part,
    check_query,
    each_answered,
    refuse_example,
    target,
    unit,
)
from embedder.models.vectors import unit_stack
from streams.errors import QueryError
from streams.event import now_us


class ExactIndex:
    """Writer, Searcher and Maintenance of one collection.

    With a `journal` everything applied is in that file and durable after :meth:`flush`; without one
    it lives as long as the process, which is what tests and benches want.
    """

    def __init__(self, spec: CollectionSpec, *, journal: Path | None = None) -> None:
        self._spec = spec
        self._tenants: dict[str, Tenant] = {}
        self._lock = threading.RLock()
        self._journal: Journal | None = None
        if journal is not None:
            self._journal = Journal(journal, replay=self._replay)

    # ---- Writer ------------------------------------------------------------------------------------

    def read(self, tenant_id: str, image_ids: Sequence[str]) -> list[Point | None]:
        with self._lock:
            points = self._points(tenant_id)
            return [points.get(image_id) for image_id in image_ids]

    def write(self, tenant_id: str, writes: Sequence[Write]) -> Future[Receipt]:
        done: Future[Receipt] = Future()
        receipt = Receipt(tuple(self.write_now(tenant_id, writes)), now_us())
        self.flush()
        done.set_result(receipt)
        return done

    def write_now(self, tenant_id: str, writes: Sequence[Write]) -> list[Written]:
        """Apply without waiting for durability: :meth:`flush` gives that for everything so far."""
        units = self._units(writes)
        with self._lock:
            if self._journal is not None:
                self._journal.append(tenant_id, writes)
            return self._apply(tenant_id, writes, units)

    def _units(self, writes: Sequence[Write]) -> npt.NDArray[np.float32]:
        """The vectors of these writes, in order, as rows of length 1."""
        return unit_stack([write.vector for write in writes if isinstance(write, PutVector)], self._spec.dim)

    def _apply(self, tenant_id: str, writes: Sequence[Write], units: npt.NDArray[np.float32]) -> list[Written]:
        tenant = self._tenants.get(tenant_id)
        if tenant is None:
            tenant = self._tenants[tenant_id] = Tenant(self._spec.dim, self._spec.fields)
        results = []
        n_vectors = 0
        put: dict[str, int] = {}
        """Whose row of `units` is to be stored: the last of an image's in this call."""
        for write in writes:
            change = apply(tenant_id, tenant.points.get(write.image_id), write)
            results.append(change.written)
            n_vectors += isinstance(write, PutVector)
            if not change.changed:
                continue
            if change.vector and change.point is not None:
                tenant.note(change.point)
                put[write.image_id] = n_vectors - 1
                continue
            if change.vector is False:
                put.pop(write.image_id, None)
                tenant.remove_vector(write.image_id)
            if change.point is None:
                tenant.forget(write.image_id)
            else:
                tenant.note(change.point)
        if put:
            tenant.put_vectors(put, units)
        return results

    def _replay(self, tenant_id: str, writes: Sequence[Write] | None) -> None:
        if writes is None:
            self._tenants.pop(tenant_id, None)
        else:
            self._apply(tenant_id, writes, self._units(writes))

    # ---- Searcher ----------------------------------------------------------------------------------

    def spec(self) -> CollectionSpec:
        return self._spec

    def get(self, tenant_id: str, image_id: str) -> Point | None:
        return self.read(tenant_id, [image_id])[0]

    def search(self, tenant_id: str, query: Query) -> Hits:
        check_query(query, dim=self._spec.dim, fields=self._spec.fields)
        with self._lock:
            tenant = self._tenants.get(tenant_id, Tenant(self._spec.dim, self._spec.fields))
            return Hits(tenant.search(_target(tenant, query), query), exact=True)

    def search_batch(self, tenant_id: str, queries: Sequence[Query]) -> list[Hits | QueryError]:
        return each_answered(lambda query: self.search(tenant_id, query), queries)

    def facet(self, tenant_id: str, field: str, *, filter: Filter | None = None, limit: int = 10) -> Facet:  # noqa: A002
        check_part(limit)
        check_filter(filter, self._spec.fields)
        values_of(field, None, self._spec.fields)  # refuses what has no facet, also where there is no point
        with self._lock:
            counted = Counter(
                value
                for point in self._points(tenant_id).values()
                if point.state is State.INDEXED and (filter is None or matches(filter, point, self._spec.fields))
                for value in values_of(field, point, self._spec.fields)
            )
        return Facet(most_frequent(counted, limit), complete=True)

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
        after = read_cursor(cursor)
        with self._lock:
            points = self._points(tenant_id)
            wanted = heapq.nsmallest(
                limit + 1,  # one more tells whether anything follows
                (
                    image_id
                    for image_id, point in points.items()
                    if image_id > after
                    and (not states or point.state in states)
                    and (filter is None or matches(filter, point, self._spec.fields))
                ),
            )
            page = tuple(points[image_id] for image_id in wanted[:limit])
        return Page(page, write_cursor(page[-1].image_id) if len(wanted) > limit else None)

    def count(self, tenant_id: str) -> Mapping[State, int]:
        with self._lock:
            found = Counter(point.state for point in self._points(tenant_id).values())
        return {state: found[state] for state in State}

    def _points(self, tenant_id: str) -> Mapping[str, Point]:
        tenant = self._tenants.get(tenant_id)
        return tenant.points if tenant is not None else {}

    # ---- Maintenance -------------------------------------------------------------------------------

    def stats(self) -> IndexStats:
        with self._lock:
            points = [point for tenant in self._tenants.values() for point in tenant.points.values()]
            tenants = sum(bool(tenant.points) for tenant in self._tenants.values())
        states = Counter(point.state for point in points)
        return IndexStats(
            "exact", self._spec.name, {state: states[state] for state in State}, _attempts(points), tenants
        )

    def sample(self) -> tuple[str, str] | None:
        with self._lock:
            found = [
                (tenant_id, image_id)
                for tenant_id, tenant in self._tenants.items()
                for image_id, point in tenant.points.items()
                if point.state is State.INDEXED
            ]
        return secrets.choice(found) if found else None

    def tenant_stats(self, tenant_id: str) -> TenantStats:
        with self._lock:
            points = list(self._points(tenant_id).values())
        return TenantStats(self._spec.name, self.count(tenant_id), _attempts(points))

    def delete_tenant(self, tenant_id: str) -> int:
        with self._lock:
            if self._journal is not None and tenant_id in self._tenants:
                self._journal.append_drop(tenant_id)
            tenant = self._tenants.pop(tenant_id, None)
            return 0 if tenant is None else len(tenant.points)

    def sweep(self, before_us: int, *, limit: int) -> int:
        with self._lock:
            old: dict[str, list[Write]] = {}
            n_old = 0
            for tenant_id, tenant in self._tenants.items():
                for image_id, point in tenant.points.items():
                    if n_old < limit and is_forgettable(point, before_us=before_us):
                        old.setdefault(tenant_id, []).append(Sweep(image_id, before_us))
                        n_old += 1
            for tenant_id, writes in old.items():
                self.write_now(tenant_id, writes)
            return n_old

    def flush(self) -> None:
        with self._lock:
            if self._journal is not None:
                self._journal.flush()

    def waiting(self) -> int:
        return 0

    def busy(self) -> bool:
        return False

    def held(self) -> bool:
        return False

    def optimise_soon(self) -> None:
        """There is no graph to build."""

    def maintain(self, *, idle_s: float) -> None:
        """Nothing to keep in order."""

    def close(self) -> None:
        """Flush, and close the journal."""
        with self._lock:
            if self._journal is not None:
                self._journal.close()


def _target(tenant: Tenant, query: Query) -> Vector:
    def vector_of(example: str | Vector) -> Vector:
        if not isinstance(example, str):
            return unit(example)
        stored = tenant.vector(example)
        if stored is None:
            raise refuse_example(example, tenant.points.get(example))
        return stored

    return target([vector_of(one) for one in query.positive], [vector_of(one) for one in query.negative])


def _attempts(points: Sequence[Point]) -> dict[str, int]:
    return dict(Counter(point.attempt.state.value for point in points if point.attempt is not None))


def write_cursor(image_id: str) -> str:
    """A cursor that goes on behind `image_id`."""
    return "a" + image_id


def read_cursor(cursor: str | None) -> str:
    """The image id to go on behind, "" for the start; ValueError for what :func:`write_cursor` never gave."""
    if cursor is None:
        return ""
    if not cursor.startswith("a") or len(cursor) < 2:
        raise ValueError("this cursor was not given out here")
    return cursor[1:]
