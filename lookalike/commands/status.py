"""``lookalike status``: how everything stands now."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import click

from lookalike.addresses import find_addresses
from lookalike.options import data_option, json_option
from lookalike.output import print_json, say, table
from lookalike.settings import read_settings
from lookalike.standing import all_answer, standing


@click.command("status")
@data_option
@json_option
@click.pass_context
def command(ctx: click.Context, data: Path | None, as_json: bool) -> None:
    """Show lag, points, failures. Exit 1 where something does not answer or is set up wrongly.

    \b
    Examples:
      lookalike status
      lookalike status --json | jq .lag
    """
    settings = read_settings()
    found = standing(settings, find_addresses(settings, data))
    if as_json:
        print_json(found)
    else:
        for line in table(rows(found)):
            say(line)
    if not all_answer(found):
        ctx.exit(1)


def rows(found: Mapping[str, Mapping[str, Any]]) -> Iterator[tuple[str, str]]:
    """What a person reads: one thing a line."""
    for name, part in found.items():
        if "error" in part:
            yield name.replace("_", " "), str(part["error"])
        else:
            yield from _ROWS[name](part)


def _broker(part: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    yield "broker", f"{part['bootstrap']} answers"
    for problem in part["problems"]:
        yield "", problem


def _lag(part: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    for topic, records in part.items():
        yield "lag", f"{topic} {records}"


def _dead_letters(part: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    newest = f", newest {part['newest_at']}" if part["newest_at"] else ""
    yield "dead letters", f"{part['total']}{newest}"
    for reason, n in part["by_reason"].items():
        yield "", f"{reason} {n}"


def _model(part: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    yield "model", f"{part['model']} ({part['weights_sha256'][:12]})"
    yield "engine", part["engine"]


def _index(part: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    yield "index", f"{part['collection']} ({part['engine']}), {part['tenants']} tenants"
    for title in ("points", "attempts"):
        yield title, ", ".join(f"{n} {state}" for state, n in part[title].items()) or "none"


def _api(part: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    yield "api", part["url"] + (" is ready" if part["ready"] else " is not ready")
    for failure in part["failed"]:
        yield "", failure


_ROWS = {"broker": _broker, "lag": _lag, "dead_letters": _dead_letters, "model": _model, "index": _index, "api": _api}
