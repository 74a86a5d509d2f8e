"""A broker that is down as the worker sees it: what was sent waits for its acknowledgement."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager

from embedder.stages.outages import BROKER_SILENT_S
from streams.errors import DependencyError
from streams.event import Headers, created
from streams.memory import MemoryLog, MemoryProducer
from streams.producer import OnAck, Silence
from tests.waiting import wait_until
from tests.worker_rig import Rig


class WithholdingProducer(MemoryProducer):
    """A broker that takes records and acknowledges none until it is `back`; `silent` seconds are what it tells."""

    def __init__(self, log: MemoryLog) -> None:
        super().__init__(log)
        self.silent = 0.0
        self.back = threading.Event()

    def send(self, topic: str, *, key: bytes | None, value: bytes | None, headers: Headers, on_ack: OnAck) -> None:
        def late(error: DependencyError | None) -> None:
            self.back.wait(60)
            on_ack(error)

        super().send(topic, key=key, value=value, headers=headers, on_ack=late)

    def silent_s(self) -> float:
        return self.silent

    @contextmanager
    def back_at_the_end(self) -> Iterator[None]:
        """Whatever the test finds, let the worker drain."""
        try:
            yield
        finally:
            self.back.set()


def test_broker_that_acknowledges_nothing_pauses_the_worker_and_is_no_hung_stage() -> None:
    """Events in flight wait with the broker: nothing new is taken, and the watchdog is not told of their age."""
    rig, told = Rig(producer=WithholdingProducer), list[float]()

    def in_flight() -> float | None:
        return rig.metric("lookalike_in_flight", kind="events")

    def publish(n: int) -> None:
        rig.publish(created("acme", f"i{n}", rig.put("acme", f"{n}.jpg", b"%d" % n)))

    for n in range(20):
        publish(n)
    running = rig.work()
    running.worker._watch = told.append
    producer = running.producer
    assert isinstance(producer, WithholdingProducer)
    with running, producer.back_at_the_end():
        wait_until(lambda: in_flight() == 20)
        producer.silent = BROKER_SILENT_S + 1
        wait_until(lambda: rig.metric("lookalike_paused", cause="broker") == 1)
        assert not running.worker.ready
        for n in range(20, 60):
            publish(n)
        looks = len(told)
        wait_until(lambda: len(told) > looks + 3)
        assert (told[-1], in_flight()) == (0.0, 20)
        producer.back.set()
        producer.silent = 0.0
        running.settle(60)
        assert rig.metric("lookalike_paused", cause="broker") == 0
    assert rig.states() == {"indexed": 60}


def test_silence_is_the_time_without_movement_while_something_waits() -> None:
    """A producer with nothing to wait for is not silent, however long ago it was asked for anything."""
    clock = [0.0]
    silence = Silence(lambda: clock[0])
    heard = []
    for at, waiting, acked in ((0, 0, 0), (100, 5, 0), (103, 5, 0), (104, 3, 2), (110, 3, 2), (111, 0, 5), (999, 0, 5)):
        clock[0] = at
        heard.append(silence.seconds(waiting=waiting, acked=acked))
    assert heard == [0, 0, 3, 0, 6, 0, 0]
