"""Small pictures for people. No byte of a stored picture is decoded in this process."""

from __future__ import annotations

import hashlib
from collections import OrderedDict

from starlette.requests import Request
from starlette.responses import Response

from embedder.index.points import Point, State
from query_api import params
from query_api.deps import Deps
from query_api.keys import Scope
from query_api.lookup import refuse_not_indexed, require_image
from query_api.openapi import parameters, refusals
from query_api.operation import Operation
from query_api.threads import Threads
from query_api.thumbnail_store import ThumbnailStore

CACHE_BYTES = 32 * 1024 * 1024
"""About 3,000 thumbnails of 10 KB."""

Key = tuple[str, str, str]
"""Tenant, image, the object's ETag."""


class ThumbnailCache:
    """The thumbnails asked for last, bounded by their bytes. Used by one thread."""

    def __init__(self, *, max_bytes: int = CACHE_BYTES) -> None:
        self._max_bytes = max_bytes
        self._n_bytes = 0
        self._jpegs: OrderedDict[Key, bytes] = OrderedDict()

    def get(self, key: Key) -> bytes | None:
        jpeg = self._jpegs.get(key)
        if jpeg is not None:
            self._jpegs.move_to_end(key)
        return jpeg

    def put(self, key: Key, jpeg: bytes) -> None:
        self._n_bytes += len(jpeg) - len(self._jpegs.pop(key, b""))
        self._jpegs[key] = jpeg
        while self._n_bytes > self._max_bytes:
            _, oldest = self._jpegs.popitem(last=False)
            self._n_bytes -= len(oldest)


class Thumbnails:
    """`/v1/tenants/{tenant}/images/{id}/thumbnail`; `index` are threads for quick calls, `pictures` for slow ones."""

    def __init__(
        self,
        deps: Deps,
        *,
        index: Threads,
        pictures: Threads,
        kept: ThumbnailStore,
        cache: ThumbnailCache | None = None,
    ) -> None:
        self._deps = deps
        self._kept = kept
        self._index = index
        self._pictures = pictures
        self._cache = cache or ThumbnailCache()

    def operations(self) -> list[Operation]:
        path = "/v1/tenants/{tenant}/images/{id}/thumbnail"
        return [Operation("GET", path, "thumbnail", self.thumbnail, Scope.SEARCH, THUMBNAIL)]

    async def thumbnail(self, request: Request) -> Response:
        params.only(request, ())
        tenant_id, image_id = params.tenant_of(request), params.image_of(request)
        point = await self._index.run(lambda: require_image(self._deps.searcher, tenant_id, image_id))
        if point.state is not State.INDEXED or point.location is None:
            refuse_not_indexed(point)
        tag = _tag_of(point)
        if tag is not None and _matches(request.headers.get("if-none-match", ""), tag):
            return Response(status_code=304, headers=_headers(tag))
        jpeg, is_current = await self._jpeg(point)
        return Response(jpeg, media_type="image/jpeg", headers=_headers(tag if is_current else None))

    async def _jpeg(self, point: Point) -> tuple[bytes, bool]:
        """The thumbnail, and whether it shows the very picture that is indexed: the object may be newer by now."""
        key = (point.tenant_id, point.image_id, point.etag or "")
        known = self._cache.get(key)
        if known is not None:
            return known, True
        jpeg, etag = await self._pictures.run(lambda: self._make(point))
        is_current = point.etag is not None and etag == point.etag
        if is_current:
            self._cache.put(key, jpeg)
        return jpeg, is_current

    def _make(self, point: Point) -> tuple[bytes, str]:
        """The thumbnail and the ETag of the picture that it shows: kept from before, else made now and kept."""
        assert point.location is not None
        tenant_id, image_id = point.tenant_id, point.image_id
        self._deps.grants.check(tenant_id, point.location)
        kept = None if point.etag is None else self._kept.get(tenant_id, image_id, point.etag)
        if kept is not None and point.etag is not None:
            return kept, point.etag
        found = self._deps.objects.get(point.location, max_bytes=self._deps.limits.max_image_bytes)
        jpeg = self._deps.embedder.thumbnail(found.data)
        if found.info.etag == point.etag:
            self._kept.put(tenant_id, image_id, found.info.etag, jpeg)
            self._forget_if_gone(point)
        return jpeg, found.info.etag

    def _forget_if_gone(self, point: Point) -> None:
        """An image that was deleted while its thumbnail was made must leave none behind."""
        now = self._deps.searcher.get(point.tenant_id, point.image_id)
        if now is None or now.state is not State.INDEXED:
            self._kept.remove(point.tenant_id, point.image_id)


def _tag_of(point: Point) -> str | None:
    """The HTTP entity tag; None where the store gave the object no ETag."""
    return None if point.etag is None else f'"{hashlib.sha256(point.etag.encode()).hexdigest()[:32]}"'


def _matches(if_none_match: str, tag: str) -> bool:
    given = [part.strip().removeprefix("W/") for part in if_none_match.split(",")]
    return tag in given or given == ["*"]


def _headers(tag: str | None) -> dict[str, str]:
    """Kept by the browser only, and asked for again each time: a deleted picture is gone at once."""
    return {"Cache-Control": "no-store"} if tag is None else {"ETag": tag, "Cache-Control": "private, no-cache"}


THUMBNAIL = {
    "summary": "A JPEG of the image, at most 256 pixels wide and high",
    "parameters": parameters("tenant", "id"),
    "responses": {
        "200": {"description": "the thumbnail", "content": {"image/jpeg": {}}},
        "304": {"description": "the caller's copy is still right"},
        **refusals(400, 403, 404, 409, 422, 429, 503, 504),
    },
}
