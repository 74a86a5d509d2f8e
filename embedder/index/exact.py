"""The index in memory, compared row by row: the truth that every other index is held against."""

from __future__ import annotations

import heapq
import threading
from collections import Counter
from collections.abc import Mapping, Sequence
from concurrent.futures import Future
from pathlib import Path

import numpy as np
import numpy.typing as npt

from embedder.index.journal import Journal
from embedder.index.points import Point, PutVector, State, Sweep, Vector, Write, Written, apply, is_forgettable
from embedder.index.policy import check_limit
from embedder.index.protocol import CollectionSpec, Hit, Hits, IndexStats, Page, Receipt
from embedder.models.vectors import check_vector, check_vectors, unit_rows
from streams.event import now_us

_FIRST_ROWS = 8


class _Tenant:
    """One tenant's points, and its vectors as rows of one growing matrix; freed rows are used again."""

    def __init__(self, dim: int) -> None:
        self.points: dict[str, Point] = {}
        self.rows: dict[str, int] = {}
        self.names: list[str | None] = []
        self.matrix: npt.NDArray[np.float32] = np.zeros((_FIRST_ROWS, dim), np.float32)
        self._free: list[int] = []

    def put_many(self, vectors: Mapping[str, Vector]) -> None:
        rows = [self._row(image_id) for image_id in vectors]
        self.matrix[rows] = unit_rows(np.stack(list(vectors.values())))

    def _row(self, image_id: str) -> int:
        row = self.rows.get(image_id)
        if row is None:
            row = self.rows[image_id] = self._new_row()
            self.names[row] = image_id
        return row

    def remove(self, image_id: str) -> None:
        row = self.rows.pop(image_id, None)
        if row is not None:
            self.matrix[row] = 0
            self.names[row] = None
            self._free.append(row)

    def search(self, vector: Vector, *, limit: int, without: str | None = None) -> tuple[Hit, ...]:
        """The best `limit` rows; equal scores in the order of their names, also where the limit cuts."""
        used = len(self.names)
        scores = (self.matrix[:used] @ vector).clip(-1.0, 1.0)  # rounding reaches beyond a cosine's range
        scores[self._free] = -np.inf
        wanted = limit + 1  # the image itself falls out below
        if wanted < used:
            best = np.flatnonzero(scores >= np.partition(scores, used - wanted)[used - wanted])
        else:
            best = np.arange(used)
        found = sorted((-float(scores[row]), name) for row in best if (name := self.names[row]) is not None)
        return tuple(Hit(name, -score) for score, name in found if name != without)[:limit]

    def _new_row(self) -> int:
        if self._free:
            return self._free.pop()
        if len(self.names) == len(self.matrix):
            grown = np.empty((2 * len(self.matrix), self.matrix.shape[1]), np.float32)  # pages nobody uses cost nothing
            grown[: len(self.matrix)] = self.matrix
            self.matrix = grown
        self.names.append(None)
        return len(self.names) - 1


