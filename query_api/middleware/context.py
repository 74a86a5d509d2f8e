"""Around every request: its id, one line in the log, its time, and the headers that every answer has."""

from __future__ import annotations

import re
import uuid
from collections.abc import Callable

import structlog
from starlette.datastructures import Headers, MutableHeaders
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from query_api.answers import HEADERS
from query_api.metrics import QueryMetrics

_request_id = re.compile(r"[A-Za-z0-9._-]{1,64}\Z")
_QUIET = frozenset({"health", "ready", "metrics", "thumbnail", "asset"})
"""Asked for all the time: logged only where they fail."""

_log = structlog.get_logger("query_api")


class RequestContext:
    """Plain ASGI. A caller's `X-Request-ID` is kept where it is harmless, so that logs can be joined."""

    def __init__(self, app: ASGIApp, *, metrics: QueryMetrics, clock: Callable[[], float]) -> None:
        self._app = app
        self._metrics = metrics
        self._clock = clock

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        started, status = self._clock(), 500  # what Starlette answers above us where an exception passes
        given = Headers(scope=scope).get("x-request-id", "")
        request_id = given if _request_id.match(given) else uuid.uuid4().hex
        state = scope.setdefault("state", {})
        state["request_id"] = request_id
        state["took_s"] = lambda: self._clock() - started

        async def send_with_headers(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
                headers = MutableHeaders(scope=message)
                headers["X-Request-ID"] = request_id
                for name, value in HEADERS.items():
                    headers.setdefault(name, value)
            await send(message)

        try:
            await self._app(scope, receive, send_with_headers)
        finally:
            self._report(scope, request_id, status=status, took_s=self._clock() - started)

    def _report(self, scope: Scope, request_id: str, *, status: int, took_s: float) -> None:
        kind = scope["state"].get("kind", "other")
        self._metrics.observe(kind, status=status, took_s=took_s)
        if status < 400 and kind in _QUIET:
            return
        _log.info(
            "request",
            method=scope["method"],
            path=scope["path"],
            kind=kind,
            status=status,
            took_ms=round(took_s * 1000, 1),
            request_id=request_id,
        )
