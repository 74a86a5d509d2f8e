"""Search by a picture that is sent along."""

from __future__ import annotations

from starlette.datastructures import UploadFile
from starlette.requests import Request
from starlette.responses import Response

from embedder.index.protocol import CollectionSpec, Hits
from embedder.index.query import like
from embedder.query_embedder import QueueFullError
from query_api import params
from query_api.answers import JsonResponse, hits_of
from query_api.deps import Deps
from query_api.keys import Scope
from query_api.lookup import CurrentSpec, require_tenant
from query_api.openapi import answers, parameters
from query_api.operation import Operation
from query_api.threads import Threads
from streams.errors import DependencyError, QueryError


class Search:
    """`/v1/tenants/{tenant}/search/…`; `index` are threads for quick calls, `uploads` as many as may be in hand."""

    def __init__(self, deps: Deps, *, index: Threads, uploads: Threads, spec: CurrentSpec) -> None:
        self._searcher = deps.searcher
        self._embedder = deps.embedder
        self._limits = deps.limits
        self._clock = deps.clock
        self._index = index
        self._uploads = uploads
        self._spec = spec
        self._in_hand = 0

    def operations(self) -> list[Operation]:
        return [
            Operation("POST", "/v1/tenants/{tenant}/search/upload", "search_upload", self.upload, Scope.SEARCH, UPLOAD)
        ]

    async def upload(self, request: Request) -> Response:
        started = self._clock()
        params.only(request, {"limit"})
        tenant_id = params.tenant_of(request)
        limit = params.limit_of(request, default=params.DEFAULT_HITS, maximum=self._limits.max_hits)
        if self._in_hand >= self._limits.max_uploads:  # before the body is read: what waits takes no memory
            raise QueueFullError(f"{self._in_hand} query pictures are in hand: ask again in a moment")
        self._in_hand += 1
        try:
            hits, spec = await self._answer(request, tenant_id, limit)
        finally:
            self._in_hand -= 1
        took_s = self._clock() - started
        return JsonResponse(hits_of(hits, spec, took_s=took_s, request_id=request.state.request_id))

    async def _answer(self, request: Request, tenant_id: str, limit: int) -> tuple[Hits, CollectionSpec]:
        await self._index.run(lambda: require_tenant(self._searcher, tenant_id))
        data = await picture_of(request)
        return await self._uploads.run(lambda: self._search(tenant_id, data, limit))

    def _search(self, tenant_id: str, data: bytes, limit: int) -> tuple[Hits, CollectionSpec]:
        vector = self._embedder.embed(data)
        spec, ours = self._spec.get(), self._embedder.spec()
        if not ours.same_vectors(spec):
            raise DependencyError(
                "embedder",
                f"query pictures become vectors of {ours.name}, the collection holds {spec.name}: "
                "start the API with the model of the worker",
            )
        return self._searcher.search(tenant_id, like(vector, limit=limit)), spec


async def picture_of(request: Request) -> bytes:
    """The body itself, or the part named `file` of a form."""
    if not request.headers.get("content-type", "").lower().startswith("multipart/form-data"):
        return await request.body()
    async with request.form(max_files=1, max_fields=8) as form:
        part = form.get("file")
        if not isinstance(part, UploadFile):
            raise QueryError(400, "invalid_body", "the form has no file in a part named 'file'", field="file")
        return await part.read()


_BINARY = {"schema": {"type": "string", "format": "binary"}}
UPLOAD = {
    "summary": "The tenant's images most like the picture in the body",
    "parameters": parameters("tenant", "limit"),
    "requestBody": {
        "required": True,
        "content": {
            "image/*": _BINARY,
            "application/octet-stream": _BINARY,
            "multipart/form-data": {
                "schema": {
                    "type": "object",
                    "properties": {"file": {"type": "string", "format": "binary"}},
                    "required": ["file"],
                }
            },
        },
    },
    "responses": answers("best first", "Hits", 400, 404, 408, 413, 422, 429, 503, 504),
}
