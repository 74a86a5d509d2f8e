"""``lookalike publish``: store pictures, announce them, and if asked wait until they are searchable."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import click

from lookalike.addresses import find_addresses
from lookalike.options import IMAGE_ID, data_option, json_option, tenant_option
from lookalike.output import note, print_json, progress, say
from lookalike.pictures import Picture, Skipped, find_files, name_picture
from lookalike.publishing import Failure, Published, Publisher, publish_files
from lookalike.settings import Settings, read_settings
from lookalike.stores import open_store
from streams.report.outcomes import Outcome, OutcomeState


@click.command("publish")
@tenant_option
@click.argument("paths", nargs=-1, required=True, type=click.Path(exists=True, path_type=Path), metavar="PATH…")
@click.option("--image-id", type=IMAGE_ID, default=None, help="Name of the image; with one file only.")
@click.option("--wait", "wait", is_flag=True, help="Wait for every picture's outcome; exit 1 if any failed.")
@click.option("--bulk", is_flag=True, help="Announce on the slow lane, behind everybody's live pictures.")
@data_option
@json_option
@click.pass_context
def command(
    ctx: click.Context,
    tenant_id: str,
    paths: tuple[Path, ...],
    image_id: str | None,
    wait: bool,
    bulk: bool,
    data: Path | None,
    as_json: bool,
) -> None:
    """Store pictures and announce them. Folders are walked; publishing a file again changes nothing.

    \b
    Examples:
      lookalike publish --tenant acme photos --wait
      lookalike publish --tenant acme cat.jpg --image-id cat-1
      lookalike publish --tenant acme photos --wait --json | tail -n 1 | jq .failed
    """
    found = list(find_files(paths))
    pictures = [name_picture(tenant_id, path, image_id=image_id) for path in found if isinstance(path, Path)]
    skipped = [path for path in found if isinstance(path, Skipped)]
    if image_id is not None and len(pictures) != 1:
        raise click.UsageError(f"--image-id names one picture, the paths hold {len(pictures)}")
    report = publish_all(read_settings(), data, tenant_id, pictures, wait=wait, bulk=bulk)
    result = {"tenant_id": tenant_id, **report, "skipped": [{"file": str(s.path), "why": s.why} for s in skipped]}
    _print(result, as_json=as_json)
    if result["failed"] or result["unanswered"] or not pictures:
        ctx.exit(1)


def publish_all(
    settings: Settings, data: Path | None, tenant_id: str, pictures: Sequence[Picture], *, wait: bool, bulk: bool
) -> dict[str, Any]:
    from lookalike.following import OutcomeFollower
    from streams.producer import KafkaProducer
    from streams.topics import Lane

    addresses = find_addresses(settings, data)
    kafka = addresses.kafka(settings)
    names = settings.kafka.topic_names()
    started_at = time.monotonic()
    # The follower first: it must know where the outcomes ended before the first event is sent, and
    # it says in one line when there is no broker, before anything is stored.
    with (
        OutcomeFollower(kafka, names.outcomes) as follower,
        KafkaProducer(kafka, message_timeout_ms=30_000) as producer,
    ):
        publisher = Publisher(
            tenant_id=tenant_id,
            bucket=settings.objects.buckets[0],
            objects=open_store(settings, addresses),
            producer=producer,
            topic=names.lane(Lane.BULK if bulk else Lane.LIVE),
        )
        with progress("publishing", total=len(pictures)) as bar:
            max_bytes = settings.decode.max_image_bytes
            done = publish_files(pictures, publisher, max_image_bytes=max_bytes, on_done=bar.advance)
        outcomes: dict[str, Outcome] | None = None
        if wait:
            with progress("embedding", total=len(done.events)) as bar:
                outcomes = follower.wait(done.events, on_outcome=lambda _: bar.advance())
    return summary(done, outcomes, seconds=time.monotonic() - started_at)


def summary(done: Published, outcomes: dict[str, Outcome] | None, *, seconds: float) -> dict[str, Any]:
    """The result as ``--json`` prints it; `outcomes` None means that nobody waited for them."""
    known = outcomes or {}
    failures = done.failures + [
        _failed(done.events[event_id], outcome)
        for event_id, outcome in known.items()
        if outcome.state is OutcomeState.FAILED
    ]
    unanswered = [] if outcomes is None else [p for event_id, p in done.events.items() if event_id not in known]
    return {
        "images": [{"image_id": p.image_id, "file": str(p.path)} for p in done.events.values()],
        "published": len(done.events),
        "outcomes": None if outcomes is None else dict(Counter(o.state.value for o in known.values())),
        "failed": [asdict(failure) for failure in failures],
        "unanswered": [{"image_id": p.image_id, "file": str(p.path)} for p in unanswered],
        "seconds": round(seconds, 3),
    }


def _failed(picture: Picture, outcome: Outcome) -> Failure:
    reason = outcome.reason.value if outcome.reason is not None else "unknown"
    return Failure(picture.image_id, str(picture.path), reason, outcome.message or "")


def _print(result: dict[str, Any], *, as_json: bool) -> None:
    for failure in result["failed"]:
        note(f"failed: {failure['image_id']}  {failure['file']}  {failure['reason']}: {failure['message']}")
    for picture in result["unanswered"]:
        note(f"no outcome: {picture['image_id']}  {picture['file']} (is a worker running? see `lookalike status`)")
    for entry in result["skipped"]:
        note(f"skipped: {entry['file']} {entry['why']}")
    if as_json:
        print_json(result)
        return
    for image in result["images"]:
        say(f"{image['image_id']}  {image['file']}")
    states = result["outcomes"]
    told = "" if states is None else ": " + (", ".join(f"{n} {state}" for state, n in sorted(states.items())) or "none")
    note(f"published {result['published']} pictures of {result['tenant_id']} in {result['seconds']:.1f} s{told}")
