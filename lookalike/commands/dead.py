"""``lookalike dead``: look at what could not be indexed, and send it again when its cause is mended."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import click

from lookalike.addresses import Addresses, find_addresses
from lookalike.options import data_option, json_option
from lookalike.output import note, print_json, progress, say, table
from lookalike.settings import Settings, read_settings
from streams.errors import LookalikeError, Reason

if TYPE_CHECKING:
    from streams.report.dead_records import DeadRecord

_F = TypeVar("_F", bound=Callable[..., Any])


@dataclass(frozen=True, slots=True)
class Wanted:
    """Which dead letters; what is None or empty excludes none. Times are the broker's."""

    reasons: Sequence[str] = ()
    tenant_id: str | None = None
    image_id: str | None = None
    places: Sequence[str] = ()
    since: datetime | None = None
    until: datetime | None = None

    @property
    def everything(self) -> bool:
        return not (self.reasons or self.tenant_id or self.image_id or self.places or self.since or self.until)

    def __call__(self, letter: DeadRecord) -> bool:
        at = _at(letter)
        return (
            (not self.reasons or letter.reason in self.reasons)
            and self.tenant_id in (None, letter.tenant_id)
            and self.image_id in (None, letter.image_id)
            and (not self.places or bool({letter.place, letter.event_id} & set(self.places)))
            and (self.since is None or at >= self.since)
            and (self.until is None or at < self.until)
        )


@click.group("dead")
def command() -> None:
    """List, show and replay dead letters.

    \b
    Examples:
      lookalike dead list --reason image_unreadable --tenant acme
      lookalike dead show 0:17
      lookalike dead replay --reason attempts_exhausted --since 2026-01-31 --dry-run
    """


def filters(decorated: _F) -> _F:
    """The options that choose dead letters."""
    moment = click.DateTime(["%Y-%m-%d", "%Y-%m-%dT%H:%M:%S"])
    reasons = click.Choice([reason.value for reason in Reason])
    options = [
        click.option("--reason", "reasons", multiple=True, type=reasons, help="Only these; may be repeated."),
        click.option("--tenant", "tenant_id", help="Only this tenant's, by the record's key."),
        click.option("--image", "image_id", help="Only this image's."),
        click.option("--id", "places", multiple=True, help="Only these: PARTITION:OFFSET or an event id."),
        click.option("--since", type=moment, help="Dead-lettered from then on (UTC)."),
        click.option("--until", type=moment, help="Dead-lettered before that (UTC)."),
    ]
    for option in reversed(options):
        decorated = option(decorated)
    return decorated


@command.command("list")
@filters
@click.option("--limit", type=click.IntRange(1), default=100, show_default=True, help="The newest so many.")
@data_option
@json_option
def list_letters(limit: int, data: Path | None, as_json: bool, **given: Any) -> None:
    """What could not be indexed, newest first, and how much of it by reason."""
    settings, addresses = _connect(data)
    chosen = sorted(_letters(settings, addresses, _wanted(given)), key=lambda one: one.at_ms, reverse=True)
    reasons = dict(sorted(Counter(one.reason for one in chosen).items()))
    if as_json:
        print_json({"total": len(chosen), "by_reason": reasons, "letters": [_brief(one) for one in chosen[:limit]]})
        return
    rows = [
        (one.place, _at(one).isoformat(timespec="seconds"), one.reason, one.tenant_id, one.image_id, _line(one))
        for one in chosen[:limit]
    ]
    for line in table([("id", "at", "reason", "tenant", "image", "message"), *rows]) if rows else ():
        say(line)
    note(f"{len(chosen)} dead letters: " + (", ".join(f"{n} {reason}" for reason, n in reasons.items()) or "none"))


@command.command("show")
@click.argument("letter_id", metavar="PARTITION:OFFSET")
@data_option
@json_option
@click.pass_context
def show(ctx: click.Context, letter_id: str, data: Path | None, as_json: bool) -> None:
    """Everything one dead letter says: reason, history, traceback, the original headers and value."""
    settings, addresses = _connect(data)
    letter = next(_letters(settings, addresses, Wanted(places=[letter_id])), None)
    if letter is None:
        note(f"no dead letter {letter_id}: `lookalike dead list` shows those that are kept")
        ctx.exit(1)
    found = _whole(letter)
    if as_json:
        print_json(found)
        return
    for name, value in found.items():
        say(f"{name}: {value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)}")


