"""What is removed with a tenant: every store that keeps something of it has its line here."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from contextlib import closing

from lookalike.addresses import Addresses
from lookalike.index import open_administration, open_index
from lookalike.settings import Settings
from lookalike.stores import open_store

Removal = Callable[[Settings, Addresses, str], int]


def _points(settings: Settings, addresses: Addresses, tenant_id: str) -> int:
    """Points of every collection, the ones no alias means included."""
    with closing(open_administration(settings, addresses)) as administration:
        specs = [one.spec for one in administration.collections()]
    removed = 0
    for spec in specs:
        with closing(open_index(settings, addresses, spec=spec)) as index:
            removed += index.delete_tenant(tenant_id)
            index.flush()
    return removed


def _uploads(settings: Settings, addresses: Addresses, tenant_id: str) -> int:
    """Pictures that were sent to the API; those that the tenant put into a bucket itself are its own."""
    return settings.objects.places().remove_tenants_uploads(open_store(settings, addresses), tenant_id)


def _thumbnails(settings: Settings, addresses: Addresses, tenant_id: str) -> int:
    """Last: as long as a picture is searchable somebody may ask for its thumbnail, which is made then."""
    return settings.objects.places().remove_tenants_thumbnails(open_store(settings, addresses), tenant_id)


REMOVALS: Mapping[str, Removal] = {"points": _points, "uploads": _uploads, "thumbnails": _thumbnails}
"""By what is counted; each removes all that it finds, and may be called again."""


def delete_everywhere(settings: Settings, addresses: Addresses, tenant_id: str) -> dict[str, int]:
    """Remove everything of the tenant; how many of each kind there were.

    Raises:
        ConfigError: a store is not known; nothing was removed.
    """
    open_store(settings, addresses)
    return {name: remove(settings, addresses, tenant_id) for name, remove in REMOVALS.items()}
