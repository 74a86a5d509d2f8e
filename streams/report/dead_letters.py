"""What can never work: the original record, untouched, with its history in ``lookalike.dead.*`` headers."""

from __future__ import annotations

from dataclasses import dataclass

import msgspec

from streams.consume.retry import Attempted
from streams.consume.source import Delivery
from streams.errors import DependencyError, Reason, RecordTooLargeError
from streams.event import COLLECTION_HEADER, Headers
from streams.onward import DEAD_PREFIX, Origin, travelling
from streams.producer import OnAck, Producer

MAX_MESSAGE_CHARS = 4000
"""An error text (a traceback) is cut here: history must not outgrow the record it explains."""


@dataclass(frozen=True, slots=True)
class DeadLetter:
    """Why a record was given up. `error` is the exception's class, `cause` what `attempts_exhausted` hides.

    `history` are the rounds of tries before the last, one per retry record.
    """

    reason: Reason
    stage: str
    error: str
    message: str
    attempts: int
    worker: str
    at_us: int
    collection: str
    cause: Reason | None = None
    history: tuple[Attempted, ...] = ()

    def headers(self, delivery: Delivery) -> Headers:
        """The original headers, then this history; an older history (of a replayed record) gives way."""
        here = Origin(delivery.topic, delivery.partition, delivery.offset, delivery.timestamp_ms)
        origin = Origin.of(delivery.headers) or here
        own = {
            "topic": origin.topic,
            "partition": origin.partition,
            "offset": origin.offset,
            "timestamp_ms": origin.timestamp_ms,
            "reason": self.reason.value,
            "cause": self.cause.value if self.cause is not None else None,
            "stage": self.stage,
            "error": self.error,
            "message": self.message[:MAX_MESSAGE_CHARS],
            "attempts": self.attempts,
            "worker": self.worker,
            "at_us": self.at_us,
            "history": msgspec.json.encode(self.history).decode() if self.history else None,
        }
        kept = travelling(delivery.headers, origin=here, first_published_us=delivery.timestamp_ms * 1000)
        history = [(DEAD_PREFIX + name, str(value).encode()) for name, value in own.items() if value is not None]
        return [*kept, *history, (COLLECTION_HEADER, self.collection.encode())]


class DeadLetters:
    """Where dead letters go."""

    def __init__(self, producer: Producer, topic: str) -> None:
        self._producer = producer
        self._topic = topic

    def report(self, letter: DeadLetter, delivery: Delivery, *, on_ack: OnAck) -> None:
        """Send one; only after `on_ack` may the attempt be noted, the outcome sent, the offset finished.

        One that its topic does not take is sent without its value, and says how large that was: a record that
        nobody can dead-letter would come back for ever.
        """
        headers = letter.headers(delivery)

        def acknowledged(error: DependencyError | None) -> None:
            if not isinstance(error, RecordTooLargeError):
                on_ack(error)
                return
            dropped = (f"{DEAD_PREFIX}value_bytes", str(delivery.size_bytes).encode())
            self._producer.send(self._topic, key=delivery.key, value=None, headers=[*headers, dropped], on_ack=on_ack)

        self._producer.send(self._topic, key=delivery.key, value=delivery.value, headers=headers, on_ack=acknowledged)
