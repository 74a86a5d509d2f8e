"""A picture that is posted, step by durable step: object stored → event acknowledged → `pending` noted.

Whoever dies between two steps has promised nothing: the caller has no answer, and the same request again,
with the same image id and version, ends as if it had been one. No step undoes an earlier picture: an
upload has a key of its own per version, and nothing of the index changes but the note.
"""

from __future__ import annotations

import hashlib
import uuid
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Annotated

import msgspec
import structlog

from embedder.index.points import Attempt, AttemptState, Note, Point, State
from embedder.index.protocol import Writer
from embedder.objects.places import Places
from embedder.objects.protocol import ObjectInfo, ObjectMissingError, ObjectStore
from query_api import versions
from query_api.announce import Announcer
from query_api.deps import Grants, QueryEmbedder
from query_api.thumbnail_store import ThumbnailStore
from streams.errors import DependencyError, EventError, LookalikeError, QueryError, Reason, RetryableError
from streams.event import (
    IMAGE_ID_PATTERN,
    MAX_ATTRIBUTES,
    MAX_TAGS,
    MAX_TEXT,
    Attribute,
    ImageEvent,
    Location,
    created,
    encode,
    parse,
)

SOURCE = "lookalike/api"
NOTE_S = 3.0
"""How long the note may take: it is a service to people, the event is what counts."""
_NAMESPACE = uuid.UUID("0f6e1f0c-8f6b-5a52-9d8b-6a7a2a1b6c11")
"""Of the ids of pictures that are posted without one: the same picture gets the same id."""

_log = structlog.get_logger("query_api")

_Text = Annotated[str, msgspec.Meta(max_length=MAX_TEXT)]
_ImageId = Annotated[str, msgspec.Meta(pattern=IMAGE_ID_PATTERN.replace(r"\Z", "$"), max_length=128)]


class ImageBody(msgspec.Struct, forbid_unknown_fields=True, kw_only=True):
    """What is said about a picture. Without an id its bytes, or its place, decide which image it is."""

    image_id: _ImageId | None = None
    version: int | None = None
    tags: Annotated[list[_Text], msgspec.Meta(max_length=MAX_TAGS)] = msgspec.field(default_factory=list)
    attributes: Annotated[dict[str, str | int | float | bool], msgspec.Meta(max_length=MAX_ATTRIBUTES)] = msgspec.field(
        default_factory=dict
    )


class Place(msgspec.Struct, forbid_unknown_fields=True, kw_only=True):
    """An object of the tenant's; with an `etag` only if it is still that one."""

    bucket: Annotated[str, msgspec.Meta(min_length=1, max_length=255)]
    key: Annotated[str, msgspec.Meta(min_length=1, max_length=1024)]
    etag: Annotated[str, msgspec.Meta(min_length=1, max_length=MAX_TEXT)] | None = None


class ReferenceBody(ImageBody, kw_only=True):
    """A picture that lies in a bucket already."""

    location: Place


@dataclass(frozen=True, slots=True)
class Posted:
    """What was done. `pending` is False where the index does not answer: the status begins with the worker's."""

    image_id: str
    version: int
    location: Location
    pending: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class Draft:
    """A picture that is about to be announced."""

    tenant_id: str
    image_id: str
    version: int
    stored: Point | None
    tags: tuple[str, ...] = ()
    attributes: Mapping[str, Attribute] = field(default_factory=dict)

    def event(self, location: Location) -> ImageEvent:
        """The event, with the object as the store knows it."""
        return created(
            self.tenant_id,
            self.image_id,
            location,
            version=self.version,
            source=SOURCE,
            tags=self.tags,
            attributes=self.attributes,
        )


