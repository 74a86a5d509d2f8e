"""What can never work: the original record, untouched, with its history in ``lookalike.dead.*`` headers."""

from __future__ import annotations

from dataclasses import dataclass

from streams.consume.source import Delivery
from streams.errors import Reason
from streams.event import COLLECTION_HEADER, Headers
from streams.producer import OnAck, Producer

PREFIX = "lookalike.dead."
MAX_MESSAGE_CHARS = 4000
"""An error text (a traceback) is cut here: history must not outgrow the record it explains."""


@dataclass(frozen=True, slots=True)
class DeadLetter:
    """Why a record was given up. `error` is the exception's class, `cause` what `attempts_exhausted` hides."""

    reason: Reason
    stage: str
    error: str
    message: str
    attempts: int
    worker: str
    at_us: int
    collection: str
    cause: Reason | None = None

    def headers(self, delivery: Delivery) -> Headers:
        """The original headers, then this history; an older history (of a replayed record) gives way."""
        own = {
            "topic": delivery.topic,
            "partition": delivery.partition,
            "offset": delivery.offset,
            "timestamp_ms": delivery.timestamp_ms,
            "reason": self.reason.value,
            "cause": self.cause.value if self.cause is not None else None,
            "stage": self.stage,
            "error": self.error,
            "message": self.message[:MAX_MESSAGE_CHARS],
            "attempts": self.attempts,
            "worker": self.worker,
            "at_us": self.at_us,
        }
        kept = [(n, v) for n, v in delivery.headers if not n.startswith(PREFIX) and n != COLLECTION_HEADER]
        history = [(PREFIX + name, str(value).encode()) for name, value in own.items() if value is not None]
        return [*kept, *history, (COLLECTION_HEADER, self.collection.encode())]


class DeadLetters:
    """Where dead letters go."""

    def __init__(self, producer: Producer, topic: str) -> None:
        self._producer = producer
        self._topic = topic

    def report(self, letter: DeadLetter, delivery: Delivery, *, on_ack: OnAck) -> None:
        """Send one; only after `on_ack` may the attempt be noted, the outcome sent, the offset finished."""
        self._producer.send(
            self._topic, key=delivery.key, value=delivery.value, headers=letter.headers(delivery), on_ack=on_ack
        )