class ExactIndex:
    """Writer, Searcher and Maintenance of one collection.

    With a `journal` everything applied is in that file and durable after :meth:`flush`; without one
    it lives as long as the process, which is what tests and benches want.
    """

    def __init__(self, spec: CollectionSpec, *, journal: Path | None = None) -> None:
        self._spec = spec
        self._tenants: dict[str, _Tenant] = {}
        self._lock = threading.RLock()
        self._journal: Journal | None = None
        if journal is not None:
            self._journal = Journal(journal, replay=lambda tenant_id, write: self._apply(tenant_id, [write]))

    # ---- Writer ------------------------------------------------------------------------------------

    def read(self, tenant_id: str, image_ids: Sequence[str]) -> list[Point | None]:
        with self._lock:
            tenant = self._tenants.get(tenant_id)
            return [tenant.points.get(image_id) if tenant else None for image_id in image_ids]

    def write(self, tenant_id: str, writes: Sequence[Write]) -> Future[Receipt]:
        done: Future[Receipt] = Future()
        receipt = Receipt(tuple(self.write_now(tenant_id, writes)), now_us())
        self.flush()
        done.set_result(receipt)
        return done

    def write_now(self, tenant_id: str, writes: Sequence[Write]) -> list[Written]:
        """Apply without waiting for durability: :meth:`flush` gives that for everything so far."""
        check_vectors([write.vector for write in writes if isinstance(write, PutVector)], self._spec.dim)
        with self._lock:
            if self._journal is not None:
                self._journal.append(tenant_id, writes)
            return self._apply(tenant_id, writes)

    def _apply(self, tenant_id: str, writes: Sequence[Write]) -> list[Written]:
        tenant = self._tenants.get(tenant_id)
        if tenant is None:
            tenant = self._tenants[tenant_id] = _Tenant(self._spec.dim)
        results = []
        vectors: dict[str, Vector] = {}
        for write in writes:
            change = apply(tenant_id, tenant.points.get(write.image_id), write)
            results.append(change.written)
            if not change.changed:
                continue
            if change.point is None:
                del tenant.points[write.image_id]
            else:
                tenant.points[write.image_id] = change.point
            if change.vector and isinstance(write, PutVector):
                vectors[write.image_id] = write.vector
            elif change.vector is False:
                vectors.pop(write.image_id, None)
                tenant.remove(write.image_id)
        if vectors:
            tenant.put_many(vectors)
        return results

    # ---- Searcher ----------------------------------------------------------------------------------

    def spec(self) -> CollectionSpec:
        return self._spec

    def get(self, tenant_id: str, image_id: str) -> Point | None:
        return self.read(tenant_id, [image_id])[0]

    def similar(self, tenant_id: str, image_id: str, *, limit: int) -> Hits | None:
        check_limit(limit)
        with self._lock:
            tenant = self._tenants.get(tenant_id)
            row = tenant.rows.get(image_id) if tenant else None
            if tenant is None or row is None:
                return None
            return Hits(tenant.search(tenant.matrix[row], limit=limit, without=image_id), exact=True)

    def search(self, tenant_id: str, vector: Vector, *, limit: int) -> Hits:
        check_limit(limit)
        check_vector(vector, self._spec.dim)
        unit = vector / np.linalg.norm(vector)
        with self._lock:
            tenant = self._tenants.get(tenant_id)
            return Hits(tenant.search(unit, limit=limit) if tenant else (), exact=True)

    def list(self, tenant_id: str, *, limit: int, cursor: str | None = None, states: Sequence[State] = ()) -> Page:
        check_limit(limit)
        after = read_cursor(cursor)
        with self._lock:
            tenant = self._tenants.get(tenant_id)
            points = tenant.points if tenant else {}
            wanted = heapq.nsmallest(
                limit + 1,  # one more tells whether anything follows
                (
                    image_id
                    for image_id, point in points.items()
                    if image_id > after and (not states or point.state in states)
                ),
            )
            page = tuple(points[image_id] for image_id in wanted[:limit])
        return Page(page, write_cursor(page[-1].image_id) if len(wanted) > limit else None)

    def count(self, tenant_id: str) -> Mapping[State, int]:
        with self._lock:
            tenant = self._tenants.get(tenant_id)
            found = Counter(point.state for point in tenant.points.values()) if tenant else Counter()
        return {state: found[state] for state in State}

    # ---- Maintenance -------------------------------------------------------------------------------

    def stats(self) -> IndexStats:
        with self._lock:
            points = [point for tenant in self._tenants.values() for point in tenant.points.values()]
            tenants = sum(bool(tenant.points) for tenant in self._tenants.values())
        states = Counter(point.state for point in points)
        attempts = Counter(point.attempt.state.value for point in points if point.attempt is not None)
        return IndexStats("exact", self._spec.name, {state: states[state] for state in State}, dict(attempts), tenants)

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

    def maintain(self, *, idle_s: float) -> None:
        """Nothing to keep in order."""

    def close(self) -> None:
        """Flush, and close the journal."""
        with self._lock:
            if self._journal is not None:
                self._journal.close()


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
