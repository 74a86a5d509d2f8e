"""Blocking questions that several routes ask of the index. Never called on the event loop's thread."""

from __future__ import annotations

from collections.abc import Callable
from typing import Never

from embedder.index.points import Point, State
from embedder.index.protocol import CollectionSpec, Searcher
from query_api.params import image_not_found, tenant_not_found
from streams.errors import QueryError

SPEC_AGE_S = 1.0
"""How long the alias is believed: a second trip to the index for each query costs it a sixth of its capacity."""


class CurrentSpec:
    """What the collection behind the alias holds, asked for about once a second."""

    def __init__(self, searcher: Searcher, clock: Callable[[], float]) -> None:
        self._searcher = searcher
        self._clock = clock
        self._known: tuple[float, CollectionSpec] | None = None

    def get(self) -> CollectionSpec:
        """Blocks; thread-safe (at worst two threads ask at once). Raises DependencyError."""
        known, now = self._known, self._clock()
        if known is not None and now - known[0] < SPEC_AGE_S:
            return known[1]
        spec = self._searcher.spec()
        self._known = (now, spec)
        return spec


def require_tenant(searcher: Searcher, tenant_id: str) -> None:
    """404 where no point of the tenant exists, tombstones included."""
    if not any(searcher.count(tenant_id).values()):
        raise tenant_not_found(tenant_id)


def require_image(searcher: Searcher, tenant_id: str, image_id: str) -> Point:
    """The tenant's image, whatever its state; 404 where it has none of that id."""
    point = searcher.get(tenant_id, image_id)
    if point is None:
        require_tenant(searcher, tenant_id)
        raise image_not_found(image_id)
    return point


def refuse_not_indexed(point: Point) -> Never:
    """409: the image is known, and there is nothing to compare or to show; says why."""
    what = {State.DELETED: "is deleted", State.EMPTY: "has never been indexed"}.get(point.state, "changes just now")
    attempt, why = point.attempt, ""
    if attempt is not None:
        reason = f" ({attempt.reason})" if attempt.reason is not None else ""
        why = f"; its newest try is {attempt.state}{reason} after {attempt.tries} tries"
    raise QueryError(409, "image_not_indexed", f"image {point.image_id} {what}{why}", field="id")
