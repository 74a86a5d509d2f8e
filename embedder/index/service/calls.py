"""The calls of an index as messages: what each sends and what comes back, whoever carries it."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from typing import TypeVar

import msgspec

from embedder.index.codec import asked, encode
from embedder.index.filters import Filter
from embedder.index.points import Point, State
from embedder.index.protocol import CollectionSpec, Facet, Hits, IndexStats, Page, TenantStats
from embedder.index.query import Query

Result = TypeVar("Result")

_points = msgspec.msgpack.Decoder(list[Point | None]).decode
_point: Callable[[msgspec.Raw], Point | None] = msgspec.msgpack.Decoder(Point | None).decode
_hits = msgspec.msgpack.Decoder(Hits).decode
_facet = msgspec.msgpack.Decoder(Facet).decode
_page = msgspec.msgpack.Decoder(Page).decode
_count = msgspec.msgpack.Decoder(dict[State, int]).decode
_spec = msgspec.msgpack.Decoder(CollectionSpec).decode
_stats = msgspec.msgpack.Decoder(IndexStats).decode
_sample: Callable[[msgspec.Raw], tuple[str, str] | None] = msgspec.msgpack.Decoder(tuple[str, str] | None).decode
_tenant_stats = msgspec.msgpack.Decoder(TenantStats).decode
_number = msgspec.msgpack.Decoder(int).decode


class Calls(ABC):
    """The typed side of :mod:`embedder.index.service.operations`; the protocols of the index say what each means."""

    @abstractmethod
    def _ask(self, operation: str, arguments: bytes, decode: Callable[[msgspec.Raw], Result]) -> Result:
        """Carry it over, wait, and raise what was raised there."""

    def read(self, tenant_id: str, image_ids: Sequence[str]) -> list[Point | None]:
        return self._ask("read", encode((tenant_id, list(image_ids))), _points)

    def spec(self) -> CollectionSpec:
        return self._ask("spec", encode(None), _spec)

    def get(self, tenant_id: str, image_id: str) -> Point | None:
        return self._ask("get", encode((tenant_id, image_id)), _point)

    def search(self, tenant_id: str, query: Query) -> Hits:
        return self._ask("search", encode((tenant_id, asked(query))), _hits)

    def facet(self, tenant_id: str, field: str, *, filter: Filter | None = None, limit: int = 10) -> Facet:  # noqa: A002
        return self._ask("facet", encode((tenant_id, field, filter, limit)), _facet)

    def list(
        self,
        tenant_id: str,
        *,
        limit: int,
        cursor: str | None = None,
        states: Sequence[State] = (),
        filter: Filter | None = None,  # noqa: A002
    ) -> Page:
        return self._ask("list", encode((tenant_id, limit, cursor, tuple(states), filter)), _page)

    def count(self, tenant_id: str) -> Mapping[State, int]:
        return self._ask("count", encode(tenant_id), _count)

    def stats(self) -> IndexStats:
        return self._ask("stats", encode(None), _stats)

    def sample(self) -> tuple[str, str] | None:
        return self._ask("sample", encode(None), _sample)

    def tenant_stats(self, tenant_id: str) -> TenantStats:
        return self._ask("tenant_stats", encode(tenant_id), _tenant_stats)

    def delete_tenant(self, tenant_id: str) -> int:
        return self._ask("delete_tenant", encode(tenant_id), _number)

    def sweep(self, before_us: int, *, limit: int) -> int:
        return self._ask("sweep", encode((before_us, limit)), _number)
