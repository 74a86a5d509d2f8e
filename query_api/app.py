"""The API as a value: routes, middleware and lifespan, put together from what it stands on."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager

from starlette.applications import Starlette
from starlette.middleware import Middleware

from query_api.deps import Check, Deps
from query_api.errors import HANDLERS
from query_api.lookup import CurrentSpec
from query_api.metrics import QueryMetrics
from query_api.middleware.body_limit import BodyLimit
from query_api.middleware.context import RequestContext
from query_api.middleware.guard import LoopbackGuard
from query_api.openapi import document
from query_api.operation import Operation
from query_api.ready import Readiness
from query_api.routes.images import Images
from query_api.routes.page import Page
from query_api.routes.search import Search
from query_api.routes.system import System
from query_api.routes.thumbnails import Thumbnails
from query_api.threads import Threads
from streams.errors import Reason, RetryableError
from streams.event import Location

PROBE_KEY = ".lookalike-probe"
"""Never there: a store that says so answers."""


def create_app(deps: Deps) -> Starlette:
    """The application. Its lifespan starts and closes the embedder; everything else belongs to the caller."""
    limits = deps.limits
    # Sets of threads: slow thumbnails must not keep searches waiting, nor a dead dependency the checks.
    index = Threads(n_threads=limits.n_index_threads, max_waiting=limits.max_waiting, name="index")
    uploads = Threads(n_threads=limits.max_uploads, max_waiting=0, name="uploads")
    thumbnails = Threads(n_threads=limits.n_thumbnail_threads, max_waiting=limits.max_waiting, name="thumbnails")
    checks = Threads(n_threads=4, max_waiting=16, name="checks")
    spec = CurrentSpec(deps.searcher, deps.clock)
    readiness = Readiness(_checks(deps), optional={"embedder"}, threads=checks, clock=deps.clock)
    page = Page(default_tenant=deps.default_tenant, max_body_bytes=limits.max_body_bytes)
    operations: list[Operation] = [
        *Images(deps, threads=index, spec=spec).operations(),
        *Search(deps, index=index, uploads=uploads, spec=spec).operations(),
        *Thumbnails(deps, index=index, pictures=thumbnails).operations(),
        *page.operations(),
    ]
    operations += System(
        readiness=readiness, registry=deps.registry, document=lambda: document(operations)
    ).operations()
    app = Starlette(
        routes=[operation.route() for operation in (*operations, *page.assets())],
        middleware=[
            Middleware(RequestContext, metrics=QueryMetrics(deps.registry), clock=deps.clock),
            Middleware(LoopbackGuard),
            Middleware(BodyLimit, max_bytes=limits.max_body_bytes),
        ],
        exception_handlers=HANDLERS,
        lifespan=_lifespan(deps, (index, uploads, thumbnails, checks)),
    )
    app.router.redirect_slashes = False  # a redirect is an answer without the error body
    return app


def _lifespan(deps: Deps, threads: tuple[Threads, ...]) -> Callable[[Starlette], AbstractAsyncContextManager[None]]:
    @asynccontextmanager
    async def lifespan(_: Starlette) -> AsyncIterator[None]:
        deps.embedder.start()
        try:
            yield
        finally:
            deps.embedder.close()
            for some in threads:
                some.close()

    return lifespan


def _checks(deps: Deps) -> dict[str, Check]:
    def objects() -> None:
        try:
            deps.objects.head(Location(deps.bucket, PROBE_KEY))
        except RetryableError as exc:
            if exc.reason is not Reason.IMAGE_MISSING:
                raise

    return {"index": deps.searcher.spec, "objects": objects, "embedder": deps.embedder.check, **deps.checks}
