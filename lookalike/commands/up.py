"""``lookalike up``: everything on this machine."""

from __future__ import annotations

from pathlib import Path

import click

from lookalike.output import note, say
from lookalike.settings import read_settings


@click.command("up")
@click.option(
    "--data",
    type=click.Path(path_type=Path, file_okay=False),
    default=None,
    help="Folder for everything that is kept; default LOOKALIKE_DATA, else ./lookalike-data.",
)
@click.option("--port", type=click.IntRange(0, 65535), default=None, help="Of the API and page; default 8080, 0: free.")
@click.option("--workers", type=click.IntRange(1, 16), default=1, show_default=True, help="Worker processes.")
@click.option("--engine", type=click.Choice(["edge", "exact"]), default="edge", show_default=True, help="Of the index.")
@click.option(
    "--objects",
    type=click.Choice(["folder", "s3"]),
    default="folder",
    show_default=True,
    help="Where pictures lie: a folder, or a real S3 server on this machine.",
)
@click.option("--pulse/--no-pulse", default=True, show_default=True, help="The process that watches the others.")
@click.pass_context
def command(
    ctx: click.Context, data: Path | None, port: int | None, workers: int, engine: str, objects: str, pulse: bool
) -> None:
    """Run Kafka, index, worker, API and pulse until Ctrl-C; then stop all in order. Prints the page's address.

    A process that dies is restarted. What each has to say is in the data folder, under `logs`; where each
    tells its metrics is in its `prometheus.json`.

    \b
    Examples:
      lookalike up
      lookalike up --data /srv/lookalike --port 9000 --workers 2
      lookalike up --objects s3
    """
    settings = read_settings()
    from lookalike.local.up import UpOptions, one_interrupt, start

    options = UpOptions(
        settings=settings,
        data=data or settings.process.data,
        port=settings.api.port if port is None else port,
        workers=workers,
        engine=engine,
        objects=objects,
        pulse=pulse,
    )
    with one_interrupt(), start(options, note) as running:
        say(f"{running.api_url}/")
        try:
            running.wait()
        except KeyboardInterrupt:
            note("stopping")
    ctx.exit(0)
