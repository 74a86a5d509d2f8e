"""The API as a value: routes, middleware and lifespan, put together from what it stands on."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from dataclasses import dataclass

from starlette.applications import Starlette
from starlette.middleware import Middleware

from query_api.deps import Check, Deps, Limits
from query_api.errors import HANDLERS
from query_api.lookup import CurrentSpec
from query_api.loop_lag import LoopLag
from query_api.metrics import QueryMetrics
from query_api.middleware.access import OPEN, AccessKeys, Gate
from query_api.middleware.body_limit import BodyLimit
from query_api.middleware.context import RequestContext
from query_api.middleware.deadline import Deadline
from query_api.middleware.guard import LoopbackGuard
from query_api.openapi import document
from query_api.operation import Operation
from query_api.rate import RateLimit
from query_api.ready import Readiness
from query_api.routes.changes import Changes
from query_api.routes.facets import Facets
from query_api.routes.images import Images
from query_api.routes.page import Page
from query_api.routes.search import Search
from query_api.routes.system import System
from query_api.routes.thumbnails import Thumbnails
from query_api.threads import Threads
from query_api.thumbnail_store import ThumbnailStore


def create_app(deps: Deps) -> Starlette:
    """The application. Its lifespan starts and closes embedder and keys; everything else belongs to the caller."""
    limits = deps.limits
    rooms = Rooms.of(limits)
    rate = None if limits.rate_per_s is None else RateLimit(per_s=limits.rate_per_s, clock=deps.clock)
    gate = Gate(has_keys=deps.keys is not None, rate=rate)
    loop_lag, metrics = LoopLag(), QueryMetrics(deps.registry)
    metrics.tell_loop_lag(lambda: loop_lag.worst_s)
    page = Page(default_tenant=deps.default_tenant, max_body_bytes=limits.max_body_bytes)
    operations = _about_tenants(deps, rooms, gate)
    if deps.keys is None:  # it sends no key: it is for this machine's own user
        operations += page.operations()
    operations += System(
        readiness=Readiness(_checks(deps), optional={"embedder", "keys"}, threads=rooms.checks, clock=deps.clock),
        registry=deps.registry,
        gate=gate,
        document=lambda: document(operations, has_keys=deps.keys is not None),
        loop_lag=loop_lag,
    ).operations()
    assets = page.assets() if deps.keys is None else []
    who = Middleware(LoopbackGuard)
    if deps.keys is not None:
        who = Middleware(AccessKeys, find=deps.keys.find, rate=rate, open_paths=OPEN)
    app = Starlette(
        routes=[operation.route(gate) for operation in (*operations, *assets)],
        middleware=[
            Middleware(RequestContext, metrics=metrics, clock=deps.clock),
            who,
            Middleware(Deadline, deadline_s=limits.deadline_s),
            Middleware(BodyLimit, max_bytes=limits.max_body_bytes),
        ],
        exception_handlers=HANDLERS,
        lifespan=_lifespan(deps, rooms, loop_lag),
    )
    app.router.redirect_slashes = False  # a redirect is an answer without the error body
    return app


@dataclass(frozen=True, slots=True)
class Rooms:
    """Sets of threads: slow thumbnails must not keep searches waiting, nor a dead dependency the checks."""

    index: Threads
    uploads: Threads
    thumbnails: Threads
    changes: Threads
    checks: Threads

    @classmethod
    def of(cls, limits: Limits) -> Rooms:
        """As many threads in each as the limits say."""
        waiting = limits.max_waiting
        return cls(
            index=Threads(n_threads=limits.n_index_threads, max_waiting=waiting, name="index"),
            uploads=Threads(n_threads=limits.max_uploads, max_waiting=0, name="uploads"),
            thumbnails=Threads(n_threads=limits.n_thumbnail_threads, max_waiting=waiting, name="thumbnails"),
            changes=Threads(n_threads=limits.n_change_threads, max_waiting=waiting, name="changes"),
            checks=Threads(n_threads=4, max_waiting=16, name="checks"),
        )

    def close(self) -> None:
        """Idle threads end now, busy ones after their call."""
        for room in (self.index, self.uploads, self.thumbnails, self.changes, self.checks):
            room.close()


def _about_tenants(deps: Deps, rooms: Rooms, gate: Gate) -> list[Operation]:
    """Everything below `/v1/tenants/{tenant}`."""
    spec = CurrentSpec(deps.searcher, deps.clock)
    kept = ThumbnailStore(deps.objects, deps.places)
    return [
        *Images(deps, threads=rooms.index, spec=spec).operations(),
        *Search(deps, index=rooms.index, uploads=rooms.uploads, spec=spec, gate=gate).operations(),
        *Facets(deps, threads=rooms.index, spec=spec).operations(),
        *Changes(deps, threads=rooms.changes, spec=spec, thumbnails=kept).operations(),
        *Thumbnails(deps, index=rooms.index, pictures=rooms.thumbnails, kept=kept).operations(),
    ]


def _lifespan(deps: Deps, rooms: Rooms, loop_lag: LoopLag) -> Callable[[Starlette], AbstractAsyncContextManager[None]]:
    @asynccontextmanager
    async def lifespan(_: Starlette) -> AsyncIterator[None]:
        deps.embedder.start()
        if deps.keys is not None:
            deps.keys.start()
        try:
            async with loop_lag.watching():
                yield
        finally:
            deps.embedder.close()
            if deps.keys is not None:
                deps.keys.close()
            rooms.close()

    return lifespan


def _checks(deps: Deps) -> dict[str, Check]:
    def objects() -> None:
        deps.objects.check(deps.bucket)

    keys = {} if deps.keys is None else {"keys": deps.keys.check}
    return {"index": deps.searcher.spec, "objects": objects, "embedder": deps.embedder.check, **keys, **deps.checks}
