"""A worker whose pictures cost what is set: in this process for freshness, in processes of its own for scaling.

Run as ``python -m lookalike.bench.set_cost BOOTSTRAP PREFIX SOCKET COST_MS``, a worker that burns the CPU
for COST_MS a picture, until SIGTERM.
"""

from __future__ import annotations

import hashlib
import signal
import sys
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing, contextmanager
from pathlib import Path

import numpy as np
import numpy.typing as npt
from prometheus_client import CollectorRegistry

from embedder.index.protocol import CollectionSpec, Writer
from embedder.index.service.client import IndexClient
from embedder.metrics import WorkerMetrics
from embedder.models.protocol import ModelInfo, Pixels
from embedder.objects.grants import Grants
from embedder.objects.protocol import Object, ObjectInfo
from embedder.stages.hash_decoder import HashDecoder
from embedder.worker import Worker, WorkerOptions
from lookalike.bench.feed import BUCKET
from lookalike.bench.stub import DIM, FreeEngine
from lookalike.logs import configure_logging
from streams.consume.consumer import KafkaSource
from streams.event import Location
from streams.producer import KafkaProducer
from streams.threads import collect_rarely, name_this_thread
from streams.topics import TopicNames

SPEC = CollectionSpec("free", "stub-v1", DIM)


class KeyObjects:
    """An object store in which every key exists: its bytes are the key."""

    def head(self, location: Location) -> ObjectInfo:
        return self.get(location, max_bytes=0).info

    def get(self, location: Location, *, max_bytes: int) -> Object:  # noqa: ARG002 - the signature is the protocol's
        data = location.key.encode()
        return Object(ObjectInfo(hashlib.md5(data, usedforsecurity=False).hexdigest(), len(data), None), data)

    def put(self, bucket: str, key: str, data: bytes, *, content_type: str | None = None) -> ObjectInfo:
        raise NotImplementedError("this store makes its own objects")

    def delete(self, bucket: str, key: str) -> None:
        raise NotImplementedError("this store makes its own objects")

    def keys(self, bucket: str, folder: str) -> Iterator[str]:
        raise NotImplementedError("this store makes its own objects")

    def check(self, bucket: str) -> None:
        """Every bucket is there."""


class SetCostEngine(FreeEngine):
    """Takes `cost_s` a picture: of the CPU (`burn`), else of time alone."""

    def __init__(self, cost_s: float, *, burn: bool) -> None:
        super().__init__()
        self._cost_s = cost_s
        self._burn = burn
        self._info = ModelInfo("free", DIM, 8, "bilinear", (0.0, 0.0, 0.0), (1.0, 1.0, 1.0), "Apache-2.0")

    def embed(self, pixels: Pixels) -> npt.NDArray[np.float32]:
        cost_s = self._cost_s * len(pixels)
        if self._burn:
            until = time.thread_time() + cost_s
            block = np.ones((256, 256), np.float32)
            while time.thread_time() < until:
                block = block @ block * np.float32(1 / 256)  # with Python's lock given away, as a network does
        elif cost_s:
            time.sleep(cost_s)
        return super().embed(pixels)


@contextmanager
def running(
    client: dict[str, str | int],
    names: TopicNames,
    index: Writer,
    engine: FreeEngine,
    *,
    max_batch: int,
    metrics: WorkerMetrics | None = None,
) -> Iterator[WorkerMetrics]:
    """A worker in this process, everything switched on, within the block."""
    stop = threading.Event()
    metrics = metrics or WorkerMetrics(CollectorRegistry())
    with (
        KafkaProducer(client) as producer,
        ThreadPoolExecutor(1, initializer=name_this_thread, initargs=("embed",)) as pool,
    ):
        worker = Worker(
            source=KafkaSource(client, names=names, group_id=f"{names.prefix}bench"),
            producer=producer,
            index=index,
            objects=KeyObjects(),
            grants=Grants([BUCKET]),
            decoder=HashDecoder(input_px=8),
            engine=engine,
            spec=SPEC,
            names=names,
            metrics=metrics,
            options=WorkerOptions(worker_id="bench", fetch_threads=1, max_batch=max_batch, max_in_flight=8192),
            stop=stop,
        )
        ended = pool.submit(worker.run)
        try:
            yield metrics
        finally:
            stop.set()
            ended.result(60)


def main() -> int:
    bootstrap, prefix, socket, cost_ms = sys.argv[1:]
    configure_logging("error")
    stop = threading.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: stop.set())
    collect_rarely()
    client: dict[str, str | int] = {"bootstrap.servers": bootstrap, "log_level": 0}
    engine = SetCostEngine(float(cost_ms) / 1e3, burn=True)
    with (
        closing(IndexClient(Path(socket), spec=SPEC)) as index,
        running(client, TopicNames(prefix), index, engine, max_batch=4),
    ):
        stop.wait()
    return 0


if __name__ == "__main__":
    sys.exit(main())
