"""What a client may ask the index process: each operation decodes its own arguments and encodes its result."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Protocol, runtime_checkable

import msgspec

from embedder.index.codec import Asked, decode_writes, encode
from embedder.index.collections import Answering, Collections, Engine
from embedder.index.filters import Filter
from embedder.index.points import PutVector, State, Write
from embedder.index.protocol import CollectionSpec, Hits
from embedder.index.service.wire import ErrorData, error_data
from embedder.models.vectors import check_vector
from streams.errors import QueryError


@runtime_checkable
class Forwards(Protocol):
    """An engine whose points are another process's."""

    def forward(self, operation: str, arguments: msgspec.Raw) -> bytes:
        """The encoded result of one of :data:`READS` or :data:`CHANGES`."""
        ...

    def soon(self, operation: str, arguments: msgspec.Raw, then: Callable[[msgspec.Raw | Exception], None]) -> None:
        """The same of an operation that changes nothing, for `then`, once it is there; in the order of asking."""
        ...

    def catch_up(self) -> None:
        """Returns when everything asked for by :meth:`soon` is answered."""
        ...


_text = msgspec.msgpack.Decoder(str)
_read = msgspec.msgpack.Decoder(tuple[str, list[str]])
_get = msgspec.msgpack.Decoder(tuple[str, str])
_search = msgspec.msgpack.Decoder(tuple[str, Asked])
_search_batch = msgspec.msgpack.Decoder(tuple[str, list[Asked]])
_facet = msgspec.msgpack.Decoder(tuple[str, str, Filter | None, int])
_list = msgspec.msgpack.Decoder(tuple[str, int, str | None, list[State], Filter | None])
_sweep = msgspec.msgpack.Decoder(tuple[int, int])
_spec = msgspec.msgpack.Decoder(CollectionSpec)


def ensure(collections: Collections, arguments: msgspec.Raw) -> bytes:
    """Make the collection where it is not there."""
    spec = _spec.decode(arguments)
    collections.ensure(spec)
    collections.get(spec.name)
    return encode(None)


def checked_writes(engine: Engine, arguments: msgspec.Raw) -> tuple[str, list[Write]]:
    """A tenant's writes, none of which the engine would refuse. EventError: `vector_invalid`."""
    tenant_id, writes = decode_writes(arguments)
    dim = engine.spec().dim
    for one in writes:
        if isinstance(one, PutVector):
            check_vector(one.vector, dim)
    return tenant_id, writes


def _do_collections(collections: Collections, _arguments: msgspec.Raw) -> bytes:
    return encode(collections.described())


def _do_optimise(collections: Collections, arguments: msgspec.Raw) -> bytes:
    collections.get(_text.decode(arguments)).optimise_soon()
    return encode(None)


def _do_switch(collections: Collections, arguments: msgspec.Raw) -> bytes:
    collections.switch(_text.decode(arguments))
    return encode(None)


def _do_drop(collections: Collections, arguments: msgspec.Raw) -> bytes:
    collections.drop(_text.decode(arguments))
    return encode(None)


def _do_read(engine: Answering, arguments: msgspec.Raw) -> bytes:
    return encode(engine.read(*_read.decode(arguments)))


def _do_get(engine: Answering, arguments: msgspec.Raw) -> bytes:
    return encode(engine.get(*_get.decode(arguments)))


def _do_search(engine: Answering, arguments: msgspec.Raw) -> bytes:
    tenant_id, asked = _search.decode(arguments)
    return encode(engine.search(tenant_id, asked.query()))


def search_batch(engine: Engine, arguments: msgspec.Raw) -> Iterator[tuple[ErrorData | None, Hits | None]]:
    """The answers one after the other: 64 questions at once would keep everybody else waiting for seconds."""
    tenant_id, asked = _search_batch.decode(arguments)
    for one in asked:
        (answer,) = engine.search_batch(tenant_id, [one.query()])
        yield (error_data(answer), None) if isinstance(answer, QueryError) else (None, answer)


def _do_facet(engine: Answering, arguments: msgspec.Raw) -> bytes:
    tenant_id, field, condition, limit = _facet.decode(arguments)
    return encode(engine.facet(tenant_id, field, filter=condition, limit=limit))


def _do_list(engine: Answering, arguments: msgspec.Raw) -> bytes:
    tenant_id, limit, cursor, states, condition = _list.decode(arguments)
    return encode(engine.list(tenant_id, limit=limit, cursor=cursor, states=states, filter=condition))


def _do_count(engine: Answering, arguments: msgspec.Raw) -> bytes:
    return encode(engine.count(_text.decode(arguments)))


def _do_spec(engine: Answering, _arguments: msgspec.Raw) -> bytes:
    return encode(engine.spec())


def _do_tenant_stats(engine: Answering, arguments: msgspec.Raw) -> bytes:
    return encode(engine.tenant_stats(_text.decode(arguments)))


def delete_tenant(engine: Answering, arguments: msgspec.Raw) -> bytes:
    """Remove a tenant's points; the answer waits for the next flush."""
    return encode(engine.delete_tenant(_text.decode(arguments)))


def _do_stats(engine: Answering, _arguments: msgspec.Raw) -> bytes:
    return encode(engine.stats())


def _do_sample(engine: Answering, _arguments: msgspec.Raw) -> bytes:
    return encode(engine.sample())


def _do_sweep(engine: Answering, arguments: msgspec.Raw) -> bytes:
    before_us, limit = _sweep.decode(arguments)
    return encode(engine.sweep(before_us, limit=limit))


WHOLE: dict[str, Callable[[Collections, msgspec.Raw], bytes]] = {
    "ensure": ensure,
    "collections": _do_collections,
    "optimise": _do_optimise,
    "switch": _do_switch,
    "drop": _do_drop,
}
"""Operations on collections as a whole, answered at once."""

READS: dict[str, Callable[[Answering, msgspec.Raw], bytes]] = {
    "read": _do_read,
    "get": _do_get,
    "search": _do_search,
    "facet": _do_facet,
    "list": _do_list,
    "count": _do_count,
    "spec": _do_spec,
    "stats": _do_stats,
    "sweep": _do_sweep,
    "tenant_stats": _do_tenant_stats,
    "sample": _do_sample,
}
"""Operations on one collection that are answered at once."""


def perform(engine: Engine, operation: str, arguments: msgspec.Raw) -> bytes:
    """One operation on one collection; where another process holds it, encoded as it came. ValueError: no such one."""
    does = READS.get(operation) or CHANGES.get(operation)
    if does is None:
        raise ValueError(f"unknown operation {operation[:40]!r}")
    if operation != "flush" and isinstance(engine, Forwards):
        return engine.forward(operation, arguments)
    return does(engine, arguments)


SEARCHES = frozenset({"search", "search_batch", "facet", "list"})
"""What people wait for; a worker's reads are not among them."""

HELD = frozenset({"write", "delete_tenant", "sweep"})
"""What waits while the engine's files are being copied."""

PURE = frozenset(READS) - HELD
"""What changes nothing: other questions may be asked before it is answered."""

CHANGES: dict[str, Callable[[Answering, msgspec.Raw], bytes]] = {
    "delete_tenant": delete_tenant,
    "flush": lambda _engine, _arguments: encode(None),
}
"""Operations that are answered after a flush; `write` is one too, and applied in pieces by the server."""
