"""A search as it is asked over HTTP, checked against the collection and made a question for the index."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import msgspec
import numpy as np

from embedder.index.points import Vector
from embedder.index.protocol import CollectionSpec, Hits
from embedder.index.query import MAX_EXAMPLES, MAX_REACH, Query
from query_api import cursors
from query_api.answers import FIELDS, Json, hit_of
from query_api.filter_language import read_filter
from query_api.params import DEFAULT_HITS, image_not_found
from streams.errors import QueryError
from streams.event import IMAGE_ID_PATTERN

_image_id = re.compile(IMAGE_ID_PATTERN)


class SearchBody(msgspec.Struct, forbid_unknown_fields=True, kw_only=True):
    """What `search` takes, and each member of a batch. An example is an image's id or a vector."""

    positive: list[str | list[float]]
    negative: list[str | list[float]] = msgspec.field(default_factory=list)
    filter: Any = None
    score_threshold: float | None = None
    limit: int = DEFAULT_HITS
    cursor: str | None = None
    fields: list[str] = msgspec.field(default_factory=list)


class BatchBody(msgspec.Struct, forbid_unknown_fields=True):
    """What `search/batch` takes."""

    searches: list[SearchBody]


@dataclass(frozen=True, slots=True)
class Asked:
    """A question, and what makes its answer a page."""

    query: Query
    limit: int
    fields: tuple[str, ...]
    question: bytes

    def page(self, hits: Hits) -> Json:
        """The part of the answer that is this question's. One hit more was asked for: it tells of a next page."""
        more = len(hits.hits) > self.limit
        return {
            "hits": [hit_of(hit, self.fields) for hit in hits.hits[: self.limit]],
            "exact": hits.exact,
            "next_cursor": cursors.write(self.query.offset + self.limit, self.question) if more else None,
        }


def read_search(tenant_id: str, body: SearchBody, spec: CollectionSpec, *, max_hits: int, at: str = "") -> Asked:
    """The question; `at` is put before the names of fields (a member of a batch).

    Raises:
        QueryError: 400 with the field that is wrong; 404 for an id that no image can have.
    """
    if not 1 <= body.limit <= max_hits:
        raise invalid(f"{at}limit", f"limit must be from 1 to {max_hits}")
    if not body.positive or len(body.positive) + len(body.negative) > MAX_EXAMPLES:
        raise invalid(f"{at}positive", f"give one positive example at least, and {MAX_EXAMPLES} of both at most")
    if body.score_threshold is not None and not -1.0 <= body.score_threshold <= 1.0:
        raise invalid(f"{at}score_threshold", "the threshold is a cosine: -1 to 1")
    query = Query(
        positive=_examples(body.positive, spec.dim, f"{at}positive"),
        negative=_examples(body.negative, spec.dim, f"{at}negative"),
        filter=read_filter(body.filter, spec.fields, at=f"{at}filter"),
        score_threshold=body.score_threshold,
        with_points=bool(body.fields),
    )
    question = bound_to(tenant_id, query, spec)
    offset = 0
    if body.cursor is not None:
        offset = cursors.read(body.cursor, int, question, field=f"{at}cursor")
        if not 0 <= offset < MAX_REACH:
            raise invalid(f"{at}cursor", f"{at}cursor is not a next_cursor of this API")
    limit = min(body.limit, MAX_REACH - offset)
    return Asked(
        query=replace(query, limit=min(limit + 1, MAX_REACH - offset), offset=offset),
        limit=limit,
        fields=read_fields(body.fields, at=f"{at}fields"),
        question=question,
    )


def bound_to(tenant_id: str, query: Query, spec: CollectionSpec) -> bytes:
    """What a cursor of this question is bound to: another collection ranks otherwise."""
    examples = [
        [one if isinstance(one, str) else one.tobytes() for one in some] for some in (query.positive, query.negative)
    ]
    return cursors.bound_to("search", tenant_id, spec.name, examples, query.filter, query.score_threshold)


def read_fields(names: Sequence[str], *, at: str = "fields") -> tuple[str, ...]:
    """What each hit brings along beside its id and score. QueryError: 400 for what no image has."""
    for name in names:
        if name not in FIELDS:
            raise QueryError(400, "unknown_field", f"{name[:80]!r} is no field of a hit: {', '.join(FIELDS)}", field=at)
    return tuple(dict.fromkeys(names))


def _examples(given: Sequence[str | list[float]], dim: int, at: str) -> tuple[str | Vector, ...]:
    return tuple(
        _id(one, f"{at}.{i}") if isinstance(one, str) else _vector(one, dim, f"{at}.{i}") for i, one in enumerate(given)
    )


def _id(given: str, at: str) -> str:
    if _image_id.match(given) is None:
        raise image_not_found(given, field=at)
    return given


def _vector(given: list[float], dim: int, at: str) -> Vector:
    """Refused here already: nothing that no vector can be reaches the index."""
    if len(given) != dim:
        raise QueryError(
            400, "vector_invalid", f"the vector has {len(given)} numbers, the collection's have {dim}", field=at
        )
    with np.errstate(over="ignore"):  # what float32 cannot say becomes infinite, and is refused as such
        vector: Vector = np.asarray(given, np.float64).astype(np.float32)
        length = float(np.linalg.norm(vector.astype(np.float64)))
    if not np.isfinite(vector).all() or length == 0 or not np.isfinite(length):
        raise QueryError(400, "vector_invalid", "the vector is not finite, or all zero", field=at)
    return vector


def invalid(field: str, message: str) -> QueryError:
    """A body that can be read and not be used."""
    return QueryError(400, "invalid_body", message, field=field)
