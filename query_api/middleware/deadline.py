"""No request takes longer than it may: one clock for everything between its head and its answer."""

from __future__ import annotations

import asyncio

from starlette.types import ASGIApp, Message, Receive, Scope, Send

from query_api.errors import error_response
from streams.errors import QueryError


class Deadline:
    """Plain ASGI. 504 where we were too slow, 408 where the sender was: its body had not arrived.

    An answer that has begun is not cut off here; who does not read it is the protocol's matter
    (:mod:`query_api.protocol`).
    """

    def __init__(self, app: ASGIApp, *, deadline_s: float) -> None:
        self._app = app
        self._deadline_s = deadline_s

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        waits_for_body, begun = False, False

        async def receive_noted() -> Message:
            nonlocal waits_for_body
            waits_for_body = True
            message = await receive()
            waits_for_body = False
            return message

        async def send_noted(message: Message) -> None:
            nonlocal begun
            begun = True
            clock.reschedule(None)
            await send(message)

        try:
            async with asyncio.timeout(self._deadline_s) as clock:
                await self._app(scope, receive_noted, send_noted)
        except TimeoutError as exc:
            if begun:
                raise
            problem = self._body_timeout() if waits_for_body else exc
            await error_response(scope, problem)(scope, receive, send)

    def _body_timeout(self) -> QueryError:
        return QueryError(408, "body_timeout", f"the body did not arrive within {self._deadline_s:g} s")
