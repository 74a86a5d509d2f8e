"""A point as Qdrant's payload and back. One place, so that Edge and a server store the very same fields."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import msgspec

from embedder.index.points import Point
from streams.event import Attribute

KEYWORDS = ("image_id", "state", "etag", "sha256", "tags", "kv", "engine", "attempt.state", "attempt.reason")
INTEGERS = ("version", "created_at_us", "indexed_at_us", "width_px", "height_px", "attempt.version")
"""Fields that can be filtered by, indexed before the first point: an index made later gives 0 results
on a real server (docs/index.md). None of them builds a graph; only `tenant_id` does."""


def to_payload(point: Point) -> dict[str, Any]:
    """What is stored: every field that is not None, and the string and bool attributes once more as `kv`."""
    plain: dict[str, Any] = msgspec.to_builtins(point)
    payload = {name: value for name, value in plain.items() if value is not None}
    payload["kv"] = pairs(point.attributes)
    return payload


def from_payload(payload: Mapping[str, Any]) -> Point:
    """The point that :func:`to_payload` was given.

    Raises:
        ValueError: the payload is not one of ours.
    """
    try:
        return msgspec.convert(dict(payload), Point)
    except msgspec.ValidationError as exc:
        raise ValueError(f"a stored point cannot be read: {exc}") from exc


def pairs(attributes: Mapping[str, Attribute]) -> list[str]:
    """String and bool attributes as ``name=value``: one keyword field filters any number of names."""
    return [
        f"{name}={str(value).lower() if isinstance(value, bool) else value}"
        for name, value in sorted(attributes.items())
        if isinstance(value, str | bool)
    ]
