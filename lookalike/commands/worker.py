"""``lookalike worker``: the composition root of one worker process."""

from __future__ import annotations

import os
import socket
import sys
from contextlib import ExitStack, closing
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click
import structlog

from embedder.process_environment import PROCESS_ENVIRONMENT
from lookalike.addresses import Addresses, find_addresses
from lookalike.index import Index, open_index
from lookalike.logs import configure_logging
from lookalike.options import data_option
from lookalike.settings import Settings, read_settings
from lookalike.signals import stop_on_signals
from lookalike.stores import open_store
from streams.errors import ConfigError, DependencyError
from streams.threads import collect_rarely

if TYPE_CHECKING:
    from embedder.metrics import WorkerMetrics
    from embedder.watchdog import Watchdog
    from embedder.worker import Worker, WorkerOptions
    from streams.checks import Checks


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
    from embedder.metrics import WorkerMetrics
    from embedder.objects.grants import Grants
    from embedder.stages.sweep import TombstoneSweeper
    from embedder.vision import Vision
    from embedder.watchdog import Watchdog, end_process
    from embedder.worker import Worker
    from lookalike.engines import log_engine, vision_options
    from streams.checks import Checks
    from streams.consume.consumer import KafkaSource
    from streams.consume.protocol import group_protocol
    from streams.producer import KafkaProducer
    from streams.reach import Broker
    from streams.status_server import process_registry

    stop = stop_on_signals()
    objects = open_store(settings, addresses)
    vision = Vision(vision_options(settings, lambda: objects))
    spec = replace(vision.spec, fields=settings.index.fields())
    kafka = addresses.kafka(settings)
    metrics = WorkerMetrics(process_registry())
    with ExitStack() as stack:
        decoder = stack.enter_context(closing(vision.open_decoder(settings.decode.children)))
        opened = vision.open_engine()
        log_engine(opened, spec)
        check_topics(settings, addresses, allow_single_broker=allow_single_broker)
        index = stack.enter_context(closing(open_index(settings, addresses, spec=spec)))
        make_collection(index)
        producer = stack.enter_context(closing(KafkaProducer(kafka)))
        source = KafkaSource(
            kafka,
            names=settings.kafka.topic_names(),
            group_id=settings.kafka.group_id,
            protocol=group_protocol(kafka, settings.kafka.group_protocol),
            retry=settings.kafka.retry_steps(),
        )
        watchdog = Watchdog(limit_s=settings.worker.watchdog_s, on_stuck=end_process)
        worker = Worker(
            source=source,
            producer=producer,
            index=index,
            objects=objects,
            grants=Grants(settings.objects.buckets, settings.objects.tenant_prefixes),
            decoder=decoder,
            engine=opened.engine,
            spec=spec,
            names=settings.kafka.topic_names(),
            metrics=metrics,
            options=worker_options(settings, max_batch=opened.max_batch),
            stop=stop,
            watch=watchdog.tell,
        )
        bucket = settings.objects.buckets[0]
        checks = Checks(
            {"broker": Broker(kafka).check, "index": index.ping, "objects": lambda: objects.check(bucket)},
        )
        serve_probes(settings, worker, metrics, watchdog, checks, stack)
        sweeper = TombstoneSweeper(index, life_s=tombstone_life_s(kafka, settings), swept=metrics.swept.inc)
        stack.enter_context(sweeper)
        collect_rarely()
        watchdog.start()
        stack.callback(watchdog.stop)
        worker.run()
    return 0


def worker_options(settings: Settings, *, max_batch: int) -> WorkerOptions:
    """How the settings say that a worker works; `max_batch` is the engine's own, where none is set."""
    from embedder.verdict import RetryPolicy
    from embedder.worker import WorkerOptions

    worker = settings.worker
    return WorkerOptions(
        worker_id=worker.id or f"{socket.gethostname()}-{os.getpid()}",
        fetch_threads=settings.decode.children,
        max_batch=worker.max_batch or max_batch,
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


def tombstone_life_s(kafka: dict[str, str | int], settings: Settings) -> float | None:
    """How long deletes are remembered, from the topics as they are; None: for ever."""
    from streams.durability import read_configs, tombstone_life_ms
    from streams.topics import Lane

    names = settings.kafka.topic_names()
    life_ms = tombstone_life_ms(read_configs(kafka, [*map(names.lane, Lane)]), names)
    return None if life_ms is None else life_ms / 1000


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


def make_collection(index: Index) -> None:
    """Connect once, which makes the collection: the API is ready before the first event comes.

    An index that is down is no reason not to start: the worker pauses until it is back.
    """
    try:
        index.ping()
    except DependencyError as exc:
        structlog.get_logger(__name__).warning("index not there yet", error=exc.message)
