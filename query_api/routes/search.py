"""Search: by examples, several searches at once, and by a picture that is sent along."""

from __future__ import annotations

from dataclasses import replace

from starlette.requests import Request
from starlette.responses import Response

from embedder.index.protocol import CollectionSpec, Hits
from embedder.index.query import Query
from query_api import params
from query_api.answers import Json, answer, hit_of
from query_api.bodies import json_body, picture_of
from query_api.deps import Deps
from query_api.errors import problem_of
from query_api.filter_language import read_filter_text
from query_api.keys import Scope
from query_api.lookup import CurrentSpec, require_tenant
from query_api.middleware.access import Gate
from query_api.openapi import answers, binary_body, json_request, parameters
from query_api.operation import Operation
from query_api.queries import Asked, BatchBody, SearchBody, invalid, read_fields, read_search
from query_api.threads import Slots, Threads
from streams.errors import DependencyError, QueryError


class Search:
    """`/v1/tenants/{tenant}/search…`; `index` are threads for quick calls, `uploads` as many as may be in hand."""

    def __init__(self, deps: Deps, *, index: Threads, uploads: Threads, spec: CurrentSpec, gate: Gate) -> None:
        self._searcher = deps.searcher
        self._embedder = deps.embedder
        self._limits = deps.limits
        self._index = index
        self._uploads = uploads
        self._slots = Slots(deps.limits.max_uploads, "query pictures")
        self._spec = spec
        self._gate = gate

    def operations(self) -> list[Operation]:
        search = "/v1/tenants/{tenant}/search"
        return [
            Operation("POST", search, "search", self.search, Scope.SEARCH, SEARCH),
            Operation("POST", search + "/batch", "search_batch", self.batch, Scope.SEARCH, BATCH),
            Operation("POST", search + "/upload", "search_upload", self.upload, Scope.SEARCH, UPLOAD),
        ]

    async def search(self, request: Request) -> Response:
        params.only(request, ())
        tenant_id = params.tenant_of(request)
        body = await json_body(request, SearchBody, max_bytes=self._limits.max_json_bytes)
        hits, spec = await self._index.run(lambda: self._search(tenant_id, body))
        return answer(request, hits, spec)

    async def batch(self, request: Request) -> Response:
        params.only(request, ())
        tenant_id = params.tenant_of(request)
        body = await json_body(request, BatchBody, max_bytes=self._limits.max_json_bytes)
        if not 1 <= len(body.searches) <= self._limits.max_batch:
            raise invalid("searches", f"a batch has 1 to {self._limits.max_batch} searches")
        self._gate.charge(request, len(body.searches))
        results, spec = await self._index.run(lambda: self._batch(tenant_id, body))
        return answer(request, {"results": results}, spec)

    async def upload(self, request: Request) -> Response:
        params.only(request, {"limit", "score_threshold", "fields", "filter"})
        tenant_id = params.tenant_of(request)
        limit = params.limit_of(request, default=params.DEFAULT_HITS, maximum=self._limits.max_hits)
        threshold, asked = params.threshold_of(request), request.query_params
        fields = read_fields(asked.getlist("fields"))
        with self._slots.take():  # before the body is read: what waits takes no memory
            await self._index.run(lambda: require_tenant(self._searcher, tenant_id))
            picture = await picture_of(request)
            query = Query((), score_threshold=threshold, limit=limit, with_points=bool(fields))
            hits, spec = await self._uploads.run(
                lambda: self._by_picture(tenant_id, picture.data, query, asked.get("filter"))
            )
        body = {"hits": [hit_of(hit, fields) for hit in hits.hits], "exact": hits.exact, "next_cursor": None}
        return answer(request, body, spec)

    def _search(self, tenant_id: str, body: SearchBody) -> tuple[Json, CollectionSpec]:
        spec = self._spec.get()
        asked = read_search(tenant_id, body, spec, max_hits=self._limits.max_hits)
        try:
            hits = self._searcher.search(tenant_id, asked.query)
        except QueryError as exc:
            if exc.status == 404:
                require_tenant(self._searcher, tenant_id)
            raise
        if not hits.hits:
            require_tenant(self._searcher, tenant_id)
        return asked.page(hits), spec

    def _batch(self, tenant_id: str, body: BatchBody) -> tuple[list[Json], CollectionSpec]:
        spec = self._spec.get()
        asked = [
            read_search(tenant_id, one, spec, max_hits=self._limits.max_hits, at=f"searches.{i}.")
            for i, one in enumerate(body.searches)
        ]
        found = self._searcher.search_batch(tenant_id, [one.query for one in asked])
        if not any(isinstance(one, Hits) and one.hits for one in found):
            require_tenant(self._searcher, tenant_id)
        return [_result(one, of, i) for i, (one, of) in enumerate(zip(found, asked, strict=True))], spec

    def _by_picture(self, tenant_id: str, data: bytes, query: Query, text: str | None) -> tuple[Hits, CollectionSpec]:
        spec = self._spec.get()
        condition = read_filter_text(text, spec.fields)
        vector, ours = self._embedder.embed(data), self._embedder.spec()
        if not ours.same_vectors(spec):
            raise DependencyError(
                "embedder",
                f"query pictures become vectors of {ours.name}, the collection holds {spec.name}: "
                "start the API with the model of the worker",
            )
        return self._searcher.search(tenant_id, replace(query, positive=(vector,), filter=condition)), spec


def _result(found: Hits | QueryError, asked: Asked, number: int) -> Json:
    if isinstance(found, Hits):
        return asked.page(found)
    problem = problem_of(found)
    field = f"searches.{number}" + (f".{problem.field}" if problem.field else "")
    return {"error": {"code": problem.code, "message": problem.message, "field": field}}


SEARCH = {
    "summary": "The tenant's images most like examples, least like others, within a filter",
    "parameters": parameters("tenant"),
    "requestBody": json_request("Search"),
    "responses": answers("best first, examples left out", "Hits", 400, 404, 408, 409, 413, 415, 422, 503, 504),
}
BATCH = {
    "summary": "Several searches in one round trip",
    "parameters": parameters("tenant"),
    "requestBody": json_request("SearchBatch"),
    "responses": answers(
        "one result per search, in order; an example that is not there spoils its own search only",
        "BatchResults",
        *(400, 404, 408, 413, 415, 503, 504),
    ),
}
UPLOAD = {
    "summary": "The tenant's images most like the picture in the body",
    "parameters": parameters("tenant", "limit", "score_threshold", "fields", "filter"),
    "requestBody": binary_body(),
    "responses": answers("best first", "Hits", 400, 404, 408, 413, 415, 422, 429, 503, 504),
}
