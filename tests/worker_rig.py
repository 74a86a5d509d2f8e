"""A whole worker without services: the log, the index and the objects in memory, real threads between them."""

from __future__ import annotations

import threading
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from types import TracebackType
from typing import Self

from prometheus_client import CollectorRegistry

from embedder.index.exact import ExactIndex
from embedder.index.protocol import CollectionSpec, Writer
from embedder.metrics import WorkerMetrics
from embedder.models.hash_engine import HashEngine
from embedder.models.protocol import Engine
from embedder.objects.grants import Grants
from embedder.objects.memory import MemoryObjects
from embedder.stages.fetch import Decoder
from embedder.stages.hash_decoder import HashDecoder
from embedder.verdict import RetryPolicy
from embedder.worker import Worker, WorkerOptions
from streams.consume.retry import RetrySteps
from streams.event import ImageEvent, Location, encode
from streams.memory import MemoryLog, MemoryProducer, MemoryRecord, MemorySource
from streams.report.outcomes import Outcome, OutcomeState, decode
from streams.topics import Lane, TopicNames
from tests.waiting import wait_until

BUCKET = "pictures"
NAMES = TopicNames()
SPEC = CollectionSpec("hash", "test-v1", 64)
QUICK = RetryPolicy(window_s=0.4, first_delay_s=0.01, max_delay_s=0.05)
QUICK_STEPS = RetrySteps.of((0.05, 0.1, 0.15))


@dataclass
class Rig:
    """Everything outside of the worker; survives it. `index` may be wrapped to inject faults."""

    log: MemoryLog = field(default_factory=MemoryLog)
    objects: MemoryObjects = field(default_factory=MemoryObjects)
    exact: ExactIndex = field(default_factory=lambda: ExactIndex(SPEC))
    index: Writer | None = None
    producer: Callable[[MemoryLog], MemoryProducer] = MemoryProducer
    decoder: Decoder = field(default_factory=HashDecoder)
    engine: Engine = field(default_factory=HashEngine)
    policy: RetryPolicy = QUICK
    retry: RetrySteps = QUICK_STEPS
    options: WorkerOptions = field(default_factory=lambda: WorkerOptions(worker_id="w1"))
    metrics: WorkerMetrics = field(default_factory=lambda: WorkerMetrics(CollectorRegistry()))

    def publish(self, event: ImageEvent, *, lane: Lane = Lane.LIVE) -> ImageEvent:
        key, value, headers = encode(event)
        self.log.append(NAMES.lane(lane), key=key, value=value, headers=headers)
        return event

    def put(self, tenant_id: str, name: str, data: bytes) -> Location:
        """Store bytes under the tenant's prefix; the location carries their ETag."""
        key = f"{tenant_id}/{name}"
        info = self.objects.put(BUCKET, key, data)
        return Location(BUCKET, key, info.etag)

    def all_outcomes(self) -> list[Outcome]:
        return [decode(record.value) for record in self.log.records(NAMES.outcomes) if record.value is not None]

    def outcomes(self) -> list[Outcome]:
        """The last words: an event that is being retried has another outcome to come."""
        return [outcome for outcome in self.all_outcomes() if outcome.state is not OutcomeState.RETRYING]

    def states(self) -> Counter[str]:
        return Counter(outcome.state.value for outcome in self.outcomes())

    def dead(self) -> list[MemoryRecord]:
        return self.log.records(NAMES.dead)

    def metric(self, name: str, **labels: str) -> float | None:
        return self.metrics.registry.get_sample_value(name, labels)

    def work(self) -> RunningWorker:
        return RunningWorker(self)


class RunningWorker:
    """A worker in a thread; leaving the block drains it and raises what ended it."""

    def __init__(self, rig: Rig) -> None:
        self.rig = rig
        self.stop = threading.Event()
        self.source = MemorySource(rig.log, names=NAMES, retry=rig.retry)
        self.producer = rig.producer(rig.log)
        self.left: int | None = None
        self.error: BaseException | None = None
        self.worker = Worker(
            source=self.source,
            producer=self.producer,
            index=rig.index or rig.exact,
            objects=rig.objects,
            grants=Grants([BUCKET]),
            decoder=rig.decoder,
            engine=rig.engine,
            spec=SPEC,
            names=NAMES,
            metrics=rig.metrics,
            options=replace(rig.options, policy=rig.policy, retry=rig.retry),
            stop=self.stop,
        )
        self.thread = threading.Thread(target=self._run, name="worker")

    def _run(self) -> None:
        try:
            self.left = self.worker.run()
        except BaseException as exc:  # noqa: BLE001 - handed to the test
            self.error = exc

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

    def settle(self, n_outcomes: int) -> None:
        """Wait until so many last outcomes were reported in all and every offset is committed."""
        wait_until(lambda: self.error is not None or len(self.rig.outcomes()) >= n_outcomes)
        wait_until(lambda: self.error is not None or self.rig.log.committed == self.expected_commits())

    def expected_commits(self) -> dict[tuple[str, int], int]:
        """The end of every partition that has records."""
        return {
            (topic, number): len(records)
            for topic in map(NAMES.lane, Lane)
            for number, records in enumerate(self.rig.log.topics.get(topic, ()))
            if records
        }
