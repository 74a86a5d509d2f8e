"""The worker's and the API's way to a server: connected late, and found again when it was away."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import Future

from embedder.index.filters import Filter
from embedder.index.points import Point, State, Write
from embedder.index.protocol import CollectionSpec, Facet, Hits, IndexStats, Page, Receipt, TenantStats
from embedder.index.qdrant_server.connect import Server
from embedder.index.qdrant_server.index import ServerIndex
from embedder.index.query import Query
from streams.errors import ConfigError, DependencyError, QueryError

ALIAS_AGE_S = 1.0
"""How long the alias is believed; a switch is followed within this time."""
FENCED_S = 600.0
"""A worker that cannot write for so long looks for its collection again, which lifts what a killed migration left.

One at work has its fence up for as long as the two are compared: half a minute for a million points.
"""


class ServerClient:
    """Writer, Searcher and Maintenance of a collection on a server. Thread-safe; nothing is connected here."""

    def __init__(
        self, server: Server, *, spec: CollectionSpec | None = None, clock: Callable[[], float] = time.monotonic
    ) -> None:
        """With `spec` the collection is made where it is not there; without it, what the alias means is asked."""
        self._server = server
        self._own = spec
        self._clock = clock
        self._lock = threading.Lock()
        self._known: tuple[float, ServerIndex] | None = None
        self._failing_since: float | None = None

    def _index(self) -> ServerIndex:
        with self._lock:
            known, now = self._known, self._clock()
            if known is not None and self._believed(known[0], now):
                return known[1]
            if self._own is None:
                index = self._server.current(known[1] if known is not None else None)
            else:
                index = self._ensured(self._own, again=known is not None)
            self._known = (now, index)
            return index

    def _believed(self, known_at_s: float, now_s: float) -> bool:
        if self._own is None:
            return now_s - known_at_s < ALIAS_AGE_S
        return self._failing_since is None or now_s - max(known_at_s, self._failing_since) < FENCED_S

    def _ensured(self, spec: CollectionSpec, *, again: bool) -> ServerIndex:
        try:
            return self._server.ensure(spec)
        except ConfigError as exc:
            if not again:
                raise
            # the events in flight are not to blame: they wait for a worker with the right settings
            raise DependencyError("index", f"{exc}, and start this worker again") from exc

    def _heard(self, error: BaseException | None) -> None:
        """How a write ended, or why a read failed: a fence lets reads through."""
        with self._lock:
            if error is None:
                self._failing_since = None
            elif isinstance(error, DependencyError) and self._failing_since is None:
                self._failing_since = self._clock()

    def ping(self) -> None:
        """Returns when the collection is there. DependencyError where the server does not answer."""
        self._index()

    def read(self, tenant_id: str, image_ids: Sequence[str]) -> list[Point | None]:
        index = self._index()
        try:
            return index.read(tenant_id, image_ids)
        except DependencyError as exc:
            self._heard(exc)
            raise

    def write(self, tenant_id: str, writes: Sequence[Write]) -> Future[Receipt]:
        future = self._index().write(tenant_id, writes)
        future.add_done_callback(lambda done: self._heard(done.exception()))
        return future

    def spec(self) -> CollectionSpec:
        return self._index().spec()

    def get(self, tenant_id: str, image_id: str) -> Point | None:
        return self._index().get(tenant_id, image_id)

    def search(self, tenant_id: str, query: Query) -> Hits:
        return self._index().search(tenant_id, query)

    def search_batch(self, tenant_id: str, queries: Sequence[Query]) -> Sequence[Hits | QueryError]:
        return self._index().search_batch(tenant_id, queries)

    def facet(self, tenant_id: str, field: str, *, filter: Filter | None = None, limit: int = 10) -> Facet:  # noqa: A002
        return self._index().facet(tenant_id, field, filter=filter, limit=limit)

    def list(
        self,
        tenant_id: str,
        *,
        limit: int,
        cursor: str | None = None,
        states: Sequence[State] = (),
        filter: Filter | None = None,  # noqa: A002
    ) -> Page:
        return self._index().list(tenant_id, limit=limit, cursor=cursor, states=states, filter=filter)

    def count(self, tenant_id: str) -> Mapping[State, int]:
        return self._index().count(tenant_id)

    def stats(self) -> IndexStats:
        return self._index().stats()

    def sample(self) -> tuple[str, str] | None:
        return self._index().sample()

    def tenant_stats(self, tenant_id: str) -> TenantStats:
        return self._index().tenant_stats(tenant_id)

    def sweep(self, before_us: int, *, limit: int) -> int:
        return self._index().sweep(before_us, limit=limit)

    def delete_tenant(self, tenant_id: str) -> int:
        return self._index().delete_tenant(tenant_id)

    def flush(self) -> None:
        self._index().flush()

    def close(self) -> None:
        """Let calls under way end, and hang up."""
        with self._lock:
            known, self._known = self._known, None
        if known is not None:
            known[1].close()
        else:
            self._server.client.close()
