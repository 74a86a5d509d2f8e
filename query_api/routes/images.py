"""What is known of a tenant's images, and which look like one of them."""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeVar

from starlette.requests import Request
from starlette.responses import Response

from embedder.index.points import Point, State
from embedder.index.protocol import CollectionSpec, Hits, Page
from embedder.index.query import like
from query_api import params
from query_api.answers import JsonResponse, hits_of, row_of, status_of
from query_api.deps import Deps
from query_api.keys import Scope
from query_api.lookup import CurrentSpec, refuse_not_indexed, require_image, require_tenant
from query_api.openapi import answers, parameters
from query_api.operation import Operation
from query_api.threads import Threads
from streams.errors import QueryError

T = TypeVar("T")


class Images:
    """The routes below `/v1/tenants/{tenant}/images` that answer JSON."""

    def __init__(self, deps: Deps, *, threads: Threads, spec: CurrentSpec) -> None:
        self._searcher = deps.searcher
        self._limits = deps.limits
        self._clock = deps.clock
        self._threads = threads
        self._spec = spec

    def operations(self) -> list[Operation]:
        images = "/v1/tenants/{tenant}/images"
        return [
            Operation("GET", images, "list", self.list, Scope.SEARCH, LIST),
            Operation("GET", images + "/{id}", "status", self.status, Scope.SEARCH, STATUS),
            Operation("GET", images + "/{id}/similar", "similar", self.similar, Scope.SEARCH, SIMILAR),
        ]

    async def list(self, request: Request) -> Response:
        params.only(request, {"limit", "cursor", "state"})
        tenant_id, states = params.tenant_of(request), params.states_of(request)
        limit = params.limit_of(request, default=params.DEFAULT_PAGE, maximum=self._limits.max_page)
        cursor = request.query_params.get("cursor")
        page = await self._run(lambda: self._page(tenant_id, limit, cursor, states))
        return JsonResponse({"images": [row_of(point) for point in page.points], "next_cursor": page.next_cursor})

    async def status(self, request: Request) -> Response:
        params.only(request, ())
        tenant_id, image_id = params.tenant_of(request), params.image_of(request)

        def look() -> tuple[Point, CollectionSpec]:
            return require_image(self._searcher, tenant_id, image_id), self._spec.get()

        point, spec = await self._run(look)
        return JsonResponse(status_of(point, spec))

    async def similar(self, request: Request) -> Response:
        started = self._clock()
        params.only(request, {"limit"})
        tenant_id, image_id = params.tenant_of(request), params.image_of(request)
        limit = params.limit_of(request, default=params.DEFAULT_HITS, maximum=self._limits.max_hits)

        def look() -> tuple[Hits, CollectionSpec]:
            return self._similar(tenant_id, image_id, limit), self._spec.get()

        hits, spec = await self._run(look)
        took_s = self._clock() - started
        return JsonResponse(hits_of(hits, spec, took_s=took_s, request_id=request.state.request_id))

    async def _run(self, look: Callable[[], T]) -> T:
        return await self._threads.run(look)

    def _page(self, tenant_id: str, limit: int, cursor: str | None, states: tuple[State, ...]) -> Page:
        try:
            page = self._searcher.list(tenant_id, limit=limit, cursor=cursor, states=states)
        except ValueError as exc:
            raise params.invalid("cursor", "cursor is not a next_cursor of this list") from exc
        if not page.points and cursor is None:
            require_tenant(self._searcher, tenant_id)
        return page

    def _similar(self, tenant_id: str, image_id: str, limit: int) -> Hits:
        try:
            return self._searcher.search(tenant_id, like(image_id, limit=limit))
        except QueryError as exc:
            if exc.code in ("image_not_found", "image_not_indexed"):
                refuse_not_indexed(require_image(self._searcher, tenant_id, image_id))
            raise


LIST = {
    "summary": "A page of the tenant's images",
    "parameters": parameters("tenant", "limit", "cursor", "state"),
    "responses": answers("a page in the index's own stable order", "ImageList", 400, 404, 503, 504),
}
STATUS = {
    "summary": "Where an image is, what failed, when, why, with which model",
    "parameters": parameters("tenant", "id"),
    "responses": answers("what the index holds of the image", "ImageStatus", 400, 404, 503, 504),
}
SIMILAR = {
    "summary": "The tenant's images most like one of them",
    "parameters": parameters("tenant", "id", "limit"),
    "responses": answers("best first, the image itself left out", "Hits", 400, 404, 409, 503, 504),
}
