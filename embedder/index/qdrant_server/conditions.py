"""A filter of ours as a filter of the server; every one of them carries the tenant."""

from __future__ import annotations

from collections.abc import Sequence
from typing import assert_never

from qdrant_client import models

from embedder.index.fields import Field, pair
from embedder.index.filters import AllOf, AnyOf, Filter, HasTag, Is, Not, Within, whole
from embedder.index.payload import is_whole, key_of
from embedder.index.points import State


def conditions(
    tenant_id: str, fields: Sequence[Field] = (), condition: Filter | None = None, *, states: Sequence[State] = ()
) -> models.Filter:
    """The tenant, and what else has to hold; `fields` are those of the collection.

    An empty filter would mean every tenant, in a delete as well, strict mode or not: it cannot come out of here.
    """
    if not tenant_id:
        raise ValueError("a filter without a tenant would mean all of them")
    must: list[models.Condition] = [_keyword("tenant_id", [tenant_id])]
    if states:
        must.append(_keyword("state", [state.value for state in states]))
    if condition is not None:
        must.append(_translated(condition, fields))
    return models.Filter(must=must)


def any_tenant(state: State) -> models.Filter:
    """Points of this state, whoever's: for maintenance, never for an answer to a tenant, never for a delete."""
    return models.Filter(must=[_keyword("state", [state.value])])


def _keyword(key: str, any_of: Sequence[str]) -> models.FieldCondition:
    match: models.MatchValue | models.MatchAny
    match = models.MatchValue(value=any_of[0]) if len(any_of) == 1 else models.MatchAny(any=list(any_of))
    return models.FieldCondition(key=key, match=match)


def _translated(condition: Filter, fields: Sequence[Field]) -> models.Condition:
    match condition:
        case HasTag():
            return _keyword("tags", condition.any_of)
        case Is():
            return _keyword("kv", [pair(condition.name, value) for value in condition.any_of])
        case Within():
            return _range(condition, fields)
        case AllOf():
            return models.Filter(must=[_translated(part, fields) for part in condition.parts])
        case AnyOf():
            return models.Filter(should=[_translated(part, fields) for part in condition.parts])
        case Not():
            return models.Filter(must_not=[_translated(condition.part, fields)])
        case _:
            assert_never(condition)


def _range(condition: Within, fields: Sequence[Field]) -> models.FieldCondition:
    asked = whole(condition) if is_whole(condition.field, fields) else condition
    bounds = models.Range(gte=asked.gte, gt=asked.gt, lte=asked.lte, lt=asked.lt)
    return models.FieldCondition(key=key_of(condition.field, fields), range=bounds)
