"""``lookalike worker``: the composition root of one worker process."""

from __future__ import annotations

import os
import socket
import sys
from contextlib import ExitStack, closing
from pathlib import Path
from typing import TYPE_CHECKING

import click
import structlog

from lookalike.addresses import Addresses, find_addresses
from lookalike.logs import configure_logging
from lookalike.options import data_option
from lookalike.settings import Settings, read_settings
from lookalike.signals import stop_on_signals
from lookalike.stores import open_store
from streams.errors import ConfigError, DependencyError

if TYPE_CHECKING:
    from embedder.index.service.client import IndexClient

PROCESS_ENVIRONMENT = {
    "OMP_NUM_THREADS": "1",
    "MALLOC_ARENA_MAX": "2",
    "MALLOC_MMAP_THRESHOLD_": "4294967296",
    "MALLOC_TRIM_THRESHOLD_": "8589934592",
    "MALLOC_TOP_PAD_": "268435456",
}
"""Read by libraries when a process starts. One thread a process, because two workers with the default
on two cores are 30 times slower; large activations stay mapped, because returning them to the kernel
after each picture costs a third of the network's time (docs/performance.md)."""


@click.command("worker")
@data_option
@click.pass_context
def command(ctx: click.Context, data: Path | None) -> None:
    """Turn events into points of the index, until SIGTERM or Ctrl-C.

    \b
    Examples:
      lookalike worker                       beside a running `lookalike up`
      LOOKALIKE_KAFKA_BOOTSTRAP=… LOOKALIKE_INDEX_SOCKET=… LOOKALIKE_OBJECTS_DIR=… lookalike worker
    """
    settings = read_settings()
    start_with_environment(PROCESS_ENVIRONMENT)
    configure_logging(settings.process.log_level)
    ctx.exit(run(settings, find_addresses(settings, data)))


def start_with_environment(wanted: dict[str, str]) -> None:
    """Start this very process again where a variable is missing that is only read at the start."""
    missing = {name: value for name, value in wanted.items() if name not in os.environ}
    if missing:
        os.execve(sys.executable, [sys.executable, *sys.orig_argv[1:]], {**os.environ, **missing})  # noqa: S606 - ourselves


def run(settings: Settings, addresses: Addresses) -> int:
    """Connect everything, work, drain; returns the exit code."""
    from prometheus_client import CollectorRegistry, start_http_server

    from embedder.index.service.client import IndexClient
    from embedder.metrics import WorkerMetrics
    from embedder.models.collection import collection_of
    from embedder.models.registry import model
    from embedder.models.torch_engine import TorchEngine
    from embedder.objects.grants import Grants
    from embedder.stages.decode import DecodePool, DecodeRules
    from embedder.verdict import RetryPolicy
    from embedder.worker import Worker, WorkerOptions
    from streams.consume.consumer import KafkaSource
    from streams.producer import KafkaProducer
    from streams.topics import check

    stop = stop_on_signals()
    network = model(settings.model.model)
    weights = network.find_weights(settings.model.model_weights)
    info = network.info
    rules = DecodeRules(
        input_px=info.input_px,
        resample=info.resample,
        max_pixels=settings.decode.max_pixels,
        timeout_s=settings.decode.timeout_s,
    )
    spec = collection_of(info, weights)
    kafka = addresses.kafka(settings)
    metrics = WorkerMetrics(CollectorRegistry())
    with ExitStack() as stack:
        decoder = stack.enter_context(closing(DecodePool(settings.decode.children, rules)))
        engine = TorchEngine(network, weights)
        problems = check(kafka, settings.kafka.topic_specs(partitions=addresses.partitions(settings)))
        if problems:
            raise ConfigError(problems[0])
        index = stack.enter_context(closing(IndexClient(addresses.index_socket(settings), spec=spec)))
        make_collection(index)
        producer = stack.enter_context(closing(KafkaProducer(kafka)))
        source = KafkaSource(
            kafka,
            names=settings.kafka.topic_names(),
            group_id=settings.kafka.group_id,
            protocol=settings.kafka.group_protocol,
        )
        if settings.worker.metrics_port is not None:
            start_http_server(settings.worker.metrics_port, settings.worker.metrics_host, metrics.registry)
        worker = Worker(
            source=source,
            producer=producer,
            index=index,
            objects=open_store(settings, addresses),
            grants=Grants(settings.objects.buckets, settings.objects.tenant_prefixes),
            decoder=decoder,
            engine=engine,
            spec=spec,
            names=settings.kafka.topic_names(),
            metrics=metrics,
            options=WorkerOptions(
                worker_id=settings.worker.id or f"{socket.gethostname()}-{os.getpid()}",
                fetch_threads=settings.decode.children,
                max_batch=settings.worker.max_batch,
                max_in_flight=settings.worker.max_in_flight,
                max_image_bytes=settings.decode.max_image_bytes,
                drain_s=settings.worker.drain_s,
                policy=RetryPolicy(window_s=settings.worker.retry_window_s),
            ),
            stop=stop,
        )
        worker.run()
    return 0


def make_collection(index: IndexClient) -> None:
    """Connect once, which makes the collection: the API is ready before the first event comes.

    An index that is down is no reason not to start: the worker pauses until it is back.
    """
    try:
        index.ping()
    except DependencyError as exc:
        structlog.get_logger(__name__).warning("index not there yet", error=exc.message)
