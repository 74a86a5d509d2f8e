"""No body grows beyond what is allowed, whether it says its length or comes in chunks."""

from __future__ import annotations

from starlette.datastructures import Headers
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from query_api.errors import error_response
from streams.errors import QueryError


class BodyLimit:
    """Plain ASGI. A declared length is refused before a byte is read, others where they pass the limit.

    The connection stays open: the server drops the rest of the body as it comes, so that the sender gets
    to read the answer instead of a reset.
    """

    def __init__(self, app: ASGIApp, *, max_bytes: int) -> None:
        self._app = app
        self._max_bytes = max_bytes

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        if self._declares_more(scope):
            await error_response(scope, self._too_large())(scope, receive, send)
            return
        n_bytes = 0

        async def receive_counted() -> Message:
            nonlocal n_bytes
            message = await receive()
            n_bytes += len(message.get("body", b""))
            if n_bytes > self._max_bytes:
                raise self._too_large()
            return message

        await self._app(scope, receive_counted, send)

    def _declares_more(self, scope: Scope) -> bool:
        declared = Headers(scope=scope).get("content-length", "")
        return declared.isascii() and declared.isdigit() and int(declared[:20]) > self._max_bytes

    def _too_large(self) -> QueryError:
        return QueryError(413, "body_too_large", f"a body may have {self._max_bytes} bytes")
