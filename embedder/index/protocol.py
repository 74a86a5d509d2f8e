"""What every index must do: one protocol to write, one to search. The tenant is a required argument of every call.

One contract test class (tests/contract/test_index.py) runs on every implementation: `exact`, `edge`,
and both of them behind the socket of ``lookalike index serve``.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from concurrent.futures import Future
from dataclasses import dataclass
from typing import Protocol

from embedder.index.points import Point, State, Vector, Write, Written


@dataclass(frozen=True, slots=True)
class CollectionSpec:
    """What a collection holds: vectors of exactly one (model, preprocessing), `dim` floats each."""

    model_id: str
    preprocessing_id: str
    dim: int

    @property
    def name(self) -> str:
        """The collection's name; safe as a folder name because both ids are ``[a-z0-9_.-]+``."""
        return f"{self.model_id}--{self.preprocessing_id}"


@dataclass(frozen=True, slots=True)
class Hit:
    """One similar image: `score` is the cosine, -1 to 1, higher is more alike."""

    image_id: str
    score: float


@dataclass(frozen=True, slots=True)
class Hits:
    """The answer of a search, best first; `exact` says whether every candidate was compared."""

    hits: tuple[Hit, ...]
    exact: bool


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

    def similar(self, tenant_id: str, image_id: str, *, limit: int) -> Hits | None:
        """The images most like one of the tenant's own, itself left out; None where it has no vector."""
        ...

    def search(self, tenant_id: str, vector: Vector, *, limit: int) -> Hits:
        """The images most like `vector`. EventError(`vector_invalid`) as for a write."""
        ...

    def list(self, tenant_id: str, *, limit: int, cursor: str | None = None, states: Sequence[State] = ()) -> Page:
        """A page of the tenant's images; no `states` means all. ValueError for a cursor not given out here."""
        ...

    def count(self, tenant_id: str) -> Mapping[State, int]:
        """How many of the tenant's points are in each state (0 included): all 0 is an unknown tenant."""
        ...


class Maintenance(Protocol):
    """What operators and `lookalike status` ask of the whole collection, across tenants."""

    def stats(self) -> IndexStats:
        """Figures over all tenants."""
        ...

    def flush(self) -> None:
        """Returns once everything applied so far is durable."""
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
