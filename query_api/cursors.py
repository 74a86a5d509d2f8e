"""Cursors: where the next page begins, bound to the question that they were given out for.

A cursor says nothing that its holder does not know: a position, and a hash of the question. It opens
nothing: the tenant, the filter and the key are those of the request that brings it.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
from typing import TypeVar

import msgspec

from query_api.params import invalid

MAX_TEXT = 1024

P = TypeVar("P", int, str)


def bound_to(*question: object) -> bytes:
    """What identifies a question: everything that decides which results come in which order."""
    return hashlib.blake2b(msgspec.msgpack.encode(question), digest_size=9).digest()


def write(position: int | str, question: bytes) -> str:
    """A cursor at `position` of this question."""
    return base64.urlsafe_b64encode(msgspec.msgpack.encode((position, question))).decode().rstrip("=")


def read(text: str, kind: type[P], question: bytes, *, field: str = "cursor") -> P:
    """The position.

    Raises:
        QueryError: 400 for what was not given out here, or for another question.
    """
    try:
        data = base64.urlsafe_b64decode(text + "=" * (-len(text) % 4)) if len(text) <= MAX_TEXT else b""
        position, asked = msgspec.msgpack.decode(data, type=tuple[kind, bytes], strict=True)  # type: ignore[valid-type]
    except (binascii.Error, ValueError, msgspec.DecodeError) as exc:
        raise invalid(field, f"{field} is not a next_cursor of this API") from exc
    if asked != question:
        raise invalid(field, f"{field} belongs to another query: repeat the one it came from")
    return position
