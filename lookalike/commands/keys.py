"""``lookalike keys``: who may ask the API."""

from __future__ import annotations

import re
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import click

from lookalike.options import TENANT_ID, json_option
from lookalike.output import note, print_json, say, table
from lookalike.settings import read_settings
from streams.errors import ConfigError

if TYPE_CHECKING:
    from query_api.keys import Key

_F = TypeVar("_F", bound=Callable[..., Any])
_UNITS = {"h": timedelta(hours=1), "d": timedelta(days=1), "w": timedelta(weeks=1)}
_DURATION = re.compile(r"([1-9][0-9]{0,4})([hdw])\Z", re.ASCII)


class _Expiry(click.ParamType):
    """A time that is still to come."""

    name = "time"

    def convert(self, value: str, param: click.Parameter | None, ctx: click.Context | None) -> datetime:
        now = datetime.now(UTC)
        match = _DURATION.match(value)
        try:
            at = now + int(match[1]) * _UNITS[match[2]] if match else datetime.fromisoformat(value)
        except (ValueError, OverflowError):
            self.fail(f"{value!r} is no time: 90d, 12h, 4w, or 2027-01-31T12:00:00+00:00", param, ctx)
        at = at if at.tzinfo is not None else at.replace(tzinfo=UTC)
        if at <= now:
            self.fail(f"{value!r} has passed", param, ctx)
        return at


class _Tenant(click.ParamType):
    """A tenant, or every tenant."""

    name = "tenant"

    def convert(self, value: str, param: click.Parameter | None, ctx: click.Context | None) -> str:
        return value if value == "*" else str(TENANT_ID.convert(value, param, ctx))


def file_option(command: _F) -> _F:
    """``--file``: where the keys are."""
    return click.option(
        "--file",
        type=click.Path(path_type=Path, dir_okay=False),
        default=None,
        help="File of the keys; default LOOKALIKE_API_KEYS_FILE.",
    )(command)


@click.group("keys")
def command() -> None:
    """Who may ask the API. A running API sees changes within two seconds.

    \b
    Examples:
      lookalike keys create --tenant acme --scope search --expires 90d
      lookalike keys create --tenant '*' --scope admin     the operator's own
      lookalike keys list
      lookalike keys revoke 3f9c0a1b2d4e
    """


@command.command("create")
@click.option("--tenant", "tenant_id", type=_Tenant(), required=True, help="Whose pictures; '*' for everybody's.")
@click.option(
    "--scope",
    type=click.Choice(["search", "write", "admin"]),
    default="search",
    show_default=True,
    help="search reads; write also posts and deletes; admin with --tenant '*' also sees /metrics.",
)
@click.option("--expires", "expires_at", type=_Expiry(), default=None, help="90d, 12h, 4w or a time; default never.")
@file_option
@json_option
def create(tenant_id: str, scope: str, expires_at: datetime | None, file: Path | None, as_json: bool) -> None:
    """Make a key and show it, this once: only its SHA-256 is stored."""
    from query_api.keys import Scope, changing, new_key

    made = new_key(tenant_id, Scope(scope), now=datetime.now(UTC), expires_at=expires_at)
    path = _path(file)
    with changing(path) as keys:
        keys[made.key.id] = made.key
    if as_json:
        print_json({**_row(made.key), "key": made.text})
        return
    say(made.text)
    note(f"key {made.key.id} of {tenant_id} ({scope}) is in {path}; the line above is shown this once")


@command.command("list")
@file_option
@json_option
def list_(file: Path | None, as_json: bool) -> None:
    """Show which keys there are; none of them can be asked with."""
    from query_api.keys import read_keys

    rows = [_row(key) for key in sorted(read_keys(_path(file)).values(), key=lambda key: key.created_at)]
    if as_json:
        print_json({"keys": rows})
        return
    for line in table([("id", "tenant", "scope", "created", "expires"), *(tuple(row.values()) for row in rows)]):
        say(line)


@command.command("revoke")
@click.argument("key_id", metavar="ID")
@file_option
@json_option
@click.pass_context
def revoke(ctx: click.Context, key_id: str, file: Path | None, as_json: bool) -> None:
    """Remove a key; the API refuses it within two seconds. Exit 1 where there is none of this id."""
    from query_api.keys import changing, read_keys

    path = _path(file)
    read_keys(path)  # a file that is not there is not made
    with changing(path) as keys:
        removed = keys.pop(key_id, None)
    if as_json:
        print_json({"revoked": None if removed is None else removed.id})
    elif removed is not None:
        say(f"{removed.id} of {removed.tenant_id} is revoked")
    if removed is None:
        note(f"{path} has no key {key_id!r}")
        ctx.exit(1)


def _path(file: Path | None) -> Path:
    path = file or read_settings().api.keys_file
    if path is None:
        raise ConfigError("no file of keys: set LOOKALIKE_API_KEYS_FILE, or name one with --file")
    return path


def _row(key: Key) -> dict[str, str | None]:
    return {
        "id": key.id,
        "tenant": key.tenant_id,
        "scope": key.scope.value,
        "created": key.created_at.isoformat(timespec="seconds"),
        "expires": None if key.expires_at is None else key.expires_at.isoformat(timespec="seconds"),
    }
