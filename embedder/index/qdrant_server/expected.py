"""The condition of a write: that a point is this tenant's, and is what was read.

Made in both of the client's tongues: its models cost 50 µs a point to build and translate, its messages 10.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from qdrant_client import grpc, models

from embedder.index.payload import REVISION

NO_REVISION = "none"
"""No point has it."""


@dataclass(frozen=True, slots=True)
class Expected:
    """What is there still; where there was no point (`revision` None), nothing that exists holds."""

    tenant_id: str
    id: str
    revision: str | None


def as_model(expected: Expected) -> models.Filter:
    """The condition for the client."""
    return models.Filter(
        must=[
            models.HasIdCondition(has_id=[expected.id]),
            models.FieldCondition(key="tenant_id", match=models.MatchValue(value=expected.tenant_id)),
            models.FieldCondition(key=REVISION, match=models.MatchValue(value=expected.revision or NO_REVISION)),
        ]
    )


def as_message(expected: Expected) -> grpc.Filter:
    """The condition for its stubs."""
    return grpc.Filter(
        must=[
            grpc.Condition(has_id=grpc.HasIdCondition(has_id=[grpc.PointId(uuid=expected.id)])),
            _is("tenant_id", expected.tenant_id),
            _is(REVISION, expected.revision or NO_REVISION),
        ]
    )


def any_of(expected: Sequence[Expected]) -> grpc.Filter:
    """That one of them holds, for each point its own."""
    return grpc.Filter(should=[grpc.Condition(filter=as_message(one)) for one in expected])


def _is(key: str, value: str) -> grpc.Condition:
    return grpc.Condition(field=grpc.FieldCondition(key=key, match=grpc.Match(keyword=value)))
