"""``lookalike demo``: everything started, real pictures ingested, one query shown, the page served."""

from __future__ import annotations

import tempfile
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from lookalike.options import json_option
from lookalike.output import note, print_json, progress, say, table
from lookalike.pictures import Picture, Skipped, find_files, name_picture
from lookalike.settings import Settings, read_settings
from streams.errors import ConfigError, Reason

if TYPE_CHECKING:
    from lookalike.local.up import Running

TENANT = "demo"
N_PICTURES = 300
N_HITS = 5
PICTURES_OWN_FAULT = frozenset(
    reason.value for reason in Reason if reason.value.startswith("image_") and reason is not Reason.IMAGE_MISSING
) | {Reason.DECODER_TIMEOUT.value, Reason.DECODER_CRASHED.value}
"""A file that is no picture is reported and does not fail the demo; anything else does."""


@click.command("demo")
@click.option(
    "--images",
    type=click.Path(path_type=Path, exists=True, file_okay=False),
    default=None,
    help="Your own folder of pictures, with all folders in it; default: photographs made on the spot.",
)
@click.option("--once", is_flag=True, help="Stop after the query instead of serving the page.")
@click.option(
    "--data",
    type=click.Path(path_type=Path, file_okay=False),
    default=None,
    help="Folder for everything that is kept; default: a temporary one, removed at the end.",
)
@click.option("--port", type=click.IntRange(0, 65535), default=None, help="Of the page; default 8080; 0: a free one.")
@json_option
@click.pass_context
def command(
    ctx: click.Context, images: Path | None, once: bool, data: Path | None, port: int | None, as_json: bool
) -> None:
    """Start everything, ingest pictures, show one query, and serve the page until Ctrl-C.

    Exits with 0 only if every picture that can be decoded became searchable.

    \b
    Examples:
      lookalike demo
      lookalike demo --images ~/Pictures
      lookalike demo --once --json | tail -n 1
    """
    settings = read_settings()
    from lookalike.local.up import UpOptions, one_interrupt, start

    at_port = (0 if once else settings.api.port) if port is None else port
    with ExitStack() as stack:
        stack.enter_context(one_interrupt())
        folder = data or Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="lookalike-demo-")))
        pictures, skipped = _own_pictures(images) if images is not None else (_demo_pictures(folder), [])
        running = stack.enter_context(start(UpOptions(settings=settings, data=folder, port=at_port), note))
        result = _ingest(running, settings, pictures, skipped)
        _show(running, result, pictures, as_json=as_json, serving=not once)
        if not once:
            _serve(running)
        ctx.exit(0 if result.complete else 1)


@dataclass(frozen=True, slots=True)
class Result:
    """What the demo found out; `json` is what ``--json`` prints."""

    json: dict[str, Any]
    query_file: str

    @property
    def complete(self) -> bool:
        """Whether every good picture is searchable."""
        bad = sum(one["reason"] in PICTURES_OWN_FAULT for one in self.json["failed"])
        found: int = self.json["indexed"]
        return found > 0 and found == self.json["pictures"] - bad


def _own_pictures(images: Path) -> tuple[list[Picture], list[Skipped]]:
    found = list(find_files([images]))
    pictures = [name_picture(TENANT, path) for path in found if isinstance(path, Path)]
    if not pictures:
        raise ConfigError(f"there is no file in {images}: name a folder of pictures with --images")
    return pictures, [path for path in found if isinstance(path, Skipped)]


def _demo_pictures(folder: Path) -> list[Picture]:
    """Photographs and their variations; an image is called as its file, so that hits read well."""
    from lookalike import demo_pictures

    with progress("making pictures", total=N_PICTURES) as bar:
        made = demo_pictures.make(folder / "originals", n=N_PICTURES, progress=lambda _done: bar.advance())
    return [name_picture(TENANT, one.path, image_id=one.path.stem) for one in made]


def _ingest(running: Running, settings: Settings, pictures: Sequence[Picture], skipped: Sequence[Skipped]) -> Result:
    from embedder.index.points import State
    from embedder.index.query import like
    from embedder.index.service.client import IndexClient
    from lookalike.commands.publish import publish_all

    report = publish_all(settings, running.parts.data, TENANT, pictures, wait=True, bulk=False)
    failed = [{"image_id": one["image_id"], "reason": one["reason"]} for one in report["failed"]]
    failed += [{"image_id": str(one.path), "reason": "not_a_file"} for one in skipped]
    failed += [{"image_id": one["image_id"], "reason": "no_outcome"} for one in report["unanswered"]]
    not_good = {one["image_id"] for one in failed}
    asked = next((one for one in pictures if one.image_id not in not_good), None)
    client = IndexClient(running.parts.index_socket)
    try:
        indexed = client.count(TENANT)[State.INDEXED]
        hits = client.search(TENANT, like(asked.image_id, limit=N_HITS)) if asked is not None else None
        stats = client.stats()
        spec = client.spec()
    finally:
        client.close()
    json = {
        "pictures": len(pictures),
        "indexed": indexed,
        "failed": failed,
        "seconds": report["seconds"],
        "pictures_per_s": round(indexed / report["seconds"], 2),
        "query": {
            "image_id": asked.image_id if asked is not None else None,
            "hits": [{"image_id": hit.image_id, "score": round(hit.score, 4)} for hit in (hits.hits if hits else ())],
        },
        "broker": running.broker,
        "index": f"{stats.engine} {stats.collection}",
        "model": spec.model_id,
    }
    return Result(json, asked.path.name if asked is not None else "")


def _show(running: Running, result: Result, pictures: Sequence[Picture], *, as_json: bool, serving: bool) -> None:
    found, names = result.json, {picture.image_id: picture.path.name for picture in pictures}
    for one in found["failed"]:
        note(f"failed: {names.get(one['image_id'], one['image_id'])}  {one['reason']}")
    if not as_json or serving:
        say(f"{found['indexed']} of {found['pictures']} pictures in {found['seconds']} s ({found['pictures_per_s']}/s)")
        say(f"most like {result.query_file}:")
        _show_hits(found["query"]["hits"], names)
    if serving:
        say(f"{running.api_url}/?tenant={TENANT}")
    if as_json:
        print_json(found)


def _show_hits(hits: Sequence[Mapping[str, Any]], names: Mapping[str, str]) -> None:
    for line in table((f"  {hit['score']:.3f}", names.get(hit["image_id"], hit["image_id"])) for hit in hits):
        say(line)


def _serve(running: Running) -> None:
    note("Ctrl-C stops")
    try:
        running.wait()
    except KeyboardInterrupt:
        note("stopping")
