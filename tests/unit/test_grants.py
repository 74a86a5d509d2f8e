"""What a tenant may read: its own prefixes of the configured buckets, and nothing beside them."""

from __future__ import annotations

import pytest

from embedder.objects.grants import Grants, is_plain_key
from streams.errors import ConfigError, EventError, Reason
from streams.event import Location


def _allowed(grants: Grants, tenant_id: str, key: str, *, bucket: str = "images") -> bool:
    try:
        grants.check(tenant_id, Location(bucket, key))
    except EventError as exc:
        refused = exc
    else:
        return True
    assert refused.reason is Reason.LOCATION_FORBIDDEN
    assert refused.field in ("location.bucket", "location.key")
    assert not key or key not in refused.message
    return False


@pytest.mark.parametrize("key", ["acme/cat.jpg", "acme/2026/11/cat.jpg", "acme/..cat.jpg", "acme/Köln 1.jpg"])
def test_a_tenant_reads_its_own_prefix(key: str) -> None:
    """As deep as it likes, with any letters."""
    assert _allowed(Grants(["images"]), "acme", key)


@pytest.mark.parametrize(
    "key",
    [
        "other/cat.jpg",
        "acme",
        "acme2/cat.jpg",
        "ACME/cat.jpg",
        "x/acme/cat.jpg",
        "acme/../other/cat.jpg",
        "acme/./cat.jpg",
        "acme//cat.jpg",
        "acme/",
        "/acme/cat.jpg",
        "acme/..",
        "acme\\..\\other/cat.jpg",
        "acme/..\\other",
        "acme/cat\0.jpg",
        "acme/cat\n.jpg",
        "acme/\x7f",
        "acme/\ud800.jpg",
        "{tenant_id}/cat.jpg",
        "",
    ],
)
def test_a_tenant_reads_nothing_else(key: str) -> None:
    """Neither a neighbour's, nor what some store would read as another path."""
    assert not _allowed(Grants(["images"]), "acme", key)


def test_a_tenant_whose_name_begins_anothers_reads_only_its_own() -> None:
    """`a` is not `ab`, in either direction."""
    grants = Grants(["images"])
    assert _allowed(grants, "a", "a/1.jpg")
    assert not _allowed(grants, "a", "ab/1.jpg")
    assert not _allowed(grants, "ab", "a/1.jpg")


def test_another_bucket_is_refused() -> None:
    """Whatever the key; and with no bucket nothing is allowed."""
    assert not _allowed(Grants(["images"]), "acme", "acme/cat.jpg", bucket="backups")
    assert not _allowed(Grants([]), "acme", "acme/cat.jpg")
    assert _allowed(Grants(["images", "backups"]), "acme", "acme/cat.jpg", bucket="backups")


def test_templates_say_where_the_tenant_stands() -> None:
    """Each of them counts; the tenant's own name alone is then no longer enough."""
    grants = Grants(["images"], ["uploads/{tenant_id}/", "{tenant_id}/public/"])
    assert _allowed(grants, "acme", "uploads/acme/cat.jpg")
    assert _allowed(grants, "acme", "acme/public/cat.jpg")
    assert not _allowed(grants, "acme", "acme/private/cat.jpg")
    assert not _allowed(grants, "acme", "uploads/other/cat.jpg")
    assert not _allowed(grants, "acme", "uploads/acme")


@pytest.mark.parametrize(
    "template",
    [
        "",
        "/",
        "uploads/",
        "{tenant_id}",
        "uploads/{tenant_id}",
        "tenant-{tenant_id}/",
        "{tenant_id}-files/",
        "{tenant}/",
        "/{tenant_id}/",
        "a//{tenant_id}/",
        "../{tenant_id}/",
        "{tenant_id}/{year}/",
    ],
)
def test_a_template_that_holds_no_tenants_apart_is_refused(template: str) -> None:
    """The id must be a whole folder, and the prefix one that a key can have: found at the start, not by events."""
    with pytest.raises(ConfigError, match="tenant prefix"):
        Grants(["images"], [template])


def test_a_plain_key_is_a_path_that_all_stores_agree_on() -> None:
    """No segment is empty or a dot name, however it is nested."""
    assert is_plain_key("a/b.c/...d")
    assert not any(is_plain_key(key) for key in ("", ".", "..", "a/", "/a", "a//b", "a/../b", "a\\b", "a\tb"))
