"""What is to be tried again later: the original record in the topic of a delay, with its due time."""

from __future__ import annotations

from streams.consume.retry import RetryNote, RetrySteps, retry_headers
from streams.consume.source import Delivery
from streams.event import now_us
from streams.producer import OnAck, Producer
from streams.topics import Lane, TopicNames


class Retries:
    """Where retry records go."""

    def __init__(self, producer: Producer, names: TopicNames, steps: RetrySteps, *, collection: str) -> None:
        self._producer = producer
        self._names = names
        self._steps = steps
        self._collection = collection

    def after(self, lane: Lane) -> Lane | None:
        """Where a record of `lane` that still fails would go; None: it has been everywhere."""
        return self._steps.after(lane)

    def report(self, delivery: Delivery, lane: Lane, note: RetryNote, *, on_ack: OnAck) -> None:
        """Send one; only after `on_ack` may the attempt be noted, the outcome sent, the offset finished."""
        due_at_us = now_us() + round(self._steps.delays_s[lane] * 1e6)
        headers = retry_headers(delivery, due_at_us=due_at_us, note=note, collection=self._collection)
        self._producer.send(
            self._names.lane(lane), key=delivery.key, value=delivery.value, headers=headers, on_ack=on_ack
        )
