"""Events into the log, one by one, each confirmed before the next durable step is taken."""

from __future__ import annotations

from concurrent.futures import Future

from streams.errors import DependencyError
from streams.event import ImageEvent, encode
from streams.producer import Producer

ACK_S = 5.0
"""How long the broker may take; its producer gives a record up after this, so that a late one is rare."""


class Announcer:
    """Blocks; thread-safe. What is announced twice changes nothing (docs/semantics.md)."""

    def __init__(self, producer: Producer, topic: str, *, ack_s: float = ACK_S) -> None:
        self._producer = producer
        self._topic = topic
        self._ack_s = ack_s

    def announce(self, event: ImageEvent) -> None:
        """Returns once the broker has the event on all in-sync replicas.

        Raises:
            DependencyError: it does not say so in time. It may have it all the same.
        """
        acknowledged: Future[DependencyError | None] = Future()
        key, value, headers = encode(event)
        self._producer.send(self._topic, key=key, value=value, headers=headers, on_ack=acknowledged.set_result)
        try:
            error = acknowledged.result(self._ack_s)
        except TimeoutError as exc:
            raise DependencyError("broker", f"the broker did not confirm the event within {self._ack_s:g} s") from exc
        if error is not None:
            raise error
