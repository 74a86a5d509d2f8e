"""``lookalike index``: the vector index's own process."""

from __future__ import annotations

from pathlib import Path

import click

from lookalike.logs import configure_logging
from lookalike.settings import read_settings


@click.group("index")
def command() -> None:
    """The vector index's own process. `up` starts it by itself.

    \b
    Examples:
      lookalike index serve
      lookalike index serve --data /srv/lookalike/index --engine exact
    """


@command.command("serve")
@click.option(
    "--data",
    type=click.Path(path_type=Path, file_okay=False),
    default=None,
    help="Folder of the index's own files; default: `index` in LOOKALIKE_DATA.",
)
@click.option(
    "--engine", type=click.Choice(["edge", "exact"]), default="edge", show_default=True, help="What searches."
)
@click.option(
    "--socket",
    type=click.Path(path_type=Path),
    default=None,
    help="Unix socket to answer on; default LOOKALIKE_INDEX_SOCKET, else `index.sock` in that folder.",
)
@click.pass_context
def serve(ctx: click.Context, data: Path | None, engine: str, socket: Path | None) -> None:
    """Own the collections in a folder and answer on a unix socket, until SIGTERM or Ctrl-C."""
    settings = read_settings()
    configure_logging(settings.process.log_level)
    from embedder.index.service.server import StatusAddress, serve_forever

    folder = data or settings.process.data / "index"
    at = socket or settings.index.index_socket or folder / "index.sock"
    port = settings.index.index_metrics_port
    status = None if port is None else StatusAddress(settings.index.index_metrics_host, port)
    ctx.exit(serve_forever(data=folder, engine=engine, socket_path=at, status=status))
