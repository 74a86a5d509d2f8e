"""How often values occur among a tenant's indexed images."""

from __future__ import annotations

import re

from starlette.requests import Request
from starlette.responses import Response

from embedder.index.fields import kinds
from embedder.index.protocol import CollectionSpec, Facet
from query_api import params
from query_api.answers import answer
from query_api.deps import Deps
from query_api.filter_language import read_filter_text
from query_api.keys import Scope
from query_api.lookup import CurrentSpec, require_tenant
from query_api.openapi import answers, parameters
from query_api.operation import Operation
from query_api.threads import Threads
from streams.errors import QueryError
from streams.event import ATTRIBUTE_NAME_PATTERN

_name = re.compile(ATTRIBUTE_NAME_PATTERN)


class Facets:
    """`/v1/tenants/{tenant}/facets/{field}`."""

    def __init__(self, deps: Deps, *, threads: Threads, spec: CurrentSpec) -> None:
        self._searcher = deps.searcher
        self._limits = deps.limits
        self._threads = threads
        self._spec = spec

    def operations(self) -> list[Operation]:
        return [Operation("GET", "/v1/tenants/{tenant}/facets/{field}", "facet", self.facet, Scope.SEARCH, FACET)]

    async def facet(self, request: Request) -> Response:
        params.only(request, {"limit", "filter"})
        tenant_id, field = params.tenant_of(request), request.path_params["field"]
        limit = params.limit_of(request, default=params.DEFAULT_HITS, maximum=self._limits.max_hits)
        text = request.query_params.get("filter")
        found, spec = await self._threads.run(lambda: self._facet(tenant_id, field, text, limit))
        values = [{"value": one.value, "count": one.count} for one in found.values]
        return answer(request, {"field": field, "values": values, "complete": found.complete}, spec)

    def _facet(self, tenant_id: str, field: str, text: str | None, limit: int) -> tuple[Facet, CollectionSpec]:
        spec = self._spec.get()
        if _name.match(field) is None:
            raise QueryError(400, "unknown_field", f"{field[:80]!r} is no name of an attribute", field="field")
        kind = kinds(spec.fields).get(field)
        if kind is not None:
            message = f"{field!r} is a {kind}: it has ranges, not values"
            raise QueryError(400, "invalid_parameter", message, field="field")
        found = self._searcher.facet(tenant_id, field, filter=read_filter_text(text, spec.fields), limit=limit)
        if not found.values:
            require_tenant(self._searcher, tenant_id)
        return found, spec


FACET = {
    "summary": "The most frequent tags, or strings and bools of an attribute, among the indexed images",
    "parameters": parameters("tenant", "field", "limit", "filter"),
    "responses": answers("by falling count, equal ones by name", "Facet", 400, 404, 503, 504),
}
