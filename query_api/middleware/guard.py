"""Without access keys only this machine may ask, and no web page but our own."""

from __future__ import annotations

import re

from starlette.types import ASGIApp, Receive, Scope, Send

from query_api.errors import error_response
from streams.errors import QueryError

_host = re.compile(r"(?:127\.0\.0\.1|localhost|\[::1\])(?::([0-9]{1,5}))?\Z", re.ASCII)


class LoopbackGuard:
    """Plain ASGI. Refuses a foreign Host (DNS rebinding: a page's own name made to point here) and a foreign Origin."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        refusal = _refusal(scope) if scope["type"] == "http" else None
        if refusal is None:
            await self._app(scope, receive, send)
        else:
            await error_response(scope, refusal)(scope, receive, send)


def _refusal(scope: Scope) -> QueryError | None:
    hosts = _values(scope, b"host")
    if len(hosts) != 1 or not _is_own(hosts[0], scope):
        return QueryError(
            403, "host_forbidden", "without access keys the Host must be 127.0.0.1 or localhost and its port"
        )
    origins = _values(scope, b"origin")
    if origins and origins != [f"{scope['scheme']}://{hosts[0]}"]:
        return QueryError(403, "origin_forbidden", "without access keys only the page of this very address may ask")
    return None


def _values(scope: Scope, name: bytes) -> list[str]:
    return [value.decode("latin-1") for key, value in scope["headers"] if key == name]


def _is_own(host: str, scope: Scope) -> bool:
    """Whether a Host header names this server: loopback, and the port that it listens on."""
    match = _host.match(host)
    if match is None:
        return False
    port = int(match[1]) if match[1] else 80
    return scope.get("server") is not None and port == scope["server"][1]
