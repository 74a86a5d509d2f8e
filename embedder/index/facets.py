"""How often each value of a field occurs: what has a facet, and in which order its values come."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from embedder.index.fields import Field, is_name, kinds, pairs
from embedder.index.points import Point
from embedder.index.protocol import FacetValue
from streams.errors import QueryError

TAGS = "tags"


def prefix_of(field: str, fields: Sequence[Field]) -> str:
    """What the stored keywords of the field begin with: "" for tags, ``name=`` for an attribute.

    Raises:
        QueryError: 422 `field_type` for a number or a time (they have ranges), and for what is no name.
    """
    if not is_name(field):
        raise QueryError(422, "field_type", f"{field[:80]!r} is no name of an attribute", field="field")
    known = kinds(fields).get(field)
    if known is not None:
        raise QueryError(422, "field_type", f"{field!r} is a {known}: it has ranges, not values", field="field")
    return "" if field == TAGS else f"{field}="


def values_of(field: str, point: Point | None, fields: Sequence[Field]) -> list[str]:
    """The values a point counts for, without repeats; QueryError as :func:`prefix_of`."""
    prefix = prefix_of(field, fields)
    if point is None:
        return []
    stored = point.tags if field == TAGS else pairs(point.attributes)
    return [word.removeprefix(prefix) for word in dict.fromkeys(stored) if word.startswith(prefix)]


def from_keywords(field: str, counts: Mapping[str, int], fields: Sequence[Field]) -> dict[str, int]:
    """The counts of the field's values among those of stored keywords."""
    prefix = prefix_of(field, fields)
    return {word.removeprefix(prefix): n for word, n in counts.items() if word.startswith(prefix)}


def most_frequent(counts: Mapping[str, int], limit: int) -> tuple[FacetValue, ...]:
    """The first `limit` by falling count; equal ones by name."""
    ordered = sorted(counts.items(), key=lambda item: (-item[1], item[0]))
    return tuple(FacetValue(value, count) for value, count in ordered[:limit])
