"""What is looked for: examples to be like, examples to be unlike, a filter, and which part of the answer."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TypeVar

import numpy as np
import numpy.typing as npt

from embedder.index.fields import Field
from embedder.index.filters import Filter, check_filter
from embedder.index.points import Point, Vector
from embedder.models.vectors import check_vector
from streams.errors import EventError, QueryError

Answer = TypeVar("Answer")

Example = str | Vector
"""One of the tenant's images by its id, or a vector of the collection's size and any length but 0."""
MAX_EXAMPLES = 64
MAX_REACH = 10_000
"""How far a search reaches, `offset` and `limit` together: each page compares everything before it again."""


@dataclass(frozen=True, slots=True, eq=False)
class Query:
    """The images most like all of `positive` and least like `negative`, best first.

    The examples that are named by id are never hits themselves. A hit scores at least `score_threshold`
    (a cosine, -1 to 1). `offset` leaves out so many of the best, for the next page. With `with_points`
    each hit brings its point along. With `exact` every candidate is compared, whatever that costs: what
    another search should have found.
    """

    positive: tuple[Example, ...]
    negative: tuple[Example, ...] = ()
    filter: Filter | None = None
    score_threshold: float | None = None
    limit: int = 10
    offset: int = 0
    with_points: bool = False
    exact: bool = False

    @property
    def named(self) -> tuple[str, ...]:
        """The ids among the examples, without repeats."""
        return tuple(dict.fromkeys(one for one in (*self.positive, *self.negative) if isinstance(one, str)))

    @property
    def reach(self) -> int:
        """How many of the best have to be found."""
        return self.offset + self.limit


def like(*examples: Example, limit: int = 10) -> Query:
    """The plain question: what is like these?"""
    return Query(examples, limit=limit)


def check_query(query: Query, *, dim: int, fields: Sequence[Field]) -> None:
    """Refuse what no index may be asked, before it is.

    Raises:
        ValueError: a limit below 1, an offset below 0.
        EventError: `vector_invalid` for an example that is not finite, not (dim,) or all zero.
        QueryError: 422; `query_invalid` without a positive example, with too many, beyond the reach, for a threshold
            that is no cosine; what :func:`~embedder.index.filters.check_filter` says of the filter.
    """
    check_part(query.limit, query.offset)
    if not query.positive:
        raise QueryError(422, "query_invalid", "at least one positive example is needed", field="positive")
    if len(query.positive) + len(query.negative) > MAX_EXAMPLES:
        raise QueryError(422, "query_invalid", f"at most {MAX_EXAMPLES} examples can be given", field="positive")
    if query.reach > MAX_REACH:
        raise QueryError(422, "query_invalid", f"a search reaches no farther than {MAX_REACH} hits", field="offset")
    threshold = query.score_threshold
    if threshold is not None and not (math.isfinite(threshold) and -1.0 <= threshold <= 1.0):
        raise QueryError(422, "query_invalid", "the threshold is a cosine: -1 to 1", field="score_threshold")
    for example in (*query.positive, *query.negative):
        if not isinstance(example, str):
            check_vector(example, dim)
    check_filter(query.filter, fields)


def check_part(limit: int, offset: int = 0) -> None:
    """Refuse to look for nothing: engines differ in what they make of it. ValueError."""
    if limit < 1:
        raise ValueError(f"the limit is {limit}: ask for at least 1")
    if offset < 0:
        raise ValueError(f"the offset is {offset}: it begins at 0")


def target(positive: Sequence[Vector], negative: Sequence[Vector]) -> Vector:
    """The one vector that is searched for; all are of length 1, so is the answer.

    Qdrant's "average vector" recommendation: the mean p of the positive examples, without negative
    ones; else p + (p - n), n the mean of the negative ones. One function, so that every engine agrees.

    Raises:
        QueryError: 422 `examples_cancel`, where nothing is left to look for.
    """
    if len(positive) == 1 and not negative:
        return positive[0]
    wanted: npt.NDArray[np.float64] = np.asarray(np.mean(positive, axis=0, dtype=np.float64))
    if len(negative) > 0:
        wanted = 2 * wanted - np.mean(negative, axis=0, dtype=np.float64)
    length = float(np.linalg.norm(wanted))
    if length < 1e-6:  # what float32 leaves of a difference of equals
        raise QueryError(422, "examples_cancel", "the examples cancel each other out", field="negative")
    return np.asarray(wanted / length, np.float32)


def unit(vector: Vector) -> Vector:
    """Of length 1; the caller has checked that there is one."""
    wide = np.asarray(vector, np.float64)
    return np.asarray(wide / np.linalg.norm(wide), np.float32)


def refuse_example(image_id: str, point: Point | None) -> QueryError:
    """The error of an example that has no vector here: 404 where the tenant has no such image, else 409."""
    if point is None:
        return QueryError(404, "image_not_found", f"there is no image {image_id[:128]!r}", field="positive")
    return QueryError(
        409, "image_not_indexed", f"image {image_id!r} has no vector: it is {point.state}", field="positive"
    )


def each_answered(ask: Callable[[Query], Answer], queries: Sequence[Query]) -> list[Answer | QueryError]:
    """The answers to a batch in order; a question that is the caller's mistake has its error in its place."""
    return [answered(ask, query) for query in queries]


def answered(ask: Callable[[Query], Answer], query: Query) -> Answer | QueryError:
    """The answer, or the error that says what is wrong with the question."""
    try:
        return ask(query)
    except QueryError as exc:
        return exc
    except EventError as exc:
        return QueryError(422, exc.reason.value, exc.message, field="positive")
    except ValueError as exc:
        return QueryError(422, "query_invalid", str(exc))
