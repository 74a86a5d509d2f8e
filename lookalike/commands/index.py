"""``lookalike index``: the vector index's own process, and what is done to whole collections."""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from contextlib import closing, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from lookalike.addresses import find_addresses
from lookalike.index import Administrator, open_administration
from lookalike.logs import configure_logging
from lookalike.options import data_option, json_option
from lookalike.output import note, print_json, say, table
from lookalike.settings import Settings, read_settings
from streams.errors import DependencyError

if TYPE_CHECKING:
    from embedder.index.protocol import CollectionInfo, CollectionSpec


@click.group("index")
def command() -> None:
    """The vector index's own process (`up` starts it by itself), and its collections.

    One collection holds the vectors of one network and its preprocessing; the alias says which one is asked.

    \b
    Examples:
      lookalike index serve --data /srv/lookalike/index --engine exact
      lookalike index status
      lookalike index switch NAME
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
    from embedder.index.service.process import StatusAddress, serve_forever

    folder = data or settings.process.data / "index"
    at = socket or settings.index.index_socket or folder / "index.sock"
    port = settings.index.index_metrics_port
    status = None if port is None else StatusAddress(settings.index.index_metrics_host, port)
    ctx.exit(serve_forever(data=folder, engine=engine, socket_path=at, status=status))


@command.command("status")
@data_option
@json_option
def status(data: Path | None, as_json: bool) -> None:
    """Every collection: which one is asked, what it holds, how many points wait for a graph."""
    with _administration(data) as (_, index):
        found = [_plain(one) for one in index.collections()]
    if as_json:
        print_json({"collections": found})
        return
    rows = [("collection", "asked", "engine", "points", "waiting", "fields")]
    rows += [
        (one["name"], "yes" if one["current"] else "", one["engine"], one["points"], one["waiting"], one["fields"])
        for one in found
    ]
    say("\n".join(table(rows)) if found else "no collection yet: start a worker, it makes one")


@command.command("create")
@data_option
@json_option
def create(data: Path | None, as_json: bool) -> None:
    """Make the collection of LOOKALIKE_MODEL and LOOKALIKE_DECLARED_FIELDS, as a worker would at its start."""
    with _administration(data) as (settings, index):
        spec = _wanted(settings, data)
        index.create(spec)
    print_json({"collection": spec.name}) if as_json else say(f"{spec.name} is there")


@command.command("optimize")
@click.option("--timeout", "timeout_s", type=click.FloatRange(1), default=3600.0, help="Seconds to wait for the end.")
@data_option
@json_option
def optimize(timeout_s: float, data: Path | None, as_json: bool) -> None:
    """Build the graphs that are missing in the collection that is asked, and wait for the end."""
    started = time.monotonic()
    with _administration(data) as (_, index):
        before = _current(index.collections())
        index.optimise(before.name)
        while (waiting := _waiting(index, before.name)) is None or waiting > 0:
            if time.monotonic() - started > timeout_s:
                raise DependencyError("index", f"{waiting} points still wait after {timeout_s:g} s: ask again")
            time.sleep(0.5)
    took_s = round(time.monotonic() - started, 1)
    figures = {"collection": before.name, "built": before.waiting, "seconds": took_s}
    print_json(figures) if as_json else say(f"{before.waiting} points of {before.name} in {took_s} s")


@command.command("switch")
@click.argument("name")
@data_option
@json_option
def switch(name: str, data: Path | None, as_json: bool) -> None:
    """Let searches ask collection NAME from now on. Workers go on writing to the one of their own model."""
    with _administration(data) as (_, index):
        index.switch(name)
    print_json({"collection": name}) if as_json else say(f"{name} is asked now")


@command.command("drop")
@click.argument("name")
@click.option("--yes", is_flag=True, help="Do not ask.")
@data_option
@json_option
def drop(name: str, yes: bool, data: Path | None, as_json: bool) -> None:
    """Remove collection NAME and all its points. The one that is asked cannot be dropped."""
    if not yes:
        click.confirm(f"remove {name} and everything in it?", abort=True, err=True)
    with _administration(data) as (_, index):
        index.drop(name)
    print_json({"dropped": name}) if as_json else say(f"{name} is gone")


@command.command("migrate")
@click.option(
    "--data",
    type=click.Path(path_type=Path, file_okay=False),
    default=None,
    help="The index's own folder, while no index process has it; default: `index` in LOOKALIKE_DATA.",
)
@click.option(
    "--timeout",
    "timeout_s",
    type=click.FloatRange(1),
    default=4 * 3600.0,
    show_default=True,
    help="Seconds that a Qdrant server may take for the new graphs.",
)
@json_option
def migrate(data: Path | None, timeout_s: float, as_json: bool) -> None:
    """Build the collection that is asked anew, with the fields that LOOKALIKE_DECLARED_FIELDS names now.

    Indexes on fields have to be there before the first point. Stop `up` (or `index serve`) first, with a Qdrant
    server the workers: events wait in Kafka meanwhile. A migration that is cut short leaves everything as it was.
    """
    settings = read_settings()
    configure_logging(settings.process.log_level)
    fields = settings.index.fields()
    if settings.index.qdrant_url is not None and data is not None:
        raise click.UsageError("--data names a folder, LOOKALIKE_QDRANT_URL a server: give one of them")
    note("copying every point into a collection with the new fields")
    if settings.index.qdrant_url is not None:
        collection, points = _migrate_server(settings, timeout_s)
    else:
        from embedder.index.migrate import migrate as run

        spec, points = run(data or settings.process.data / "index", fields)
        collection = spec.name
    declared = [f"{field.name}:{field.kind}" for field in fields]
    print_json({"collection": collection, "points": points, "fields": declared}) if as_json else say(
        f"{points} points of {collection}, fields: {', '.join(declared) or 'none'}"
    )


def _migrate_server(settings: Settings, timeout_s: float) -> tuple[str, int]:
    from embedder.index.qdrant_server.migrate import ANSWER_S
    from embedder.index.qdrant_server.migrate import migrate as run
    from lookalike.index import server

    with closing(server(settings, timeout_s=ANSWER_S)) as found:
        done = run(found, settings.index.fields(), told=note, ready_s=timeout_s)
    return done.collection, done.points


@contextmanager
def _administration(data: Path | None) -> Iterator[tuple[Settings, Administrator]]:
    settings = read_settings()
    configure_logging("error")
    with closing(open_administration(settings, find_addresses(settings, data))) as index:
        yield settings, index


def _wanted(settings: Settings, data: Path | None) -> CollectionSpec:
    """The collection that a worker with these settings makes."""
    from dataclasses import replace

    from embedder.vision import Vision
    from lookalike.engines import vision_options
    from lookalike.stores import open_store

    addresses = find_addresses(settings, data)
    vision = Vision(vision_options(settings, lambda: open_store(settings, addresses)))
    return replace(vision.spec, fields=settings.index.fields())


def _current(found: Sequence[CollectionInfo]) -> CollectionInfo:
    current = next((one for one in found if one.current), None)
    if current is None:
        raise DependencyError("index", "there is no collection yet: start a worker, it makes one")
    return current


def _waiting(index: Administrator, name: str) -> int | None:
    """How many points wait; None while the index is too busy to say."""
    try:
        return next((one.waiting for one in index.collections() if one.name == name), 0)
    except DependencyError:
        return None


def _plain(one: CollectionInfo) -> dict[str, Any]:
    return {
        "name": one.name,
        "current": one.current,
        "engine": one.engine,
        "points": one.points,
        "waiting": one.waiting,
        "dim": one.spec.dim,
        "fields": ", ".join(f"{field.name}:{field.kind}" for field in one.spec.fields),
    }
