"""A whole worker on a real Kafka: index and objects in memory, the network a hash, everything else as in production."""

from __future__ import annotations

import threading
from collections import Counter
from dataclasses import dataclass, field, replace
from types import TracebackType
from typing import Self

from prometheus_client import CollectorRegistry

from embedder.index.exact import ExactIndex
from embedder.index.protocol import Writer
from embedder.metrics import WorkerMetrics
from embedder.models.hash_engine import HashEngine
from embedder.models.protocol import Engine
from embedder.objects.grants import Grants
from embedder.objects.memory import MemoryObjects
from embedder.stages.fetch import Decoder
from embedder.stages.hash_decoder import HashDecoder
from embedder.worker import Worker, WorkerOptions
from streams.consume.consumer import KafkaSource
from streams.consume.retry import RetrySteps
from streams.event import Headers, ImageEvent, Location, encode
from streams.group import group_lag
from streams.producer import KafkaProducer
from streams.report.outcomes import Outcome, OutcomeState, decode
from streams.tail import Tail, TailRecord, extent
from streams.topics import Lane, TopicNames
from tests.waiting import wait_until
from tests.worker_rig import BUCKET, QUICK, SPEC

STEPS = RetrySteps.of((0.4, 0.6, 0.8))


@dataclass
class KafkaRig:
    """Everything outside of the worker; survives it."""

    client: dict[str, str]
    names: TopicNames
    objects: MemoryObjects = field(default_factory=MemoryObjects)
    exact: ExactIndex = field(default_factory=lambda: ExactIndex(SPEC))
    index: Writer | None = None
    decoder: Decoder = field(default_factory=HashDecoder)
    engine: Engine = field(default_factory=HashEngine)
    options: WorkerOptions = field(default_factory=lambda: WorkerOptions(worker_id="w1", policy=QUICK, retry=STEPS))
    metrics: WorkerMetrics = field(default_factory=lambda: WorkerMetrics(CollectorRegistry()))
    published: int = 0

    def put(self, tenant_id: str, name: str, data: bytes) -> Location:
        """Store bytes under the tenant's prefix; the location carries their ETag."""
        key = f"{tenant_id}/{name}"
        return Location(BUCKET, key, self.objects.put(BUCKET, key, data).etag)

    def publish(self, *events: ImageEvent, lane: Lane = Lane.LIVE) -> None:
        self.send(*(encode(event) for event in events), lane=lane)

    def send(self, *records: tuple[bytes | None, bytes | None, Headers], lane: Lane = Lane.LIVE) -> None:
        """Put records into a lane as they are; returns when the broker has them."""
        acks: list[object] = []
        with KafkaProducer(self.client) as producer:
            for key, value, headers in records:
                topic = self.names.lane(lane)
                producer.send(topic, key=key, value=value, headers=headers, on_ack=acks.append)
        assert acks == [None] * len(records)

    def records(self, topic: str) -> list[TailRecord]:
        """Everything in a topic now."""
        there = extent(self.client, topic)
        missing = {n for n, end in there.next_offset.items() if end > there.first_offset[n]}
        found: list[TailRecord] = []
        with Tail(self.client, topic, start={n: there.first_offset[n] for n in missing}) as tail:
            while missing:
                for record in tail.poll(wait_s=1.0):
                    found.append(record)
                    if record.offset + 1 >= there.next_offset[record.partition]:
                        missing.discard(record.partition)
        return found

    def all_outcomes(self) -> list[Outcome]:
        return [decode(record.value) for record in self.records(self.names.outcomes) if record.value is not None]

    def outcomes(self) -> list[Outcome]:
        """The last words: an event that is being retried has another outcome to come."""
        return [one for one in self.all_outcomes() if one.state is not OutcomeState.RETRYING]

    def states(self) -> Counter[str]:
        return Counter(outcome.state.value for outcome in self.outcomes())

    def dead(self) -> list[TailRecord]:
        return self.records(self.names.dead)

    def lag(self) -> int:
        """Records of all lanes that the group has not finished."""
        return sum(group_lag(self.client, f"{self.names.prefix}g", self.names.lane(lane)) for lane in Lane)

    def metric(self, name: str, **labels: str) -> float:
        return self.metrics.registry.get_sample_value(name, labels) or 0.0

    def polls(self) -> float:
        """How often the broker was polled so far."""
        return self.metric("lookalike_poll_gap_seconds_count")

    def work(self) -> RunningOnKafka:
        return RunningOnKafka(self)


class RunningOnKafka:
    """A worker in a thread; leaving the block drains it and raises what ended it."""

    def __init__(self, rig: KafkaRig) -> None:
        self.rig = rig
        self.stop = threading.Event()
        self.error: BaseException | None = None
        self.producer = KafkaProducer(rig.client)
        self.source = KafkaSource(rig.client, names=rig.names, group_id=f"{rig.names.prefix}g", retry=rig.options.retry)
        self.worker = Worker(
            source=self.source,
            producer=self.producer,
            index=rig.index or rig.exact,
            objects=rig.objects,
            grants=Grants([BUCKET]),
            decoder=rig.decoder,
            engine=rig.engine,
            spec=SPEC,
            names=rig.names,
            metrics=rig.metrics,
            options=replace(rig.options),
            stop=self.stop,
        )
        self.thread = threading.Thread(target=self._run, name="worker")

    def _run(self) -> None:
        try:
            self.worker.run()
        except BaseException as exc:  # noqa: BLE001 - handed to the test
            self.error = exc

    def die(self) -> None:
        """End as a killed process does: nothing more is committed, whatever is finished later."""
        for lane in self.source._lanes:
            for tracker in lane.trackers():
                tracker.drop()

    def settle(self, *, timeout_s: float = 60.0) -> None:
        """Wait until the group has finished every record of every lane."""
        wait_until(lambda: self.error is not None or self.rig.lag() == 0, timeout_s=timeout_s)

    def __enter__(self) -> Self:
        self.thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop.set()
        self.thread.join(60)
        self.producer.close()
        assert not self.thread.is_alive(), "the worker did not end"
        if self.error is not None and error is None:
            raise self.error
