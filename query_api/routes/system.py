"""What operators and machines ask: alive, ready, metrics, the document."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client.exposition import CONTENT_TYPE_PLAIN_0_0_4
from starlette.requests import Request
from starlette.responses import Response

from query_api.answers import JsonResponse
from query_api.keys import Scope
from query_api.loop_lag import LoopLag
from query_api.middleware.access import Gate
from query_api.openapi import answers, ref
from query_api.operation import Operation
from query_api.ready import Readiness


class System:
    """The routes outside of `/v1` that no person looks at."""

    def __init__(
        self,
        *,
        readiness: Readiness,
        registry: CollectorRegistry,
        gate: Gate,
        document: Callable[[], dict[str, Any]],
        loop_lag: LoopLag,
    ) -> None:
        self._readiness = readiness
        self._gate = gate
        self._registry = registry
        self._document = document
        self._loop_lag = loop_lag

    def operations(self) -> list[Operation]:
        return [
            Operation("GET", "/healthz", "health", self.health, None, HEALTH),
            Operation("GET", "/readyz", "ready", self.ready, None, READY),
            Operation("GET", "/metrics", "metrics", self.metrics, Scope.ADMIN, METRICS),
            Operation("GET", "/openapi.json", "openapi", self.openapi, None, OPENAPI),
        ]

    async def health(self, request: Request) -> Response:  # noqa: ARG002 - the signature is Starlette's
        return JsonResponse({"status": "ok", "loop_lag_ms": round(self._loop_lag.worst_s * 1e3, 1)})

    async def ready(self, request: Request) -> Response:
        is_ready, dependencies = await self._readiness.ask()
        if not self._gate.may_see_all(request):  # errors name hosts and folders
            dependencies = {name: {**told, "last_error": None} for name, told in dependencies.items()}
        body = {"status": "ready" if is_ready else "not_ready", "dependencies": dependencies}
        return JsonResponse(body, status_code=200 if is_ready else 503)

    async def metrics(self, request: Request) -> Response:  # noqa: ARG002
        return Response(generate_latest(self._registry), headers={"Content-Type": CONTENT_TYPE_PLAIN_0_0_4})

    async def openapi(self, request: Request) -> Response:  # noqa: ARG002
        return JsonResponse(self._document())


HEALTH = {"summary": "Whether this process answers", "responses": answers("it does", "Health")}
READY = {
    "summary": "Whether every dependency answers",
    "responses": {
        **answers("all required ones do", "Readiness"),
        "503": {
            "description": "a required one does not",
            "content": {"application/json": {"schema": ref("schemas", "Readiness")}},
        },
    },
}
METRICS = {
    "summary": "Metrics in Prometheus' text format",
    "responses": {"200": {"description": "all metrics of this process", "content": {"text/plain": {}}}},
}
OPENAPI = {
    "summary": "This document",
    "responses": {"200": {"description": "OpenAPI 3.1", "content": {"application/json": {}}}},
}