class Posting:
    """Blocks; thread-safe."""

    def __init__(
        self,
        *,
        objects: ObjectStore,
        grants: Grants,
        places: Places,
        announcer: Announcer,
        writer: Writer,
        embedder: QueryEmbedder,
        thumbnails: ThumbnailStore,
        max_image_bytes: int,
        now_us: Callable[[], int],
    ) -> None:
        self._objects = objects
        self._grants = grants
        self._places = places
        self._announcer = announcer
        self._writer = writer
        self._embedder = embedder
        self._thumbnails = thumbnails
        self._max_image_bytes = max_image_bytes
        self._now_us = now_us

    def refer(self, tenant_id: str, body: ReferenceBody, look: Callable[[str], Point | None]) -> Posted:
        """Announce an object that is there.

        Raises:
            EventError, RetryableError: not the tenant's (`location_forbidden`), or not there.
            QueryError: 400, 409.
            DependencyError: store or broker do not answer; nothing was announced, as far as is known.
        """
        place = Location(body.location.bucket, body.location.key)
        self._grants.check(tenant_id, place)
        image_id = body.image_id or _id_of(tenant_id, f"{place.bucket}/{place.key}")
        draft = self._draft(tenant_id, image_id, body, look(image_id), place)
        info = self._objects.head(place)
        if body.location.etag not in (None, info.etag):
            raise QueryError(409, "etag_conflict", "another object lies there by now", field="location.etag")
        if versions.is_stored(draft.stored, draft.version) and not _is_at(draft.stored, place, info.etag):
            raise versions.conflict(draft.version)
        return self._finish(draft, _located(place, info))

    def upload(
        self,
        tenant_id: str,
        body: ImageBody,
        data: bytes,
        content_type: str | None,
        look: Callable[[str], Point | None],
    ) -> Posted:
        """Store a picture and announce it. Raises as `refer`; EventError also for what is no picture."""
        sha256 = hashlib.sha256(data).hexdigest()
        image_id = body.image_id or _id_of(tenant_id, sha256)
        stored = look(image_id)
        draft = self._draft(tenant_id, image_id, body, stored, Location("-", "-"))
        place = self._places.upload(tenant_id, image_id, draft.version)
        if versions.is_stored(stored, draft.version) and (stored is None or stored.sha256 != sha256):
            raise versions.conflict(draft.version)
        jpeg = self._look_at(data)
        again = self._same_upload(draft, sha256)
        location = again or self._store(place, data, content_type, draft, given=body.version is not None)
        if jpeg is not None and location.etag is not None:
            self._thumbnails.put(tenant_id, image_id, location.etag, jpeg, alone=False)
        return self._finish(draft, location)

    def _draft(self, tenant_id: str, image_id: str, body: ImageBody, stored: Point | None, place: Location) -> Draft:
        """Everything that can be wrong about the event is found before an object is touched."""
        now = self._now_us()
        draft = Draft(
            tenant_id=tenant_id,
            image_id=image_id,
            version=versions.for_create(body.version, stored, now_us=now),
            stored=stored,
            tags=tuple(body.tags),
            attributes=body.attributes,
        )
        _, value, headers = encode(draft.event(place))
        try:
            parse(value, headers, at_us=now)
        except EventError as exc:
            raise QueryError(400, "invalid_body", exc.message, field=exc.field) from exc
        return draft

    def _look_at(self, data: bytes) -> bytes | None:
        """The thumbnail; None where nobody can look now, which the worker will do anyway.

        Raises:
            EventError: this is no picture that could ever be indexed.
            QueueFullError: ask again.
        """
        if not data:
            raise EventError(Reason.IMAGE_EMPTY, "the picture has no bytes")
        if len(data) > self._max_image_bytes:
            raise EventError(Reason.IMAGE_TOO_LARGE, f"{len(data)} bytes, {self._max_image_bytes} are allowed")
        try:
            self._embedder.check()
            return self._embedder.thumbnail(data)
        except (DependencyError, RetryableError, TimeoutError) as exc:
            _log.info("an upload is not looked at before its event", why=str(exc))
            return None

    def _same_upload(self, draft: Draft, sha256: str) -> Location | None:
        """The object that was uploaded before, where it is the very same picture: it is not stored twice."""
        stored = draft.stored
        if stored is None or stored.state is not State.INDEXED or stored.sha256 != sha256 or stored.location is None:
            return None
        if not self._places.is_upload(draft.tenant_id, draft.image_id, stored.location):
            return None
        try:
            info = self._objects.head(stored.location)
        except ObjectMissingError:
            return None
        return _located(stored.location, info) if info.etag == stored.etag else None

    def _store(self, place: Location, data: bytes, content_type: str | None, draft: Draft, *, given: bool) -> Location:
        """Put the object, unless the same bytes are there: so a repeated request changes no ETag."""
        there = self._there(place, len(data)) if given else None
        if there is not None:
            if there[1] == data:
                return _located(place, there[0])
            if not versions.may_replace(draft.stored, draft.version):
                raise versions.conflict(draft.version)
        return _located(place, self._objects.put(place.bucket, place.key, data, content_type=content_type))

    def _there(self, place: Location, size: int) -> tuple[ObjectInfo, bytes] | None:
        try:
            found = self._objects.get(place, max_bytes=size)
        except ObjectMissingError:
            return None
        except EventError:  # larger than what was sent
            return self._objects.head(place), b""
        return found.info, found.data

    def _finish(self, draft: Draft, location: Location) -> Posted:
        self._announcer.announce(draft.event(location))
        attempt = Attempt(draft.version, AttemptState.PENDING, at_us=self._now_us())
        pending = self._noted(draft.tenant_id, Note(draft.image_id, attempt))
        self._tidy(draft)
        return Posted(draft.image_id, draft.version, location, pending)

    def _noted(self, tenant_id: str, note: Note) -> bool:
        try:
            self._writer.write(tenant_id, [note]).result(NOTE_S)
        except (DependencyError, TimeoutError) as exc:
            _log.warning("accepted without a pending note", image_id=note.image_id, why=str(exc))
            return False
        return True

    def _tidy(self, draft: Draft) -> None:
        """Uploads older than the picture that is searchable by now have served."""
        stored = draft.stored
        if stored is None or stored.state is not State.INDEXED:
            return
        try:
            self._places.remove_old_uploads(
                self._objects, draft.tenant_id, draft.image_id, before_version=stored.version, but=stored.location
            )
        except LookalikeError as exc:
            _log.warning("old uploads are still there", image_id=draft.image_id, why=str(exc))


def _id_of(tenant_id: str, what: str) -> str:
    return str(uuid.uuid5(_NAMESPACE, f"{tenant_id}/{what}"))


def _located(place: Location, info: ObjectInfo) -> Location:
    return Location(place.bucket, place.key, info.etag, info.size_bytes, info.content_type)


def _is_at(stored: Point | None, place: Location, etag: str) -> bool:
    if stored is None or stored.location is None:
        return False
    return (stored.location.bucket, stored.location.key, stored.etag) == (place.bucket, place.key, etag)
