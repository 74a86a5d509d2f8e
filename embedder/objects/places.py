"""Where the objects lie that this project puts itself: pictures sent to the API, and thumbnails.

    UPLOAD_BUCKET     {tenant's prefix}uploads/{image_id}/{version}
    THUMBNAIL_BUCKET  {tenant_id}/{image_id}/{hash of the picture's ETag}

An upload has a key of its own per version: what is stored under it never becomes other bytes, so an upload
that is given up half-way cannot set the indexed picture back. Thumbnails lie in a bucket that no grant
names: nobody can announce one as a picture.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable
from dataclasses import dataclass

from embedder.objects.grants import PLACEHOLDER
from embedder.objects.protocol import ObjectStore
from streams.errors import ConfigError
from streams.event import Location

UPLOADS = "uploads/"


@dataclass(frozen=True, slots=True)
class Places:
    """`prefix` is the template under which tenants may read, ``{tenant_id}/`` unless settings say otherwise."""

    upload_bucket: str
    thumbnail_bucket: str
    prefix: str = PLACEHOLDER + "/"

    def __post_init__(self) -> None:
        """ConfigError where thumbnails would lie among pictures."""
        if self.upload_bucket == self.thumbnail_bucket:
            raise ConfigError(f"thumbnails need a bucket of their own: {self.thumbnail_bucket!r} holds pictures")

    def upload(self, tenant_id: str, image_id: str, version: int) -> Location:
        """Where an upload lies; the tenant may read it."""
        return Location(self.upload_bucket, f"{self.uploads_of(tenant_id, image_id)}{version}")

    def uploads_of(self, tenant_id: str, image_id: str) -> str:
        """The folder of an image's uploads."""
        return f"{self._uploads(tenant_id)}{image_id}/"

    def is_upload(self, tenant_id: str, image_id: str, location: Location) -> bool:
        """Whether the object was put here for this very image, and goes with it."""
        in_bucket = location.bucket == self.upload_bucket
        return in_bucket and location.key.startswith(self.uploads_of(tenant_id, image_id))

    def thumbnail(self, tenant_id: str, image_id: str, etag: str) -> str:
        """The key of the thumbnail of a picture with this ETag."""
        return f"{self.thumbnails_of(tenant_id, image_id)}{hashlib.sha256(etag.encode()).hexdigest()[:32]}"

    def thumbnails_of(self, tenant_id: str, image_id: str) -> str:
        """The folder of an image's thumbnails."""
        return f"{tenant_id}/{image_id}/"

    def remove_image(self, objects: ObjectStore, tenant_id: str, image_id: str, *, up_to_version: int) -> int:
        """Remove an image's thumbnails, and its uploads up to this version; returns how many objects went.

        Blocks; twice is harmless. Raises as :meth:`ObjectStore.delete`.
        """
        uploads = self.uploads_of(tenant_id, image_id)
        n_uploads = _remove(objects, self.upload_bucket, uploads, lambda key: _version(key) <= up_to_version)
        return n_uploads + self.remove_thumbnails(objects, tenant_id, image_id)

    def remove_old_uploads(
        self, objects: ObjectStore, tenant_id: str, image_id: str, *, before_version: int, but: Location | None
    ) -> int:
        """Remove uploads that a newer picture has replaced; `but` is the one whose vector is stored."""
        kept = None if but is None else but.key
        uploads = self.uploads_of(tenant_id, image_id)
        return _remove(objects, self.upload_bucket, uploads, lambda key: key != kept and _version(key) < before_version)

    def remove_thumbnails(self, objects: ObjectStore, tenant_id: str, image_id: str, *, but: str | None = None) -> int:
        """Remove an image's thumbnails, `but` the one of this key."""
        folder = self.thumbnails_of(tenant_id, image_id)
        return _remove(objects, self.thumbnail_bucket, folder, lambda key: key != but)

    def remove_tenants_uploads(self, objects: ObjectStore, tenant_id: str) -> int:
        """Remove every upload of a tenant; returns how many. Pictures that it put itself stay.

        Blocks, for as long as there are objects; may be called again where it was interrupted.
        """
        return _remove(objects, self.upload_bucket, self._uploads(tenant_id))

    def remove_tenants_thumbnails(self, objects: ObjectStore, tenant_id: str) -> int:
        """Remove every thumbnail of a tenant; returns how many. As above."""
        return _remove(objects, self.thumbnail_bucket, f"{tenant_id}/")

    def _uploads(self, tenant_id: str) -> str:
        return self.prefix.replace(PLACEHOLDER, tenant_id) + UPLOADS


def _remove(objects: ObjectStore, bucket: str, folder: str, wanted: Callable[[str], bool] = lambda _: True) -> int:
    keys: Iterable[str] = [key for key in objects.keys(bucket, folder) if wanted(key)]
    n_removed = 0
    for key in keys:
        objects.delete(bucket, key)
        n_removed += 1
    return n_removed


def _version(key: str) -> int:
    """Of an upload's key; what is no upload counts as newest, so that it stays."""
    name = key.rpartition("/")[2]
    return int(name) if name.isascii() and name.isdigit() else 2**63
