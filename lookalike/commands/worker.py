"""``lookalike worker``: the composition root of one worker process."""

from __future__ import annotations

import os
import socket
import sys
from contextlib import ExitStack, closing
from pathlib import Path
from typing import TYPE_CHECKING, Any

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
    from embedder.metrics import WorkerMetrics
    from embedder.watchdog import Watchdog
    from embedder.worker import Worker, WorkerOptions
    from streams.checks import Checks

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
@click.option(
    "--allow-single-broker",
    is_flag=True,
    help="Work on topics with fewer than 3 replicas: one lost disk then loses events.",
)
@click.pass_context
def command(ctx: click.Context, data: Path | None, allow_single_broker: bool) -> None:
    """Turn events into points of the index, until SIGTERM or Ctrl-C.

    \b
    Examples:
      lookalike worker                       beside a running `lookalike up`
      LOOKALIKE_KAFKA_BOOTSTRAP=… LOOKALIKE_INDEX_SOCKET=… LOOKALIKE_OBJECTS_DIR=… lookalike worker
    """
    settings = read_settings()
    start_with_environment(PROCESS_ENVIRONMENT)
    configure_logging(settings.process.log_level)
    ctx.exit(run(settings, find_addresses(settings, data), allow_single_broker=allow_single_broker))


def start_with_environment(wanted: dict[str, str]) -> None:
    """Start this very process again where a variable is missing that is only read at the start."""
    missing = {name: value for name, value in wanted.items() if name not in os.environ}
    if missing:
        os.execve(sys.executable, [sys.executable, *sys.orig_argv[1:]], {**os.environ, **missing})  # noqa: S606 - ourselves


def run(settings: Settings, addresses: Addresses, *, allow_single_broker: bool = False) -> int:
    """Connect everything, work, drain; returns the exit code."""
    from embedder.index.service.client import IndexClient
    from embedder.metrics import WorkerMetrics
    from embedder.models.collection import collection_of
    from embedder.models.registry import model
    from embedder.models.torch_engine import TorchEngine
    from embedder.objects.grants import Grants
    from embedder.stages.decode import DecodePool, DecodeRules
    from embedder.watchdog import Watchdog, end_process
    from embedder.worker import Worker
    from streams.checks import Checks
    from streams.consume.consumer import KafkaSource
    from streams.consume.protocol import group_protocol
    from streams.producer import KafkaProducer
    from streams.reach import Broker
    from streams.status_server import process_registry

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
    metrics = WorkerMetrics(process_registry())
    with ExitStack() as stack:
        decoder = stack.enter_context(closing(DecodePool(settings.decode.children, rules)))
        engine = TorchEngine(network, weights)
        check_topics(settings, addresses, allow_single_broker=allow_single_broker)
        index = stack.enter_context(closing(IndexClient(addresses.index_socket(settings), spec=spec)))
        make_collection(index)
        producer = stack.enter_context(closing(KafkaProducer(kafka)))
        source = KafkaSource(
            kafka,
            names=settings.kafka.topic_names(),
            group_id=settings.kafka.group_id,
            protocol=group_protocol(kafka, settings.kafka.group_protocol),
            retry=settings.kafka.retry_steps(),
        )
        objects = open_store(settings, addresses)
        watchdog = Watchdog(limit_s=settings.worker.watchdog_s, on_stuck=end_process)
        worker = Worker(
            source=source,
            producer=producer,
            index=index,
            objects=objects,
            grants=Grants(settings.objects.buckets, settings.objects.tenant_prefixes),
            decoder=decoder,
            engine=engine,
            spec=spec,
            names=settings.kafka.topic_names(),
            metrics=metrics,
            options=worker_options(settings),
            stop=stop,
            watch=watchdog.tell,
        )
        bucket = settings.objects.buckets[0]
        checks = Checks(
            {"broker": Broker(kafka).check, "index": index.ping, "objects": lambda: objects.check(bucket)},
        )
        serve_probes(settings, worker, metrics, watchdog, checks, stack)
        watchdog.start()
        stack.callback(watchdog.stop)
        worker.run()
    return 0


def worker_options(settings: Settings) -> WorkerOptions:
    """How the settings say that a worker works."""
    from embedder.verdict import RetryPolicy
    from embedder.worker import WorkerOptions

    worker = settings.worker
    return WorkerOptions(
        worker_id=worker.id or f"{socket.gethostname()}-{os.getpid()}",
        fetch_threads=settings.decode.children,
        max_batch=worker.max_batch,
        max_in_flight=worker.max_in_flight,
        max_in_flight_bytes=worker.max_in_flight_bytes,
        max_image_bytes=settings.decode.max_image_bytes,
        tenant_live_share=worker.tenant_live_share,
        shunt_after_s=worker.shunt_after_s,
        dead_letter_limit=worker.dead_letter_limit,
        drain_s=worker.drain_s,
        policy=RetryPolicy(window_s=worker.retry_window_s),
        retry=settings.kafka.retry_steps(),
    )


def check_topics(settings: Settings, addresses: Addresses, *, allow_single_broker: bool) -> None:
    """The topics are there and such that no promise hangs in the air.

    Raises:
        ConfigError: they are not; the one line says what to do.
        DependencyError: the broker does not answer.
    """
    from streams.durability import check_durability, check_sizes
    from streams.topics import check

    kafka, names = addresses.kafka(settings), settings.kafka.topic_names()
    problems = check(kafka, settings.kafka.topic_specs(partitions=addresses.partitions(settings)))
    if not problems:
        problems = check_sizes(kafka, names)
    if not (problems or allow_single_broker or settings.kafka.allow_single_broker or addresses.is_local(settings)):
        problems = check_durability(kafka, names)
    if problems:
        more = f" ({len(problems) - 1} more: `lookalike topics check`)" if len(problems) > 1 else ""
        raise ConfigError(problems[0] + more)


def serve_probes(
    settings: Settings, worker: Worker, metrics: WorkerMetrics, watchdog: Watchdog, checks: Checks, stack: ExitStack
) -> None:
    """`/metrics`, `/healthz` (the poll thread moves) and `/readyz` (new events are taken), where a port is set."""
    from streams.status_server import StatusServer

    port, host = settings.worker.metrics_port, settings.worker.metrics_host
    if port is None:
        return

    def health() -> tuple[bool, dict[str, Any]]:
        return watchdog.silent_s < settings.worker.watchdog_s, {"poll_gap_s": round(watchdog.silent_s, 3)}

    def ready() -> tuple[bool, dict[str, Any]]:
        _, dependencies = checks.ask()
        return worker.ready, {"paused": worker.paused_by, **dependencies}

    stack.enter_context(StatusServer(host, port, registry=metrics.registry, health=health, ready=ready))


def make_collection(index: IndexClient) -> None:
    """Connect once, which makes the collection: the API is ready before the first event comes.

    An index that is down is no reason not to start: the worker pauses until it is back.
    """
    try:
        index.ping()
    except DependencyError as exc:
        structlog.get_logger(__name__).warning("index not there yet", error=exc.message)
