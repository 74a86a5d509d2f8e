"""What a client may ask the index process: each operation decodes its own arguments and encodes its result."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import msgspec
import numpy as np

from embedder.index.codec import decode_writes, encode
from embedder.index.collections import Collections, Engine
from embedder.index.points import State
from embedder.index.protocol import CollectionSpec, Receipt
from streams.event import now_us

_text = msgspec.msgpack.Decoder(str)
_read = msgspec.msgpack.Decoder(tuple[str, list[str]])
_get = msgspec.msgpack.Decoder(tuple[str, str])
_similar = msgspec.msgpack.Decoder(tuple[str, str, int])
_search = msgspec.msgpack.Decoder(tuple[str, bytes, int])
_list = msgspec.msgpack.Decoder(tuple[str, int, str | None, list[State]])
_sweep = msgspec.msgpack.Decoder(tuple[int, int])
_spec = msgspec.msgpack.Decoder(CollectionSpec)


def ensure(collections: Collections, arguments: msgspec.Raw) -> bytes:
    """Make the collection where it is not there."""
    spec = _spec.decode(arguments)
    collections.ensure(spec)
    collections.get(spec.name)
    return encode(None)


def write(engine: Engine, arguments: msgspec.Raw) -> bytes:
    """Apply; the answer waits for the next flush."""
    tenant_id, writes = decode_writes(arguments)
    return encode(Receipt(tuple(engine.write_now(tenant_id, writes)), now_us()))


def _do_read(engine: Engine, arguments: msgspec.Raw) -> bytes:
    return encode(engine.read(*_read.decode(arguments)))


def _do_get(engine: Engine, arguments: msgspec.Raw) -> bytes:
    return encode(engine.get(*_get.decode(arguments)))


def _do_similar(engine: Engine, arguments: msgspec.Raw) -> bytes:
    tenant_id, image_id, limit = _similar.decode(arguments)
    return encode(engine.similar(tenant_id, image_id, limit=limit))


def _do_search(engine: Engine, arguments: msgspec.Raw) -> bytes:
    tenant_id, vector, limit = _search.decode(arguments)
    if len(vector) % 4:
        raise ValueError("not a vector")
    return encode(engine.search(tenant_id, np.frombuffer(vector, "<f4"), limit=limit))


def _do_list(engine: Engine, arguments: msgspec.Raw) -> bytes:
    tenant_id, limit, cursor, states = _list.decode(arguments)
    wanted: Sequence[State] = states
    return encode(engine.list(tenant_id, limit=limit, cursor=cursor, states=wanted))


def _do_count(engine: Engine, arguments: msgspec.Raw) -> bytes:
    return encode(engine.count(_text.decode(arguments)))


def _do_spec(engine: Engine, _arguments: msgspec.Raw) -> bytes:
    return encode(engine.spec())


def _do_stats(engine: Engine, _arguments: msgspec.Raw) -> bytes:
    return encode(engine.stats())


def _do_sweep(engine: Engine, arguments: msgspec.Raw) -> bytes:
    before_us, limit = _sweep.decode(arguments)
    return encode(engine.sweep(before_us, limit=limit))


READS: dict[str, Callable[[Engine, msgspec.Raw], bytes]] = {
    "read": _do_read,
    "get": _do_get,
    "similar": _do_similar,
    "search": _do_search,
    "list": _do_list,
    "count": _do_count,
    "spec": _do_spec,
    "stats": _do_stats,
    "sweep": _do_sweep,
}
"""Operations that are answered at once; `write` and `flush` are answered after a flush, `ensure` and `ping` apart."""
