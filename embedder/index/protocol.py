"""What every index must do: one protocol to write, one to search. The tenant is a required argument of every call.

One contract test class (tests/contract/test_index.py) runs on every implementation: `exact`, `edge`,
and both of them behind the socket of ``lookalike index serve``.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from concurrent.futures import Future
from dataclasses import dataclass
from typing import Protocol

from embedder.index.fields import Field
from embedder.index.filters import Filter
from embedder.index.points import Point, State, Write, Written
from embedder.index.query import Query
from streams.errors import QueryError


@dataclass(frozen=True, slots=True)
class CollectionSpec:
    """What a collection holds: vectors of exactly one (model, preprocessing), `dim` floats each.

    `fields` are the attributes that ranges can be asked of. They belong to what is stored: other
    fields need a migration, and do not make the vectors other ones.
    """

    model_id: str
    preprocessing_id: str
    dim: int
    fields: tuple[Field, ...] = ()

    @property
    def name(self) -> str:
        """The collection's name; safe as a folder name because both ids are ``[a-z0-9_.-]+``."""
        return f"{self.model_id}--{self.preprocessing_id}"

    def same_vectors(self, other: CollectionSpec) -> bool:
        """Whether vectors of the two can be compared."""
        return (self.name, self.dim) == (other.name, other.dim)


@dataclass(frozen=True, slots=True)
class Hit:
    """One similar image: `score` is the cosine, -1 to 1, higher is more alike; `point` where it was asked for."""

    image_id: str
    score: float
    point: Point | None = None


@dataclass(frozen=True, slots=True)
class Hits:
    """The answer of a search, best first; `exact` says whether every candidate was compared."""

    hits: tuple[Hit, ...]
    exact: bool


@dataclass(frozen=True, slots=True)
class FacetValue:
    """One value, and how many indexed images have it."""

    value: str
    count: int


@dataclass(frozen=True, slots=True)
class Facet:
    """The most frequent values, by falling count, equal ones by name.

    `complete` is False where the collection has so many values that a rare one may be missing here;
    the counts are exact all the same.
    """

    values: tuple[FacetValue, ...]
    complete: bool


@dataclass(frozen=True, slots=True)
class Page:
    """One page of a tenant's images in the index's own stable order; `next_cursor` None ends it."""

    points: tuple[Point, ...]
    next_cursor: str | None


@dataclass(frozen=True, slots=True)
class Receipt:
    """What became of a call's writes, one by one, and when they became visible to searches."""

    written: tuple[Written, ...]
    applied_at_us: int


class Writer(Protocol):
    """The side the worker uses. Thread-safe.

    Both calls raise DependencyError (and `write`'s future fails with it) where the index does not
    answer; the caller repeats the very same call, because every write may be applied twice.
    """

    def read(self, tenant_id: str, image_ids: Sequence[str]) -> list[Point | None]:
        """The points of these images, in order; None where nothing is stored. Blocks."""
        ...

    def write(self, tenant_id: str, writes: Sequence[Write]) -> Future[Receipt]:
        """Apply `writes` in order; the future gives their receipt once *all* are durable.

        The classic mistake is to wait for each future in turn: durability comes about once a second
        under load, so keep several calls under way and let the callback finish the events.

        Raises:
            EventError: `vector_invalid` for a vector that is not finite, not (dim,) or all zero;
                nothing of the call is applied then.
        """
        ...


