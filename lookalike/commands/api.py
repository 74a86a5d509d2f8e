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

if TYPE_CHECKING:
    from query_api.deps import Deps


@click.command("api")
@click.option("--host", default=None, help="Loopback address to listen on; default LOOKALIKE_API_HOST.")
@click.option("--port", type=click.IntRange(0, 65535), default=None, help="Default LOOKALIKE_API_PORT; 0: a free one.")
@data_option
def command(host: str | None, port: int | None, data: Path | None) -> None:
    """Answer queries over HTTP and serve the page, until SIGTERM or Ctrl-C. Prints its address.

    \b
    Examples:
      lookalike api --port 8081              beside a running `lookalike up`
      LOOKALIKE_INDEX_SOCKET=… LOOKALIKE_OBJECTS_DIR=… LOOKALIKE_KAFKA_BOOTSTRAP=… lookalike api
    """
    settings = read_settings()
    configure_logging(settings.process.log_level)
    from query_api.app import create_app
    from query_api.server import serve

    app = create_app(compose(settings, find_addresses(settings, data)))
    at_port = settings.api.port if port is None else port
    serve(app, host or settings.api.host, at_port, on_bound=say)


def compose(settings: Settings, addresses: Addresses) -> Deps:
    """The concrete classes behind the API. Connects nothing: what is down is told by `/readyz`."""
    from embedder.index.service.client import IndexClient
    from embedder.objects.folder import FolderStore
    from embedder.objects.grants import Grants
    from embedder.query_embedder import QueryEmbedder, QueryEmbedderOptions
    from embedder.query_embedder_wire import Want
    from lookalike.engines import vision_options
    from query_api.deps import Deps, Limits
    from streams.reach import Broker

    objects = FolderStore(addresses.objects_dir(settings))
    options = QueryEmbedderOptions(
        vision=vision_options(settings, lambda: objects),
        deadline_s=settings.api.deadline_s,
        max_waiting={Want.VECTOR: settings.api.max_uploads, Want.THUMBNAIL: 64},
    )
    limits = Limits(
        max_body_bytes=settings.api.max_body_bytes,
        max_uploads=settings.api.max_uploads,
        max_image_bytes=settings.decode.max_image_bytes,
        deadline_s=settings.api.deadline_s,
    )
    return Deps(
        searcher=IndexClient(addresses.index_socket(settings), timeout_s=settings.api.deadline_s),
        objects=objects,
        grants=Grants(settings.objects.buckets, settings.objects.tenant_prefixes),
        embedder=QueryEmbedder(options),
        bucket=settings.objects.buckets[0],
        limits=limits,
        checks={"broker": Broker(addresses.kafka(settings)).check},
    )