@command.command("replay")
@filters
@click.option("--all", "everything", is_flag=True, help="All of them: without any other choice this must be said.")
@click.option("--lane", type=click.Choice(["bulk", "live"]), default="bulk", show_default=True, help="Where to.")
@click.option("--dry-run", is_flag=True, help="Say what would be sent, send nothing.")
@click.option("--force", is_flag=True, help="Also creates older than the memory of deletes: they may resurrect.")
@data_option
@json_option
@click.pass_context
def replay(
    ctx: click.Context,
    /,
    everything: bool,
    lane: str,
    dry_run: bool,
    force: bool,
    data: Path | None,
    as_json: bool,
    **given: Any,
) -> None:
    """Send dead letters again, with their version: twice is harmless, what is newer by now stays.

    A create that was dead-lettered longer ago than deletes are remembered is refused without --force.
    """
    wanted = _wanted(given)
    if wanted.everything and not everything:
        raise click.UsageError("say which (--reason, --tenant, --id, --since, …) or --all")
    settings, addresses = _connect(data)
    chosen = list(_letters(settings, addresses, wanted))
    old = [] if force else _too_old(settings, addresses, chosen)
    sending = [one for one in chosen if one not in old]
    if not dry_run:
        _send(settings, addresses, sending, lane)
    result = {
        "replayed": 0 if dry_run else len(sending),
        "would_replay": len(sending) if dry_run else 0,
        "by_reason": dict(sorted(Counter(one.reason for one in sending).items())),
        "refused": [one.place for one in old],
        "lane": lane,
    }
    if as_json:
        print_json(result)
    else:
        for one in sending if dry_run else ():
            say(f"{one.place}  {one.reason}  {one.tenant_id}/{one.image_id}")
        note(f"{'would replay' if dry_run else 'replayed'} {len(sending)} dead letters into {lane}")
    if old:
        note(f"refused {len(old)} creates older than deletes are remembered: --force sends them, and may resurrect")
        ctx.exit(1)


def _connect(data: Path | None) -> tuple[Settings, Addresses]:
    settings = read_settings()
    return settings, find_addresses(settings, data)


def _wanted(given: dict[str, Any]) -> Wanted:
    times = {name: value.replace(tzinfo=UTC) for name in ("since", "until") if (value := given[name]) is not None}
    return Wanted(**{**given, **times})


def _letters(settings: Settings, addresses: Addresses, wanted: Wanted) -> Iterator[DeadRecord]:
    from streams.report.dead_records import read_dead

    return filter(wanted, read_dead(addresses.kafka(settings), settings.kafka.topic_names().dead))


def _too_old(settings: Settings, addresses: Addresses, letters: Sequence[DeadRecord]) -> list[DeadRecord]:
    """Creates whose image's delete may have been forgotten since."""
    from streams.durability import read_configs, tombstone_life_ms
    from streams.topics import Lane

    names = settings.kafka.topic_names()
    life_ms = tombstone_life_ms(read_configs(addresses.kafka(settings), [*map(names.lane, Lane)]), names)
    if life_ms is None:
        return []
    oldest_ms = datetime.now(UTC).timestamp() * 1000 - life_ms
    return [one for one in letters if not one.is_delete and one.at_ms < oldest_ms]


def _send(settings: Settings, addresses: Addresses, letters: Sequence[DeadRecord], lane: str) -> None:
    from streams.errors import DependencyError
    from streams.producer import KafkaProducer
    from streams.topics import Lane

    topic = settings.kafka.topic_names().lane(Lane(lane))
    failed: list[DependencyError] = []
    with (
        progress("replaying", total=len(letters)) as bar,
        KafkaProducer(addresses.kafka(settings), message_timeout_ms=30_000) as producer,
    ):

        def acknowledged(error: DependencyError | None) -> None:
            bar.advance()
            if error is not None:
                failed.append(error)

        for one in letters:
            record = one.record
            producer.send(topic, key=record.key, value=record.value, headers=one.replay_headers(), on_ack=acknowledged)
    if failed:
        raise LookalikeError(f"{len(failed)} of {len(letters)} were not accepted: {failed[0].message}; replay again")


def _at(letter: DeadRecord) -> datetime:
    return datetime.fromtimestamp(letter.at_ms / 1000, UTC)


def _line(letter: DeadRecord) -> str:
    """The last line of the message: of a traceback the error itself."""
    lines = letter.dead.get("message", "").strip().splitlines()
    return lines[-1][:80] if lines else ""


def _brief(letter: DeadRecord) -> dict[str, Any]:
    return {
        "id": letter.place,
        "at": _at(letter).isoformat(),
        "reason": letter.reason,
        "cause": letter.dead.get("cause"),
        "tenant_id": letter.tenant_id,
        "image_id": letter.image_id,
        "event_id": letter.event_id,
        "stage": letter.dead.get("stage"),
        "attempts": letter.dead.get("attempts"),
        "message": _line(letter),
    }


def _whole(letter: DeadRecord) -> dict[str, Any]:
    dead, record = letter.dead, letter.record
    own = {name: value.decode(errors="replace") for name, value in record.headers if not name.startswith("lookalike.")}
    origin = {name: dead.get(name) for name in ("topic", "partition", "offset", "timestamp_ms")}
    return {
        **_brief(letter),
        "message": dead.get("message"),
        "error": dead.get("error"),
        "worker": dead.get("worker"),
        "collection": letter.collection,
        "origin": origin,
        "history": json.loads(dead["history"]) if "history" in dead else [],
        "headers": own,
        "key": None if record.key is None else record.key.decode(errors="replace"),
        "value": None if record.value is None else record.value.decode(errors="replace"),
    }
