"""One record per finished event: what became of it, why, and how long each stage took."""

from __future__ import annotations

from collections.abc import Mapping
from enum import StrEnum

import msgspec

from streams.errors import Reason
from streams.event import COLLECTION_HEADER, TRACEPARENT_HEADER, Headers
from streams.producer import OnAck, Producer


class OutcomeState(StrEnum):
    """What became of an event."""

    INDEXED = "indexed"
    UNCHANGED = "unchanged"
    SUPERSEDED = "superseded"
    DELETED = "deleted"
    RETRYING = "retrying"
    """Not the last word: a retry record exists, and another outcome of the same event follows."""
    FAILED = "failed"


class Outcome(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """What became of one event.

    Ids are None only where the record could not be read as an event. `stage_s` is wall time per
    stage in seconds, `freshness_s` first publish to searchable; `cause` is the last thing that went
    wrong behind `attempts_exhausted`.
    """

    state: OutcomeState
    topic: str
    partition: int
    offset: int
    collection: str
    worker: str
    at_us: int
    event_id: str | None = None
    tenant_id: str | None = None
    image_id: str | None = None
    version: int | None = None
    reason: Reason | None = None
    cause: Reason | None = None
    message: str | None = None
    stage_s: Mapping[str, float] = msgspec.field(default_factory=dict)
    freshness_s: float | None = None
    engine: str | None = None


encode = msgspec.json.Encoder().encode
_decode = msgspec.json.Decoder(Outcome).decode


def decode(value: bytes) -> Outcome:
    """The outcome of a record of `images.outcomes`; fields of later versions are ignored.

    Raises:
        ValueError: it is none.
    """
    try:
        return _decode(value)
    except msgspec.DecodeError as exc:
        raise ValueError(f"not an outcome: {exc}") from exc


class Outcomes:
    """Where outcomes go."""

    def __init__(self, producer: Producer, topic: str) -> None:
        self._producer = producer
        self._topic = topic

    def report(self, outcome: Outcome, *, key: bytes | None, on_ack: OnAck, traceparent: str | None = None) -> None:
        """Send one; the event's offset may be finished only in `on_ack`. A trace goes on with `traceparent`."""
        headers: Headers = [(COLLECTION_HEADER, outcome.collection.encode())]
        if traceparent is not None:
            headers.append((TRACEPARENT_HEADER, traceparent.encode()))
        self._producer.send(self._topic, key=key, value=encode(outcome), headers=headers, on_ack=on_ack)
