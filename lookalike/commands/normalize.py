"""``lookalike normalize``: the composition root of one normalizer process."""

from __future__ import annotations

import os
import socket
import threading
from contextlib import ExitStack, closing
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from lookalike.addresses import Addresses, find_addresses
from lookalike.logs import configure_logging
from lookalike.options import data_option
from lookalike.settings import Settings, read_settings
from lookalike.signals import stop_on_signals
from lookalike.stores import open_store
from streams.errors import ConfigError, EventError
from streams.event import Location

if TYPE_CHECKING:
    from embedder.normalize.metrics import NormalizeMetrics
    from embedder.normalize.normalizer import Normalizer, NormalizerOptions
    from embedder.objects.grants import Grants
    from streams.checks import Checks
    from streams.notifications.keys import KeyTemplate


MAX_SILENT_S = 60.0
"""A poll thread that has not polled for so long hangs: its liveness probe says so."""


@click.command("normalize")
@data_option
@click.pass_context
def command(ctx: click.Context, data: Path | None) -> None:
    """Turn bucket notifications into events, until SIGTERM or Ctrl-C.

    Reads the topic `bucket.notifications` (MinIO, RustFS, AWS, versitygw), looks at each object by HEAD, and
    announces what is there. Several may run; docs/objects.md says how to point a store at the topic.

    \b
    Examples:
      lookalike normalize                    beside a running `lookalike up`
      LOOKALIKE_KAFKA_BOOTSTRAP=… LOOKALIKE_S3_ENDPOINT=… LOOKALIKE_S3_ACCESS_KEY=… \\
        LOOKALIKE_S3_SECRET_KEY_FILE=… lookalike normalize
      LOOKALIKE_NORMALIZE_KEY_TEMPLATE='{tenant_id}/{image_id}' lookalike normalize
    """
    settings = read_settings()
    configure_logging(settings.process.log_level)
    ctx.exit(run(settings, find_addresses(settings, data), stop_on_signals()))


def run(settings: Settings, addresses: Addresses, stop: threading.Event) -> int:
    """Connect everything, work, drain; returns the exit code."""
    from embedder.normalize.metrics import NormalizeMetrics
    from embedder.normalize.normalizer import Normalizer
    from embedder.normalize.scope import Scope
    from embedder.objects.grants import Grants
    from streams.checks import Checks
    from streams.consume.protocol import group_protocol
    from streams.notifications.keys import KeyTemplate
    from streams.notifications.source import notification_source
    from streams.producer import KafkaProducer
    from streams.reach import Broker
    from streams.status_server import process_registry
    from streams.topics import check

    given, names, kafka = settings.normalize, settings.kafka.topic_names(), addresses.kafka(settings)
    template = KeyTemplate(given.key_template)
    grants = Grants(settings.objects.buckets, settings.objects.tenant_prefixes)
    _check_template(template, grants, settings.objects.buckets[0])
    objects = open_store(settings, addresses)
    metrics = NormalizeMetrics(process_registry())
    protocol = group_protocol(kafka, settings.kafka.group_protocol)
    problems = check(kafka, settings.kafka.topic_specs(partitions=addresses.partitions(settings)))
    if problems:
        raise ConfigError(problems[0])
    bucket = settings.objects.buckets[0]
    checks = Checks({"broker": Broker(kafka).check, "objects": lambda: objects.check(bucket)})
    with ExitStack() as stack:
        producer = stack.enter_context(closing(KafkaProducer(kafka)))
        normalizer = Normalizer(
            source=notification_source(kafka, names=names, group_id=given.group_id, protocol=protocol),
            producer=producer,
            objects=objects,
            scope=Scope(settings.objects.buckets, grants, template, given.skip_prefixes),
            names=names,
            metrics=metrics,
            options=_options(settings),
            stop=stop,
        )
        _serve_probes(settings, normalizer, metrics, checks, stack)
        normalizer.run()
    return 0


def _options(settings: Settings) -> NormalizerOptions:
    from embedder.normalize.normalizer import NormalizerOptions

    given = settings.normalize
    return NormalizerOptions(
        worker_id=given.id or f"{socket.gethostname()}-{os.getpid()}",
        max_in_flight=given.max_in_flight,
        head_threads=given.head_threads,
        look_again_s=given.look_again_s,
        retry_window_s=given.retry_window_s,
        drain_s=given.drain_s,
    )


def _serve_probes(
    settings: Settings, normalizer: Normalizer, metrics: NormalizeMetrics, checks: Checks, stack: ExitStack
) -> None:
    """`/metrics`, `/healthz` (the poll thread moves) and `/readyz` (broker and store answer), where a port is set."""
    from streams.status_server import StatusServer

    port, host = settings.normalize.metrics_port, settings.normalize.metrics_host
    if port is None:
        return

    def health() -> tuple[bool, dict[str, Any]]:
        return normalizer.silent_s < MAX_SILENT_S, {"poll_gap_s": round(normalizer.silent_s, 3)}

    stack.enter_context(StatusServer(host, port, registry=metrics.registry, health=health, ready=checks.ask))


def _check_template(template: KeyTemplate, grants: Grants, bucket: str) -> None:
    """What the normalizer announces, the worker must be allowed to read."""
    key = template.example("acme")
    try:
        grants.check("acme", Location(bucket, key))
    except EventError as exc:
        raise ConfigError(
            f"LOOKALIKE_NORMALIZE_KEY_TEMPLATE makes keys like {key}, which no tenant may read: "
            "name their prefix in LOOKALIKE_TENANT_PREFIXES"
        ) from exc
