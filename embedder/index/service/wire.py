"""Frames between the index process and its clients: four bytes of length, little endian, then MessagePack.

A request is ``(id, operation, collection, arguments)``, an answer ``(id, None, result)`` or
``(id, (error class, code, message, field), None)``. Nothing is ever unpickled. An empty collection is the alias.
"""

from __future__ import annotations

import struct
from typing import Any

import msgspec

from streams.errors import ConfigError, DependencyError, EventError, LookalikeError, QueryError, Reason

MAX_FRAME_BYTES = 64 * 1024 * 1024
"""A batch of 256 writes of 1280 floats is 1.4 MB; more than this is no client of ours."""
HEAD = struct.Struct("<I")

ErrorData = tuple[str, str, str, str | None]
"""Class, code, message, and the offending field where there is one."""


class Request(msgspec.Struct, array_like=True, frozen=True):
    """One call; `arguments` is decoded by the operation that `operation` names."""

    id: int
    operation: str
    collection: str
    arguments: msgspec.Raw


class Answer(msgspec.Struct, array_like=True, frozen=True):
    """The result of the request with this id, or its error."""

    id: int
    error: ErrorData | None
    result: msgspec.Raw


decode_request = msgspec.msgpack.Decoder(Request).decode
decode_answer = msgspec.msgpack.Decoder(Answer).decode


def frame(body: bytes) -> bytes:
    """`body` with its length before it; ValueError above the limit."""
    if len(body) > MAX_FRAME_BYTES:
        raise ValueError(f"a message of {len(body)} bytes is above the limit of {MAX_FRAME_BYTES}")
    return HEAD.pack(len(body)) + body


def error_data(error: BaseException) -> ErrorData:
    """An error as it crosses the socket; anything unexpected becomes `internal`."""
    match error:
        case EventError():
            return ("event", error.reason.value, error.message, error.field)
        case DependencyError():
            return ("dependency", error.dependency, error.message, None)
        case ConfigError():
            return ("config", "", str(error), None)
        case QueryError():
            return ("query", f"{error.status} {error.code}", error.message, error.field)
        case ValueError() | msgspec.DecodeError():
            return ("value", "", str(error), None)
        case _:
            return ("internal", type(error).__name__, str(error), None)


def raised(data: Any) -> LookalikeError | ValueError | RuntimeError:
    """The error that :func:`error_data` described, to be raised at the client."""
    kind, code, message, field = data
    match kind:
        case "event":
            return EventError(Reason(code), message, field=field)
        case "dependency":
            return DependencyError(code, message)
        case "config":
            return ConfigError(message)
        case "query":
            status, _, word = code.partition(" ")
            return QueryError(int(status), word, message, field=field)
        case "value":
            return ValueError(message)
        case _:
            return RuntimeError(f"the index process failed: {code}: {message}")
