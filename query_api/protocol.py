"""The connection itself: who sends no request or reads no answer is hung up on, and nonsense gets our error body."""

from __future__ import annotations

import asyncio
import uuid
from typing import Any

import msgspec
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

HEAD_S = 10.0
"""How long the head of a request may take from its connection, or from its first byte, on."""
STALL_S = 20.0
"""How long a client may leave an answer unread that no buffer holds any more."""


class PatientProtocol(HttpToolsProtocol):
    """uvicorn's own with two clocks that it lacks; a client that trickles would else hold its connection for ever."""

    head_s = HEAD_S
    stall_s = STALL_S
    _head_clock: asyncio.TimerHandle | None = None
    _stall_clock: asyncio.TimerHandle | None = None

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        super().connection_made(transport)
        self._wait_for_head()

    def connection_lost(self, exc: Exception | None) -> None:
        _cancel(self._head_clock)
        _cancel(self._stall_clock)
        super().connection_lost(exc)

    def on_message_begin(self) -> None:
        super().on_message_begin()
        self._wait_for_head()

    def on_headers_complete(self) -> None:
        _cancel(self._head_clock)
        super().on_headers_complete()

    def pause_writing(self) -> None:
        super().pause_writing()
        _cancel(self._stall_clock)
        self._stall_clock = self.loop.call_later(self.stall_s, self.transport.abort)

    def resume_writing(self) -> None:
        _cancel(self._stall_clock)
        super().resume_writing()

    def send_400_response(self, msg: str) -> None:
        """What is no HTTP has reached no middleware: the one error body is made here."""
        request_id = uuid.uuid4().hex
        error = {"code": "bad_request", "message": msg, "field": None, "request_id": request_id}
        body = msgspec.json.encode({"error": error})
        head = (
            "HTTP/1.1 400 Bad Request\r\ncontent-type: application/json\r\nconnection: close\r\n"
            f"x-request-id: {request_id}\r\ncontent-length: {len(body)}\r\n\r\n"
        )
        self.transport.write(head.encode() + body)
        self.transport.close()

    def _wait_for_head(self) -> None:
        _cancel(self._head_clock)
        self._head_clock = self.loop.call_later(self.head_s, self.transport.abort)


def _cancel(clock: asyncio.TimerHandle | None) -> None:
    if clock is not None:
        clock.cancel()


def protocol(**clocks: Any) -> type[PatientProtocol]:
    """The class that uvicorn makes one of per connection, with other times than ours (tests)."""
    return type("Protocol", (PatientProtocol,), clocks)