class Searcher(Protocol):
    """The side the API uses. Blocks; thread-safe. Raises DependencyError where the index does not answer."""

    def spec(self) -> CollectionSpec:
        """What the collection behind the alias holds.

        Raises:
            DependencyError: also where there is no collection yet (no worker has run so far).
        """
        ...

    def get(self, tenant_id: str, image_id: str) -> Point | None:
        """The point of one image, tombstones and empty points included."""
        ...

    def search(self, tenant_id: str, query: Query) -> Hits:
        """The tenant's images that answer `query`; what named examples are like is looked up here.

        Raises:
            QueryError: 404 `image_not_found` for an example that the tenant does not have (another tenant's
                is not told apart), 409 `image_not_indexed` for one without a vector, and the 422 of
                :func:`~embedder.index.query.check_query`.
            EventError, ValueError: as that function says.
        """
        ...

    def search_batch(self, tenant_id: str, queries: Sequence[Query]) -> Sequence[Hits | QueryError]:
        """Several questions in one round trip, answers in order.

        A question with an error of the 4xx kind has it in its place and spoils no other one; an
        unusable vector is such an error here (422 `vector_invalid`), and so is a limit below 1.
        """
        ...

    def facet(self, tenant_id: str, field: str, *, filter: Filter | None = None, limit: int = 10) -> Facet:  # noqa: A002 - the field's word
        """How many indexed images have each tag (`field` "tags") or each string or bool of an attribute.

        Raises:
            QueryError: 422 `field_type` for a number or a time; the filter's as for a search.
        """
        ...

    def list(
        self,
        tenant_id: str,
        *,
        limit: int,
        cursor: str | None = None,
        states: Sequence[State] = (),
        filter: Filter | None = None,  # noqa: A002 - the field's word
    ) -> Page:
        """A page of the tenant's images; no `states` means all, times and sizes are part of `filter`.

        Raises:
            ValueError: a cursor not given out here, a limit below 1.
            QueryError: the filter's, as for a search.
        """
        ...

    def count(self, tenant_id: str) -> Mapping[State, int]:
        """How many of the tenant's points are in each state (0 included): all 0 is an unknown tenant."""
        ...


class Administration(Protocol):
    """What operators do to whole collections. Every call raises DependencyError where the index does not answer."""

    def collections(self) -> Sequence[CollectionInfo]:
        """Every collection that can be switched to, by name: no copy that is not complete."""
        ...

    def create(self, spec: CollectionSpec) -> None:
        """Make a collection where it is not there; the first one becomes what the alias means. ConfigError."""
        ...

    def optimise(self, name: str) -> None:
        """Ask for the graphs that are missing; returns at once, `waiting` of the collection tells how far it is."""
        ...

    def switch(self, name: str) -> None:
        """Let the alias mean this collection, in one step for everybody. ConfigError where there is none."""
        ...

    def drop(self, name: str) -> None:
        """Remove a collection and everything in it. ConfigError for the one the alias means."""
        ...


class Maintenance(Protocol):
    """What operators and `lookalike status` ask of the whole collection, across tenants."""

    def stats(self) -> IndexStats:
        """Figures over all tenants."""
        ...

    def sample(self) -> tuple[str, str] | None:
        """Tenant and id of some searchable image, each about as likely; None where there is none.

        For measuring (live recall), never for an answer to a tenant.
        """
        ...

    def flush(self) -> None:
        """Returns once everything applied so far is durable."""
        ...

    def tenant_stats(self, tenant_id: str) -> TenantStats:
        """Figures of one tenant; all 0 is an unknown one."""
        ...

    def delete_tenant(self, tenant_id: str) -> int:
        """Remove every point of the tenant, tombstones included; returns how many there were.

        Durable when :meth:`flush` returns. Nothing is left that would refuse an event which is
        still on its way: stop the tenant's producers first, or delete once more.
        """
        ...


class Sweeper(Protocol):
    """What forgets deletes once no older create of their image can come out of the log any more."""

    def sweep(self, before_us: int, *, limit: int) -> int:
        """Forget up to `limit` tombstones made before `before_us`, of any tenant; returns how many.

        May be called twice, and again until it returns 0.
        """
        ...


@dataclass(frozen=True, slots=True)
class IndexStats:
    """Figures of a whole collection; `attempts` counts notes by state (pending, retrying, failed)."""

    engine: str
    collection: str
    points: Mapping[State, int]
    attempts: Mapping[str, int]
    tenants: int


@dataclass(frozen=True, slots=True)
class CollectionInfo:
    """One collection: `current` where the alias means it; `waiting` points are in no graph yet.

    `name` is the one it is switched to and dropped by. On a Qdrant server a migrated collection has a number
    behind the name of its spec.
    """

    name: str
    spec: CollectionSpec
    engine: str
    current: bool
    points: int
    waiting: int


@dataclass(frozen=True, slots=True)
class TenantStats:
    """Figures of one tenant in one collection."""

    collection: str
    points: Mapping[State, int]
    attempts: Mapping[str, int]
