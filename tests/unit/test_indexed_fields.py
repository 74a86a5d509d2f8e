"""Whatever can be asked for has its payload index: without one an answer is slow, or none on a real server."""

from __future__ import annotations

from collections.abc import Iterator
from types import ModuleType
from typing import Any

import pytest

from embedder.index.edge import conditions as edge_conditions
from embedder.index.edge import create as edge_create
from embedder.index.fields import BUILT_IN, parse_fields
from embedder.index.filters import AllOf, AnyOf, Filter, HasTag, Is, Not, Within
from embedder.index.points import State
from embedder.index.qdrant_server import conditions as server_conditions
from embedder.index.qdrant_server import schema as server_schema

FIELDS = parse_fields(["price:number", "taken_at:time"])
ENGINES = [
    pytest.param(edge_conditions, edge_create, id="edge"),
    pytest.param(server_conditions, server_schema, id="server"),
]


def _everything() -> Filter:
    """Every kind of condition, and every field that a range can name."""
    ranges = [Within(name, gte=1.0) for name in (*BUILT_IN, *(field.name for field in FIELDS))]
    return AllOf((HasTag(("red",)), AnyOf(tuple(ranges)), Not(Is("colour", ("blue",)))))


def _keys(condition: Any) -> Iterator[str]:
    if hasattr(condition, "key"):
        yield condition.key
        return
    for name in ("must", "should", "must_not"):
        for part in getattr(condition, name, None) or ():
            yield from _keys(part)


@pytest.mark.parametrize(("conditions", "made_by"), ENGINES)
def test_every_field_that_a_filter_can_name_is_indexed(conditions: ModuleType, made_by: ModuleType) -> None:
    """The filter that asks for everything asks for nothing that has no index, nor is more indexed."""
    asked = set(_keys(conditions.conditions("acme", FIELDS, _everything(), states=[State.INDEXED])))
    assert {"tenant_id", "state", "tags", "kv", "created_at_us", "declared.price"} <= asked
    facets_and_writes = {"attempt.state", "revision"}
    assert asked <= set(made_by.indexes(FIELDS)) <= asked | facets_and_writes
