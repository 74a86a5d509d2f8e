"""What the API stands on, as one value: the composition root names the concrete classes, tests name others."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Protocol

from prometheus_client import CollectorRegistry

from embedder.index.points import Vector
from embedder.index.protocol import CollectionSpec, Searcher, Writer
from embedder.objects.places import Places
from embedder.objects.protocol import ObjectStore
from query_api.keys import Key
from streams.event import Location, now_us
from streams.producer import Producer

Check = Callable[[], object]
"""Asks one dependency; blocks; raises DependencyError where it is unwell, returns whatever otherwise."""


class QueryEmbedder(Protocol):
    """Turns pictures that somebody sent into vectors, away from this process. Blocks; thread-safe.

    `embed` and `thumbnail` may raise:
        EventError, RetryableError: this picture cannot be read; says why.
        QueueFullError: too many are waiting; ask again.
        TimeoutError: the deadline passed.
        DependencyError: whatever does the work is not there (yet).
    """

    def start(self) -> None:
        """Get ready in the background; returns at once. May be called twice."""
        ...

    def close(self) -> None:
        """Stop; what waits fails with DependencyError."""
        ...

    def check(self) -> None:
        """DependencyError where a picture sent now would not be embedded at once; never waits."""
        ...

    def spec(self) -> CollectionSpec:
        """What its vectors may be compared with. Waits until it is known."""
        ...

    def embed(self, data: bytes) -> Vector:
        """The vector of a picture, made by the very code that the worker runs."""
        ...

    def thumbnail(self, data: bytes) -> bytes:
        """A small upright JPEG of a picture."""
        ...


class Grants(Protocol):
    """What a tenant may read."""

    def check(self, tenant_id: str, location: Location) -> None:
        """EventError(`location_forbidden`) where the location is not the tenant's."""
        ...


class Keys(Protocol):
    """The access keys that hold now. Thread-safe."""

    def start(self) -> None:
        """Follow changes from now on; returns at once. May be called twice."""
        ...

    def close(self) -> None:
        """Follow them no more."""
        ...

    def find(self, text: str) -> Key | None:
        """The key of this text, where it holds now. Never blocks; compares in constant time."""
        ...

    def check(self) -> None:
        """DependencyError where changes cannot be followed."""
        ...


@dataclass(frozen=True, slots=True)
class Limits:
    """What a request may cost.

    `max_uploads` query pictures are in hand at once, `max_hits` and `max_page` bound an answer;
    `max_image_bytes` is the largest object that is stored, or that a thumbnail is made of; `deadline_s`
    is for one request, body included; `rate_per_s` is what a key may ask a second, None without limit.
    """

    max_body_bytes: int = 64 * 1024 * 1024
    max_json_bytes: int = 8 * 1024 * 1024
    max_uploads: int = 8
    max_image_bytes: int = 64 * 1024 * 1024
    deadline_s: float = 10.0
    rate_per_s: float | None = None
    max_batch: int = 64
    max_hits: int = 100
    max_page: int = 100
    n_index_threads: int = 8
    n_thumbnail_threads: int = 8
    n_change_threads: int = 16
    max_waiting: int = 256


@dataclass(frozen=True, slots=True, kw_only=True)
class Deps:
    """Everything `create_app` needs.

    `checks` are dependencies beyond index and objects that `/readyz` asks (the broker); `bucket` is
    where it looks to see whether the object store answers; `clock` gives seconds and never goes back.
    Events go to `topic`; `writer` writes notes and tombstones only, into what the alias means.
    Without `keys` only this machine may ask.
    """

    searcher: Searcher
    writer: Writer
    producer: Producer
    topic: str
    objects: ObjectStore
    grants: Grants
    embedder: QueryEmbedder
    places: Places
    bucket: str = "pictures"
    default_tenant: str = "demo"
    keys: Keys | None = None
    limits: Limits = Limits()
    checks: Mapping[str, Check] = field(default_factory=dict)
    registry: CollectorRegistry = field(default_factory=CollectorRegistry)
    clock: Callable[[], float] = time.monotonic
    now_us: Callable[[], int] = now_us
