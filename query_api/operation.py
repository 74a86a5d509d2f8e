"""One thing the API can do: its route and its documentation, written down once, side by side."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

Endpoint = Callable[[Request], Awaitable[Response]]


@dataclass(frozen=True, slots=True)
class Operation:
    """`kind` is the word in metrics and logs, and the OpenAPI `operationId`; `doc` the OpenAPI operation."""

    method: str
    path: str
    kind: str
    endpoint: Endpoint
    doc: Mapping[str, Any] = field(default_factory=dict)

    def route(self) -> Route:
        """The route that answers it."""

        async def endpoint(request: Request) -> Response:
            request.state.kind = self.kind
            return await self.endpoint(request)

        return Route(self.path, endpoint, methods=[self.method], name=self.kind)
