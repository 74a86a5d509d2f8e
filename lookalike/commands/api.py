"""``lookalike api``: the composition root of the HTTP API."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click

from lookalike.addresses import Addresses, find_addresses
from lookalike.logs import configure_logging
from lookalike.options import data_option
from lookalike.output import say
from lookalike.settings import Settings, read_settings
from lookalike.stores import open_store

if TYPE_CHECKING:
    from query_api.deps import Deps
    from streams.producer import Producer


EMBEDDER_SHARE = 0.9
"""Of a request's deadline: the embedder says more about what went wrong than a time-out does, so it speaks first."""


@click.command("api")
@click.option("--host", default=None, help="Address to listen on; default LOOKALIKE_API_HOST.")
@click.option("--port", type=click.IntRange(0, 65535), default=None, help="Default LOOKALIKE_API_PORT; 0: a free one.")
@data_option
def command(host: str | None, port: int | None, data: Path | None) -> None:
    """Answer queries over HTTP and serve the page, until SIGTERM or Ctrl-C. Prints its address.

    Without access keys (LOOKALIKE_API_KEYS_FILE) it listens on this machine only; with them there is no page.

    \b
    Examples:
      lookalike api --port 8081              beside a running `lookalike up`
      LOOKALIKE_INDEX_SOCKET=… LOOKALIKE_OBJECTS_DIR=… LOOKALIKE_KAFKA_BOOTSTRAP=… lookalike api
    """
    settings = read_settings()
    configure_logging(settings.process.log_level)
    from query_api.announce import ACK_S
    from query_api.app import create_app
    from query_api.server import serve
    from streams.producer import KafkaProducer

    addresses = find_addresses(settings, data)
    with KafkaProducer(addresses.kafka(settings), message_timeout_ms=int(ACK_S * 1000)) as producer:
        deps = compose(settings, addresses, producer)
        serve(
            create_app(deps),
            host or settings.api.host,
            settings.api.port if port is None else port,
            has_keys=deps.keys is not None,
            drain_s=settings.api.drain_s,
            on_bound=say,
        )


def compose(settings: Settings, addresses: Addresses, producer: Producer) -> Deps:
    """The concrete classes behind the API. Connects nothing: what is down is told by `/readyz`."""
    from embedder.objects.grants import Grants
    from embedder.query_embedder import QueryEmbedder, QueryEmbedderOptions
    from embedder.query_embedder_wire import Want
    from lookalike.engines import vision_options
    from lookalike.index import open_index
    from query_api.deps import Deps, Limits
    from query_api.key_ring import KeyRing
    from query_api.metrics import tell_key_expiry
    from streams.reach import Broker
    from streams.status_server import process_registry
    from streams.topics import Lane

    objects = open_store(settings, addresses)
    options = QueryEmbedderOptions(
        vision=vision_options(settings, lambda: objects),
        deadline_s=settings.api.deadline_s * EMBEDDER_SHARE,
        max_waiting={Want.VECTOR: settings.api.max_uploads, Want.THUMBNAIL: 64},
    )
    limits = Limits(
        max_body_bytes=settings.api.max_body_bytes,
        max_uploads=settings.api.max_uploads,
        max_image_bytes=settings.decode.max_image_bytes,
        deadline_s=settings.api.deadline_s,
        rate_per_s=settings.api.rate_per_s,
    )
    keys_file = settings.api.keys_file
    keys = None if keys_file is None else KeyRing(keys_file)
    registry = process_registry()
    if keys is not None:
        tell_key_expiry(registry, keys.next_expiry)
    index = open_index(settings, addresses, timeout_s=settings.api.deadline_s)  # what the alias means
    return Deps(
        searcher=index,
        writer=index,
        producer=producer,
        topic=settings.kafka.topic_names().lane(Lane.LIVE),
        places=settings.objects.places(),
        objects=objects,
        grants=Grants(settings.objects.buckets, settings.objects.tenant_prefixes),
        embedder=QueryEmbedder(options),
        bucket=settings.objects.buckets[0],
        keys=keys,
        registry=registry,
        limits=limits,
        checks={"broker": Broker(addresses.kafka(settings)).check},
    )
