"""``lookalike tenant``: what one tenant has, and how it is removed."""

from __future__ import annotations

from pathlib import Path

import click

from lookalike.addresses import find_addresses
from lookalike.index import open_index
from lookalike.logs import configure_logging
from lookalike.options import data_option, json_option, tenant_option
from lookalike.output import print_json, say, table
from lookalike.settings import read_settings
from lookalike.tenants import delete_everywhere


@click.group("tenant")
def command() -> None:
    """Figures of one tenant, and its removal.

    \b
    Examples:
      lookalike tenant stats --tenant acme
      lookalike tenant delete --tenant acme --yes --json
    """


@command.command("stats")
@tenant_option
@data_option
@json_option
def stats(tenant_id: str, data: Path | None, as_json: bool) -> None:
    """Points by state and open attempts of one tenant, in the collection that is asked."""
    settings = read_settings()
    configure_logging("error")
    index = open_index(settings, find_addresses(settings, data))
    try:
        found = index.tenant_stats(tenant_id)
    finally:
        index.close()
    points = {str(state): n for state, n in found.points.items()}
    attempts = dict(found.attempts)
    if as_json:
        print_json({"tenant": tenant_id, "collection": found.collection, "points": points, "attempts": attempts})
    else:
        say("\n".join(table([("collection", found.collection), *points.items(), *attempts.items()])))


@command.command("delete")
@tenant_option
@click.option("--yes", is_flag=True, help="Do not ask.")
@data_option
@json_option
def delete(tenant_id: str, yes: bool, data: Path | None, as_json: bool) -> None:
    """Remove every point of a tenant from every collection, tombstones included, its uploads and thumbnails.

    Says how many of each there were. Pictures that the tenant put into a bucket itself stay. Stop its producers
    first: an event that is still on its way makes a new point.
    """
    if not yes:
        click.confirm(f"remove everything of tenant {tenant_id}?", abort=True, err=True)
    settings = read_settings()
    configure_logging("error")
    removed = delete_everywhere(settings, find_addresses(settings, data), tenant_id)
    if as_json:
        print_json({"tenant": tenant_id, "removed": removed})
    else:
        say("\n".join(table(removed.items())))
