"""What an API process and its embedding child say to each other: length-prefixed msgpack over a socketpair.

The parent sends one :class:`Setup`, the child answers :class:`Ready` or :class:`Refused`; then any
number of :class:`Ask`, each answered by one :class:`Reply` of the same number, in any order.
"""

from __future__ import annotations

import socket
from enum import StrEnum
from typing import TypeVar

import msgspec

THUMBNAIL_PX = 256
"""The longer side of a thumbnail."""
MAX_FRAME_BYTES = (1 << 30) + (1 << 20)
"""The largest body that settings allow, and what is said around it."""

T = TypeVar("T")


class Want(StrEnum):
    """What is wanted of a picture."""

    VECTOR = "vector"
    THUMBNAIL = "thumbnail"


class Setup(msgspec.Struct, frozen=True, array_like=True):
    """What the child works with, as in the worker's settings."""

    model: str
    weights: str | None
    weights_sha256: str | None
    engine: str
    preprocessing: str
    cache: str | None
    max_pixels: int
    decode_timeout_s: float


class Ready(msgspec.Struct, frozen=True, array_like=True, tag="ready"):
    """The child is up; its vectors belong into this collection."""

    model_id: str
    preprocessing_id: str
    dim: int


class Refused(msgspec.Struct, frozen=True, array_like=True, tag="refused"):
    """The child cannot work: one line for the operator."""

    message: str


class Ask(msgspec.Struct, frozen=True, array_like=True):
    """One picture."""

    number: int
    want: Want
    data: bytes


class Failure(msgspec.Struct, frozen=True, array_like=True):
    """Why there is no answer. `for_good` tells an EventError from a RetryableError."""

    reason: str
    message: str
    for_good: bool


class Reply(msgspec.Struct, frozen=True, array_like=True):
    """The vector's float32 bytes or the JPEG; empty where `failure` says why."""

    number: int
    data: bytes
    failure: Failure | None = None


def send(sock: socket.socket, message: msgspec.Struct) -> None:
    """One frame; the caller sees to it that frames don't mix. OSError where the other side is gone."""
    data = msgspec.msgpack.encode(message)
    sock.sendall(len(data).to_bytes(4, "big") + data)


def receive(sock: socket.socket) -> bytes | None:
    """The next frame's bytes; None where the other side is gone. Blocks."""
    head = _exactly(sock, 4)
    if head is None:
        return None
    n_bytes = int.from_bytes(head, "big")
    if n_bytes > MAX_FRAME_BYTES:
        return None
    data = _exactly(sock, n_bytes)
    return None if data is None else bytes(data)


def _exactly(sock: socket.socket, n_bytes: int) -> bytearray | None:
    data = bytearray(n_bytes)
    view, filled = memoryview(data), 0
    while filled < n_bytes:
        try:
            got = sock.recv_into(view[filled:])
        except OSError:
            return None
        if got == 0:
            return None
        filled += got
    return data


_hello = msgspec.msgpack.Decoder(Ready | Refused)
_reply = msgspec.msgpack.Decoder(Reply)
_ask = msgspec.msgpack.Decoder(Ask)
_setup = msgspec.msgpack.Decoder(Setup)

decode_hello = _hello.decode
decode_reply = _reply.decode
decode_ask = _ask.decode
decode_setup = _setup.decode
