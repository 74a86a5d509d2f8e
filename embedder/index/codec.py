"""Writes, points and questions as bytes: MessagePack, vectors as raw little-endian float32.

For the journal and the socket.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import msgspec
import numpy as np

from embedder.index.filters import Filter
from embedder.index.points import Bury, Note, PutVector, Refresh, Sweep, Write
from embedder.index.query import Example, Query
from embedder.models.vectors import check_vector

_KINDS: dict[str, type[Write]] = {"put": PutVector, "refresh": Refresh, "note": Note, "bury": Bury, "sweep": Sweep}
_NAMES = {kind: name for name, kind in _KINDS.items()}
_DROP = "drop"


def _to_plain(value: object) -> object:
    if isinstance(value, np.ndarray):
        return np.ascontiguousarray(value, dtype="<f4").tobytes()
    raise NotImplementedError(f"{type(value).__name__} has no place in a message")


def _from_plain(_kind: type, value: Any) -> Any:
    """The only type MessagePack does not know here is a vector."""
    if not isinstance(value, bytes) or len(value) % 4:
        raise ValueError("not a vector")
    return np.frombuffer(value, dtype="<f4")


encode = msgspec.msgpack.Encoder(enc_hook=_to_plain).encode
_decoders = {name: msgspec.msgpack.Decoder(kind, dec_hook=_from_plain) for name, kind in _KINDS.items()}
_split = msgspec.msgpack.Decoder(tuple[str, list[tuple[str, msgspec.Raw]]])


def encode_writes(tenant_id: str, writes: Sequence[Write]) -> bytes:
    """One tenant's writes."""
    return encode((tenant_id, [(_NAMES[type(write)], write) for write in writes]))


def encode_drop(tenant_id: str) -> bytes:
    """That every point of the tenant is removed."""
    return encode((tenant_id, [(_DROP, None)]))


def decode_entry(data: bytes) -> tuple[str, list[Write] | None]:
    """A line of the journal: a tenant's writes, or None where the tenant is dropped. ValueError as below."""
    try:
        tenant_id, parts = _split.decode(data)
    except msgspec.DecodeError as exc:
        raise ValueError(f"not a list of writes: {exc}") from exc
    return (tenant_id, None) if [name for name, _ in parts] == [_DROP] else decode_writes(data)


def decode_writes(data: bytes | msgspec.Raw) -> tuple[str, list[Write]]:
    """What :func:`encode_writes` was given; vectors are read-only views.

    Raises:
        ValueError: it is not that.
    """
    try:
        tenant_id, parts = _split.decode(data)
        return tenant_id, [_decoders[name].decode(raw) for name, raw in parts]
    except (msgspec.DecodeError, KeyError) as exc:
        raise ValueError(f"not a list of writes: {exc}") from exc


class Asked(msgspec.Struct, array_like=True, frozen=True):
    """A question as it crosses the socket: an example is an id, or a vector as bytes."""

    positive: tuple[Any, ...]  # str | bytes: msgspec tells the two apart only where it is not asked to
    negative: tuple[Any, ...]
    filter: Filter | None
    score_threshold: float | None
    limit: int
    offset: int
    with_points: bool
    exact: bool = False

    def query(self) -> Query:
        """The question again; vectors are read-only views. ValueError for bytes that are no vector."""
        return Query(
            tuple(_read_example(one) for one in self.positive),
            tuple(_read_example(one) for one in self.negative),
            self.filter,
            self.score_threshold,
            self.limit,
            self.offset,
            self.with_points,
            self.exact,
        )


def asked(query: Query) -> Asked:
    """The question for the socket.

    Raises:
        EventError: `vector_invalid`; bytes have no shape, so the other side could not tell.
    """
    return Asked(
        tuple(_example(one) for one in query.positive),
        tuple(_example(one) for one in query.negative),
        query.filter,
        query.score_threshold,
        query.limit,
        query.offset,
        query.with_points,
        query.exact,
    )


def _example(example: Example) -> str | bytes:
    if isinstance(example, str):
        return example
    check_vector(example, example.size)
    return np.ascontiguousarray(example, "<f4").tobytes()


def _read_example(example: object) -> Example:
    if isinstance(example, str):
        return example
    if not isinstance(example, bytes) or len(example) % 4:
        raise ValueError("not a vector")
    return np.frombuffer(example, "<f4")
