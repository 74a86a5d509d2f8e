"""What a search or a list may be narrowed by: a frozen tree that every engine translates for itself.

    Filter
    ├── HasTag       at least one of these tags
    ├── Is           an attribute is one of these strings or bools
    ├── Within       a number or a time lies in a range
    ├── AllOf        every part holds
    ├── AnyOf        at least one part holds
    └── Not          the part does not hold (also where the picture has no such value)

An empty condition cannot be built: a filter that says nothing must never become one that matches
everything. The state of a point is no field of a filter. :func:`matches` is what all of it means;
the exact index runs it, the tests hold every other engine against it.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import assert_never

import msgspec

from embedder.index.fields import Field, Kind, declared_values, is_name, kinds, pair, pairs
from embedder.index.points import Point
from streams.errors import QueryError
from streams.event import MAX_INTEGER

MAX_DEPTH = 6
MAX_SIZE = 128
"""Conditions and values of one filter: more than a person writes, less than what stalls a search."""


class HasTag(msgspec.Struct, frozen=True, tag="tag"):
    """At least one of these tags, compared whole and as written."""

    any_of: tuple[str, ...]

    def __post_init__(self) -> None:
        _not_empty(self.any_of, "a condition on tags")


class Is(msgspec.Struct, frozen=True, tag="is"):
    """The attribute `name` is one of `any_of`; a bool is the same as the words ``true`` and ``false``."""

    name: str
    any_of: tuple[str | bool, ...]

    def __post_init__(self) -> None:
        if not is_name(self.name):
            raise ValueError(f"{self.name[:80]!r} is no name of an attribute")
        _not_empty(self.any_of, f"the condition on {self.name!r}")


class Within(msgspec.Struct, frozen=True, tag="within"):
    """The field lies in a range; times are microseconds since 1970. At most one bound on either side."""

    field: str
    gte: int | float | None = None
    gt: int | float | None = None
    lte: int | float | None = None
    lt: int | float | None = None

    def __post_init__(self) -> None:
        bounds = [bound for bound in (self.gte, self.gt, self.lte, self.lt) if bound is not None]
        _not_empty(bounds, f"the range of {self.field!r}")
        if not all(abs(bound) <= MAX_INTEGER if isinstance(bound, int) else math.isfinite(bound) for bound in bounds):
            raise ValueError(f"the range of {self.field!r} has a bound that is no number, or a whole one beyond 2**53")
        if (self.gte is not None and self.gt is not None) or (self.lte is not None and self.lt is not None):
            raise ValueError(f"the range of {self.field!r} has two bounds on one side")


class AllOf(msgspec.Struct, frozen=True, tag="all"):
    """Every part holds."""

    parts: tuple[Filter, ...]

    def __post_init__(self) -> None:
        _not_empty(self.parts, "all of")


class AnyOf(msgspec.Struct, frozen=True, tag="any"):
    """At least one part holds."""

    parts: tuple[Filter, ...]

    def __post_init__(self) -> None:
        _not_empty(self.parts, "any of")


class Not(msgspec.Struct, frozen=True, tag="not"):
    """The part does not hold."""

    part: Filter


Filter = HasTag | Is | Within | AllOf | AnyOf | Not


def _not_empty(parts: Sequence[object], what: str) -> None:
    if not parts:
        raise ValueError(f"{what} is empty")


# ---- limits --------------------------------------------------------------------------------------


def depth(condition: Filter) -> int:
    """How deep conditions are nested; a single one is 1."""
    match condition:
        case AllOf() | AnyOf():
            return 1 + max(depth(part) for part in condition.parts)
        case Not():
            return 1 + depth(condition.part)
        case _:
            return 1


def size(condition: Filter) -> int:
    """Conditions and values, counted together."""
    return sum(1 + (len(one.any_of) if isinstance(one, HasTag | Is) else 0) for one in walk(condition))


def walk(condition: Filter) -> Iterator[Filter]:
    """The condition and everything in it."""
    yield condition
    match condition:
        case AllOf() | AnyOf():
            for part in condition.parts:
                yield from walk(part)
        case Not():
            yield from walk(condition.part)


def check_filter(condition: Filter | None, fields: Sequence[Field]) -> None:
    """Refuse what no index may be asked.

    Raises:
        QueryError: 422 `filter_too_large` (depth, size), `field_undeclared` (a range of what is neither built in nor
            among `fields`), `field_type` (the words of a field that is declared as a number or a time).
    """
    if condition is None:
        return
    if depth(condition) > MAX_DEPTH or size(condition) > MAX_SIZE:
        raise QueryError(
            422,
            "filter_too_large",
            f"a filter may be {MAX_DEPTH} deep and hold {MAX_SIZE} conditions and values",
            field="filter",
        )
    known = kinds(fields)
    for one in walk(condition):
        _check_one(one, known)


def _check_one(one: Filter, known: Mapping[str, Kind]) -> None:
    if isinstance(one, Within) and one.field not in known:
        raise QueryError(
            422,
            "field_undeclared",
            f"{one.field[:80]!r} has no range: declared are {', '.join(sorted(known))}",
            field="filter",
        )
    if isinstance(one, Is) and one.name in known:
        raise QueryError(
            422, "field_type", f"{one.name!r} is a {known[one.name]}: ask for a range of it", field="filter"
        )


# ---- what it means -------------------------------------------------------------------------------


def matches(condition: Filter, point: Point, fields: Sequence[Field] = ()) -> bool:
    """Whether a point satisfies the condition; `fields` are those of its collection."""
    match condition:
        case HasTag():
            return not set(condition.any_of).isdisjoint(point.tags)
        case Is():
            wanted = {pair(condition.name, value) for value in condition.any_of}
            return not wanted.isdisjoint(pairs(point.attributes))
        case Within():
            return _within(condition, number_of(point, condition.field, fields))
        case AllOf():
            return all(matches(part, point, fields) for part in condition.parts)
        case AnyOf():
            return any(matches(part, point, fields) for part in condition.parts)
        case Not():
            return not matches(condition.part, point, fields)
        case _:
            assert_never(condition)


def number_of(point: Point, name: str, fields: Sequence[Field]) -> int | float | None:
    """What a range of the field is compared with; None where the picture has no such value."""
    match name:
        case "width_px":
            return point.width_px
        case "height_px":
            return point.height_px
        case "created_at":
            return point.created_at_us
        case "indexed_at":
            return point.indexed_at_us
        case _:
            return declared_values(point.attributes, fields).get(name)


def _within(condition: Within, value: float | None) -> bool:
    if value is None:
        return False
    return (
        (condition.gte is None or value >= condition.gte)
        and (condition.gt is None or value > condition.gt)
        and (condition.lte is None or value <= condition.lte)
        and (condition.lt is None or value < condition.lt)
    )


def whole(condition: Within) -> Within:
    """The same range of whole numbers, with whole bounds: Qdrant cuts the fraction of a bound off,
    and so "below 2.5" would leave out 2."""
    return Within(
        condition.field,
        gte=_rounded(condition.gte, math.ceil),
        gt=_rounded(condition.gt, math.floor),
        lte=_rounded(condition.lte, math.floor),
        lt=_rounded(condition.lt, math.ceil),
    )


def _rounded(bound: float | None, rounding: Callable[[float], int]) -> int | float | None:
    """A bound beyond what is stored has no fraction to lose."""
    return bound if bound is None or abs(bound) > MAX_INTEGER else rounding(bound)
