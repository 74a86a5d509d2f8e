"""The worker with everything free but itself: real Kafka, objects in memory, no network, `exact` in process."""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from prometheus_client import CollectorRegistry

from embedder.index.exact import ExactIndex
from embedder.index.protocol import CollectionSpec
from embedder.metrics import WorkerMetrics
from embedder.models.protocol import ModelInfo, Pixels
from embedder.objects.grants import Grants
from embedder.objects.memory import MemoryObjects
from embedder.stages.hash_decoder import HashDecoder
from embedder.worker import Worker, WorkerOptions
from lookalike.bench.proc import rss_mb, thread_cpu_s
from lookalike.bench.real import less
from lookalike.following import OutcomeFollower
from streams.consume.consumer import KafkaSource
from streams.event import Location, created, encode
from streams.producer import KafkaProducer
from streams.report.outcomes import Outcome
from streams.threads import collect_rarely, name_this_thread
from streams.topics import Lane, TopicNames, create, specs

DIM = 1280
BUCKET = "pictures"
PARTITIONS = 8
N_TENANTS = 8


class FreeEngine:
    """A vector seeded by the first pixel: what a network would give, at no cost."""

    def __init__(self) -> None:
        self._rows = np.random.default_rng(0).standard_normal((256, DIM)).astype(np.float32)
        self._rows /= np.linalg.norm(self._rows, axis=1, keepdims=True)

    @property
    def name(self) -> str:
        return "free"

    @property
    def info(self) -> ModelInfo:
        return ModelInfo("free", DIM, 8, "bilinear", (0.0, 0.0, 0.0), (1.0, 1.0, 1.0), "Apache-2.0")

    def embed(self, pixels: Pixels) -> npt.NDArray[np.float32]:
        rows: npt.NDArray[np.float32] = self._rows[pixels[:, 0, 0, 0].astype(np.intp)]
        return rows


@dataclass(frozen=True, slots=True)
class StubRun:
    """What one run gave; times in seconds, memory in MiB of the whole process."""

    events: int
    seconds: float
    cpu_s: float
    thread_cpu_s: dict[str, float]
    outcomes: list[Outcome]
    rss_start_mb: float
    rss_end_mb: float
    poll_gaps_over_100_ms: int


def run_stub(bootstrap: str, *, n_events: int, n_images: int, prefix: str) -> StubRun:
    """Publish `n_events` about `n_images`, then start a worker on them; outcomes are read when all are finished.

    The index lies in this process: with as many images as events, memory grows by their vectors (5 KB each).
    """
    client: dict[str, str | int] = {"bootstrap.servers": bootstrap, "log_level": 0}
    names = TopicNames(prefix)
    create(client, specs(names, partitions=PARTITIONS))
    objects = MemoryObjects()
    events = _publish(client, names, objects, n_events, n_images)
    spec = CollectionSpec("free", "stub-v1", DIM)
    metrics = WorkerMetrics(CollectorRegistry())
    collect_rarely()  # as `lookalike worker` does
    rss_start_mb = rss_mb(os.getpid())
    with (
        OutcomeFollower(client, names.outcomes) as follower,
        _worker(client, names, objects, ExactIndex(spec), spec, metrics),
    ):
        started, cpu, threads = time.monotonic(), time.process_time(), thread_cpu_s(os.getpid(), main="bench")
        while metrics.finished.total < n_events:
            time.sleep(0.01)  # what is measured is a process: asking it costs less than being told
        seconds, cpu_s = time.monotonic() - started, time.process_time() - cpu
        spent = less(thread_cpu_s(os.getpid(), main="bench"), threads)
        rss_end_mb = rss_mb(os.getpid())
        outcomes = list(follower.wait(events).values())
    return StubRun(n_events, seconds, cpu_s, spent, outcomes, rss_start_mb, rss_end_mb, _gaps_over(metrics, "0.1"))


def _gaps_over(metrics: WorkerMetrics, bound_s: str) -> int:
    """How many times between two polls were longer than a bucket's bound."""
    below = metrics.registry.get_sample_value("lookalike_poll_gap_seconds_bucket", {"le": bound_s})
    polls = metrics.registry.get_sample_value("lookalike_poll_gap_seconds_count")
    assert below is not None
    assert polls is not None
    return round(polls - below)


def _publish(
    client: dict[str, str | int], names: TopicNames, objects: MemoryObjects, n_events: int, n_images: int
) -> list[str]:
    """The ids of the events that the log has."""
    failed: list[object] = []
    ids: list[str] = []
    with KafkaProducer(client) as producer:
        for n in range(n_events):
            tenant = f"t{n % N_TENANTS}"
            key = f"{tenant}/{n % 1000}.jpg"
            objects.put(BUCKET, key, b"%d" % (n % 1000))
            event = created(tenant, f"i{n % n_images}", Location(BUCKET, key))
            ids.append(event.event_id)
            record_key, value, headers = encode(event)
            producer.send(
                names.lane(Lane.LIVE),
                key=record_key,
                value=value,
                headers=headers,
                on_ack=lambda error: failed.append(error) if error else None,
            )
    if failed:
        raise RuntimeError(f"{len(failed)} of {n_events} events were not accepted: {failed[0]}")
    return ids


@contextmanager
def _worker(
    client: dict[str, str | int],
    names: TopicNames,
    objects: MemoryObjects,
    index: ExactIndex,
    spec: CollectionSpec,
    metrics: WorkerMetrics,
) -> Iterator[None]:
    stop = threading.Event()
    with (
        KafkaProducer(client, linger_ms=5) as producer,
        ThreadPoolExecutor(1, initializer=name_this_thread, initargs=("embed",)) as pool,
    ):
        worker = Worker(
            source=KafkaSource(client, names=names, group_id=f"{names.prefix}bench"),
            producer=producer,
            index=index,
            objects=objects,
            grants=Grants([BUCKET]),
            decoder=HashDecoder(input_px=8),
            engine=FreeEngine(),
            spec=spec,
            names=names,
            metrics=metrics,
            options=WorkerOptions(worker_id="bench", fetch_threads=1, max_batch=256, max_in_flight=8192),
            stop=stop,
        )
        running = pool.submit(worker.run)
        try:
            yield
        finally:
            stop.set()
            running.result(60)
