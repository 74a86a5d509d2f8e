"""A point as Qdrant's payload and back. One place, so that Edge and a server store the very same fields."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import msgspec

from embedder.index.fields import Field, Kind, declared_values, pairs
from embedder.index.points import Point

DECLARED = "declared"
"""The object that holds the declared numbers and times, under their own names."""
REVISION = "revision"
"""On a server only: new with each write, so that a write can be bound to what it was decided on."""
KEYWORDS = ("state", "tags", "kv", "attempt.state")
INTEGERS = ("created_at_us", "indexed_at_us", "width_px", "height_px")
"""Fields that can be filtered by, indexed before the first point: an index made later gives 0 results
on a real server (docs/index.md). None of them builds a graph; only `tenant_id` does. What nobody filters by has no
index: each costs memory, and time in every flush and at every opening (docs/index.md)."""
_BUILT_IN = {"created_at": "created_at_us", "indexed_at": "indexed_at_us"}


def to_payload(point: Point, fields: Sequence[Field] = ()) -> dict[str, Any]:
    """What is stored: every field that is not None, and once more what filters ask for: the string and bool
    attributes as `kv`, the declared ones as numbers under `declared`."""
    plain: dict[str, Any] = msgspec.to_builtins(point)
    payload = {name: value for name, value in plain.items() if value is not None}
    payload["kv"] = pairs(point.attributes)
    kinds = {field.name: field.kind for field in fields}
    payload[DECLARED] = {
        name: float(value) if kinds[name] is Kind.NUMBER else value
        for name, value in declared_values(point.attributes, fields).items()
    }
    return payload


def key_of(field: str, fields: Sequence[Field]) -> str:
    """Where in the payload a field lies that ranges can be asked of."""
    if any(field == declared.name for declared in fields):
        return f"{DECLARED}.{field}"
    return _BUILT_IN.get(field, field)


def is_whole(field: str, fields: Sequence[Field]) -> bool:
    """Whether the field is stored as an integer: all but the declared numbers."""
    return all(field != declared.name or declared.kind is not Kind.NUMBER for declared in fields)


def from_payload(payload: Mapping[str, Any]) -> Point:
    """The point that :func:`to_payload` was given.

    Raises:
        ValueError: the payload is not one of ours.
    """
    try:
        return msgspec.convert(dict(payload), Point)
    except msgspec.ValidationError as exc:
        raise ValueError(f"a stored point cannot be read: {exc}") from exc
