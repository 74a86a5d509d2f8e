"""Thumbnails: small, cached, never another tenant's, never older than the picture."""

from __future__ import annotations

import io

import pytest
from PIL import Image

from embedder.index.points import Bury, PutVector
from query_api.routes.thumbnails import ThumbnailCache
from streams.event import Location
from tests.api_rig import BUCKET, TENANT, VERSION, Rig, error_of, filled, get, picture

THUMBNAIL = f"/v1/tenants/{TENANT}/images/f0-m0/thumbnail"


def test_a_thumbnail_is_a_small_jpeg_that_no_browser_takes_for_anything_else() -> None:
    """At most 256 pixels, image/jpeg, nosniff, kept by the asker alone."""
    response = get(filled(1, 1).app(), THUMBNAIL)
    assert response.status_code == 200
    assert response.headers["content-type"] == "image/jpeg"
    assert response.headers["x-content-type-options"] == "nosniff"
    assert response.headers["cache-control"] == "private, no-cache"
    assert Image.open(io.BytesIO(response.content)).size == (256, 192)


def test_a_copy_that_is_still_right_is_304() -> None:
    """If-None-Match with the tag given out costs no picture; another tag does."""
    rig = filled(1, 1)
    app = rig.app()
    tag = get(app, THUMBNAIL).headers["etag"]
    reads = rig.objects.reads
    for given in (tag, f'"other", W/{tag}', "*"):
        response = get(app, THUMBNAIL, headers={"If-None-Match": given})
        assert (response.status_code, response.content) == (304, b"")
    assert rig.objects.reads == reads
    assert get(app, THUMBNAIL, headers={"If-None-Match": '"other"'}).status_code == 200


def test_a_thumbnail_is_made_once_per_picture() -> None:
    """The second asker gets the same bytes out of memory; a new picture of the image is made anew."""
    rig = filled(1, 1)
    app = rig.app()
    first, second = get(app, THUMBNAIL), get(app, THUMBNAIL)
    assert first.content == second.content
    assert rig.embedder.n_thumbnails == 1
    rig.index.write(TENANT, [Bury("f0-m0", VERSION, VERSION)]).result()
    assert get(app, THUMBNAIL).status_code == 409


def test_an_object_that_is_newer_than_its_vector_is_shown_and_not_kept() -> None:
    """Between an upload and its indexing the newest picture is shown without a tag."""
    rig = filled(1, 1)
    app = rig.app()
    rig.objects.put(BUCKET, f"{TENANT}/f0-m0.jpg", picture(5, 0, size=(100, 200)))
    for made in (1, 2):
        response = get(app, THUMBNAIL)
        assert "etag" not in response.headers
        assert response.headers["cache-control"] == "no-store"
        assert rig.embedder.n_thumbnails == made


def test_an_object_that_is_gone_is_404_and_a_broken_one_422() -> None:
    """The index may know a picture that the bucket has lost or that was overwritten with something else."""
    rig = filled(1, 1)
    app = rig.app()
    rig.objects.put(BUCKET, f"{TENANT}/f0-m0.jpg", b"no picture any more")
    broken = get(app, THUMBNAIL)
    assert (broken.status_code, error_of(broken)["code"]) == (422, "image_unreadable")
    rig.objects.delete(BUCKET, f"{TENANT}/f0-m0.jpg")
    gone = get(app, THUMBNAIL)
    assert (gone.status_code, error_of(gone)["code"]) == (404, "image_missing")


def test_a_location_outside_of_the_tenants_prefix_is_not_read() -> None:
    """Whatever the index holds, another tenant's object never becomes this tenant's thumbnail."""
    rig = Rig()
    data = picture(0, 0)
    rig.objects.put(BUCKET, "globex/secret.jpg", data)
    location = Location(BUCKET, "globex/secret.jpg")
    vector = rig.embedder.embed(data)
    write = PutVector("f0-m0", VERSION, vector, location, etag="e", sha256="0", indexed_at_us=VERSION)
    rig.index.write(TENANT, [write]).result()
    response = get(rig.app(), THUMBNAIL)
    assert (response.status_code, error_of(response)["code"]) == (403, "location_forbidden")
    assert rig.objects.reads == 0


def test_an_image_deleted_while_its_thumbnail_is_made_leaves_none(monkeypatch: pytest.MonkeyPatch) -> None:
    """Whoever asked gets what was made; the bucket keeps nothing of a deleted image."""
    rig = filled(1, 1)
    whole = rig.embedder.thumbnail

    def thumbnail(data: bytes) -> bytes:
        rig.index.write(TENANT, [Bury("f0-m0", VERSION, VERSION)]).result()
        return whole(data)

    monkeypatch.setattr(rig.embedder, "thumbnail", thumbnail)
    assert get(rig.app(), THUMBNAIL).status_code == 200
    assert [key for bucket, key in rig.objects.objects if bucket == "thumbnails"] == []


def test_the_cache_keeps_what_was_asked_for_last_within_its_bytes() -> None:
    """The least recently asked goes first; what is larger than the cache is not kept."""
    cache = ThumbnailCache(max_bytes=10)
    a, b, c, d = [(TENANT, name, "e") for name in "abcd"]
    cache.put(a, b"1234")
    cache.put(b, b"1234")
    assert cache.get(a) == b"1234"
    cache.put(c, b"1234")
    assert [cache.get(key) for key in (a, b, c)] == [b"1234", None, b"1234"]
    cache.put(a, b"12")
    cache.put(b, b"1234")
    assert [cache.get(key) for key in (a, b, c)] == [b"12", b"1234", b"1234"]
    cache.put(d, bytes(11))
    assert cache.get(d) is None
