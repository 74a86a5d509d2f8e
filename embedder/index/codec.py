"""Writes and points as bytes: MessagePack, vectors as raw little-endian float32. For the journal and the socket."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import msgspec
import numpy as np

from embedder.index.points import Bury, Note, PutVector, Refresh, Sweep, Write

_KINDS: dict[str, type[Write]] = {"put": PutVector, "refresh": Refresh, "note": Note, "bury": Bury, "sweep": Sweep}
_NAMES = {kind: name for name, kind in _KINDS.items()}


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
