"""Thumbnails that were made already: in a bucket of their own, by tenant, image and the picture's ETag."""

from __future__ import annotations

import structlog

from embedder.objects.places import Places
from embedder.objects.protocol import ObjectMissingError, ObjectStore
from streams.errors import LookalikeError
from streams.event import Location

MAX_BYTES = 4 * 1024 * 1024
"""Far above what a picture of 256 pixels takes."""

_log = structlog.get_logger("query_api")


class ThumbnailStore:
    """Blocks; thread-safe. A bucket that fails costs time, never an answer: the thumbnail is made again."""

    def __init__(self, objects: ObjectStore, places: Places) -> None:
        self._objects = objects
        self._places = places

    def get(self, tenant_id: str, image_id: str, etag: str) -> bytes | None:
        """The thumbnail, where it was made before."""
        place = Location(self._places.thumbnail_bucket, self._places.thumbnail(tenant_id, image_id, etag))
        try:
            return self._objects.get(place, max_bytes=MAX_BYTES).data
        except ObjectMissingError:
            return None
        except LookalikeError as exc:
            _log.warning("thumbnail cannot be read", bucket=place.bucket, error=str(exc))
            return None

    def put(self, tenant_id: str, image_id: str, etag: str, jpeg: bytes, *, alone: bool = True) -> None:
        """Keep it; those of the image's other pictures go, unless one of them is still searchable (not `alone`)."""
        key = self._places.thumbnail(tenant_id, image_id, etag)
        try:
            self._objects.put(self._places.thumbnail_bucket, key, jpeg, content_type="image/jpeg")
            if alone:
                self._places.remove_thumbnails(self._objects, tenant_id, image_id, but=key)
        except LookalikeError as exc:
            _log.warning("thumbnail cannot be kept", bucket=self._places.thumbnail_bucket, error=str(exc))

    def remove(self, tenant_id: str, image_id: str) -> None:
        """Forget the image's thumbnails. Raises as :meth:`ObjectStore.delete`."""
        self._places.remove_thumbnails(self._objects, tenant_id, image_id)
