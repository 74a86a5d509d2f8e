"""One thing the API can do: its route and its documentation, written down once, side by side."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from query_api.keys import Scope
from query_api.middleware.access import Gate

Endpoint = Callable[[Request], Awaitable[Response]]


@dataclass(frozen=True, slots=True)
class Operation:
    """`kind` is the word in metrics and logs, and the OpenAPI `operationId`; `doc` the OpenAPI operation.

    `scope` is what a key must have, None for what needs none.
    """

    method: str
    path: str
    kind: str
    endpoint: Endpoint
    scope: Scope | None
    doc: Mapping[str, Any] = field(default_factory=dict)

    def route(self, gate: Gate) -> Route:
        """The route that answers it, to those whom `gate` lets in."""

        async def endpoint(request: Request) -> Response:
            request.state.kind = self.kind
            gate.admit(request, self.scope)
            return await self.endpoint(request)

        return Route(self.path, endpoint, methods=[self.method], name=self.kind)
