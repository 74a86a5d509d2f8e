"""A filter of ours as a filter of Qdrant Edge; every one of them carries the tenant."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, assert_never

from qdrant_edge import FieldCondition, MatchAny, MatchValue, RangeFloat
from qdrant_edge import Filter as EdgeFilter

from embedder.index.fields import Field, pair
from embedder.index.filters import AllOf, AnyOf, Filter, HasTag, Is, Not, Within, whole
from embedder.index.payload import is_whole, key_of
from embedder.index.points import State


def conditions(
    tenant_id: str, fields: Sequence[Field] = (), condition: Filter | None = None, *, states: Sequence[State] = ()
) -> EdgeFilter:
    """The tenant, and what else has to hold; `fields` are those of the collection."""
    must: list[Any] = [FieldCondition(key="tenant_id", match=MatchValue(tenant_id))]
    if states:
        must.append(FieldCondition(key="state", match=MatchAny([state.value for state in states])))
    if condition is not None:
        must.append(_translated(condition, fields))
    return EdgeFilter(must=must)


def any_tenant(state: State) -> EdgeFilter:
    """Points of this state, whoever's: for maintenance, never for an answer to a tenant."""
    return EdgeFilter(must=[FieldCondition(key="state", match=MatchValue(state.value))])


def _translated(condition: Filter, fields: Sequence[Field]) -> Any:
    match condition:
        case HasTag():
            return FieldCondition(key="tags", match=MatchAny(list(condition.any_of)))
        case Is():
            return FieldCondition(key="kv", match=MatchAny([pair(condition.name, value) for value in condition.any_of]))
        case Within():
            return _range(condition, fields)
        case AllOf():
            return EdgeFilter(must=[_translated(part, fields) for part in condition.parts])
        case AnyOf():
            return EdgeFilter(should=[_translated(part, fields) for part in condition.parts])
        case Not():
            return EdgeFilter(must_not=[_translated(condition.part, fields)])
        case _:
            assert_never(condition)


def _range(condition: Within, fields: Sequence[Field]) -> FieldCondition:
    asked = whole(condition) if is_whole(condition.field, fields) else condition
    bounds = RangeFloat(gte=asked.gte, gt=asked.gt, lte=asked.lte, lt=asked.lt)
    return FieldCondition(key=key_of(condition.field, fields), range=bounds)
