"""A dead letter that its topic does not take: less of it, rather than the same record for ever."""

from __future__ import annotations

from streams.consume.offsets import PartitionOffsets
from streams.consume.source import Delivery
from streams.errors import DependencyError, Reason, RecordTooLargeError
from streams.event import Headers
from streams.producer import OnAck
from streams.report.dead_letters import DeadLetter, DeadLetters
from streams.topics import Lane


class SmallTopic:
    """A producer whose topic takes no value above 100 bytes."""

    def __init__(self) -> None:
        self.taken: list[tuple[bytes | None, Headers]] = []

    def send(self, topic: str, *, key: bytes | None, value: bytes | None, headers: Headers, on_ack: OnAck) -> None:
        if len(value or b"") > 100:
            on_ack(RecordTooLargeError("broker", topic))
            return
        self.taken.append((value, headers))
        on_ack(None)

    def flush(self, timeout_s: float) -> int:
        return 0


def test_letter_that_does_not_fit_is_sent_without_its_value() -> None:
    """Reason, place and size of the value are kept; the offset may be finished."""
    topic, acks = SmallTopic(), list[DependencyError | None]()
    delivery = Delivery(Lane.LIVE, "images.live", 3, 7, b"k", b"x" * 101, [], 5, PartitionOffsets("images.live", 3))
    letter = DeadLetter(Reason.EVENT_INVALID, "receive", "EventError", "no", 1, "w1", 0, "c")
    DeadLetters(topic, "images.dead").report(letter, delivery, on_ack=acks.append)
    ((value, headers),) = topic.taken
    named = dict(headers)
    assert acks == [None]
    assert value is None
    assert (named["lookalike.dead.offset"], named["lookalike.dead.value_bytes"]) == (b"7", b"102")
