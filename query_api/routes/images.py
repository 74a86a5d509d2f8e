"""What is known of a tenant's images, and which look like one of them."""

from __future__ import annotations

from starlette.requests import Request
from starlette.responses import Response

from embedder.index.points import Point, State
from embedder.index.protocol import CollectionSpec, Page
from query_api import cursors, params
from query_api.answers import Json, answer, row_of, status_of
from query_api.deps import Deps
from query_api.filter_language import read_filter_text
from query_api.keys import Scope
from query_api.lookup import CurrentSpec, refuse_not_indexed, require_image, require_tenant
from query_api.openapi import answers, parameters
from query_api.operation import Operation
from query_api.queries import SearchBody, read_search
from query_api.threads import Threads
from streams.errors import QueryError


class Images:
    """The routes below `/v1/tenants/{tenant}/images` that only read."""

    def __init__(self, deps: Deps, *, threads: Threads, spec: CurrentSpec) -> None:
        self._searcher = deps.searcher
        self._limits = deps.limits
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
        params.only(request, {"limit", "cursor", "state", "filter"})
        tenant_id, states = params.tenant_of(request), params.states_of(request)
        limit = params.limit_of(request, default=params.DEFAULT_PAGE, maximum=self._limits.max_page)
        asked = request.query_params
        body, spec = await self._threads.run(
            lambda: self._page(tenant_id, limit, asked.get("cursor"), states, asked.get("filter"))
        )
        return answer(request, body, spec)

    async def status(self, request: Request) -> Response:
        params.only(request, ())
        tenant_id, image_id = params.tenant_of(request), params.image_of(request)

        def look() -> tuple[Point, CollectionSpec]:
            return require_image(self._searcher, tenant_id, image_id), self._spec.get()

        point, spec = await self._threads.run(look)
        return answer(request, status_of(point), spec)

    async def similar(self, request: Request) -> Response:
        params.only(request, {"limit", "cursor", "score_threshold", "fields"})
        tenant_id, image_id = params.tenant_of(request), params.image_of(request)
        body = SearchBody(
            positive=[image_id],
            score_threshold=params.threshold_of(request),
            limit=params.limit_of(request, default=params.DEFAULT_HITS, maximum=self._limits.max_hits),
            cursor=request.query_params.get("cursor"),
            fields=request.query_params.getlist("fields"),
        )
        hits, spec = await self._threads.run(lambda: self._similar(tenant_id, image_id, body))
        return answer(request, hits, spec)

    def _page(
        self, tenant_id: str, limit: int, cursor: str | None, states: tuple[State, ...], text: str | None
    ) -> tuple[Json, CollectionSpec]:
        spec = self._spec.get()
        condition = read_filter_text(text, spec.fields)
        question = cursors.bound_to("list", tenant_id, spec.name, sorted(states), condition)
        after = None if cursor is None else cursors.read(cursor, str, question)
        page: Page = self._searcher.list(tenant_id, limit=limit, cursor=after, states=states, filter=condition)
        if not page.points and cursor is None:
            require_tenant(self._searcher, tenant_id)
        following = None if page.next_cursor is None else cursors.write(page.next_cursor, question)
        return {"images": [row_of(point) for point in page.points], "next_cursor": following}, spec

    def _similar(self, tenant_id: str, image_id: str, body: SearchBody) -> tuple[Json, CollectionSpec]:
        spec = self._spec.get()
        asked = read_search(tenant_id, body, spec, max_hits=self._limits.max_hits)
        try:
            return asked.page(self._searcher.search(tenant_id, asked.query)), spec
        except QueryError as exc:
            if exc.code in ("image_not_found", "image_not_indexed"):
                refuse_not_indexed(require_image(self._searcher, tenant_id, image_id))
            raise


LIST = {
    "summary": "A page of the tenant's images",
    "parameters": parameters("tenant", "limit", "cursor", "state", "filter"),
    "responses": answers("a page in the index's own stable order", "ImageList", 400, 404, 503, 504),
}
STATUS = {
    "summary": "Where an image is, what failed, when, why, with which model",
    "parameters": parameters("tenant", "id"),
    "responses": answers("what the index holds of the image", "ImageStatus", 400, 404, 503, 504),
}
SIMILAR = {
    "summary": "The tenant's images most like one of them",
    "parameters": parameters("tenant", "id", "limit", "cursor", "score_threshold", "fields"),
    "responses": answers("best first, the image itself left out", "Hits", 400, 404, 409, 503, 504),
}
