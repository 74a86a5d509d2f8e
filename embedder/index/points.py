"""What an event does to the index, as pure functions: the table of docs/semantics.md, and nothing else.

A point is what the index holds of one image: the state and version that were last *applied*, and at
most one note (`attempt`) about a newer try that has not been applied. Two questions are answered here:

* :func:`plan`: an event meets what is stored. Which step follows?
* :func:`apply`: a write meets what is stored *by then*. What is stored afterwards?

The answer of :func:`plan` is a hint taken outside of any lock; :func:`apply` runs where writes are
serialised (inside the index process), so a race can waste work but never set an image back. Every
write may arrive twice: the second changes nothing and reports the same.
"""

from __future__ import annotations

import uuid
from collections.abc import Mapping
from enum import StrEnum
from typing import assert_never

import msgspec
import numpy as np
import numpy.typing as npt
from msgspec.structs import replace

from streams.errors import Reason
from streams.event import Attribute, ImageEvent, Location

Vector = npt.NDArray[np.float32]
"""One embedding: shape (dim,), float32, L2-normalised."""

_NAMESPACE = uuid.UUID("5b0ff7a5-3f0a-5a0e-9d35-2f1d7b1c0a11")
"""Fixed for ever: a point's id is derived from it, so an image keeps its point in every collection."""


class State(StrEnum):
    """What was last applied to a point."""

    INDEXED = "indexed"
    DELETED = "deleted"
    EMPTY = "empty"


class AttemptState(StrEnum):
    """How far the newest try that has not been applied has come."""

    PENDING = "pending"
    RETRYING = "retrying"
    FAILED = "failed"


class Attempt(msgspec.Struct, frozen=True, gc=False):
    """A note about the newest try; `at_us` is when it was written, `tries` counts from 1."""

    version: int
    state: AttemptState
    reason: Reason | None = None
    tries: int = 0
    at_us: int = 0


class Point(msgspec.Struct, frozen=True, gc=False):
    """The bookkeeping of one image in one collection, without its vector.

    `version` 0 means nothing was ever applied (`state` is then EMPTY). `etag`, `sha256`, `location`,
    sizes and `engine` describe the picture whose vector is stored, so they are None unless INDEXED.
    """

    tenant_id: str
    image_id: str
    version: int
    state: State
    etag: str | None = None
    sha256: str | None = None
    location: Location | None = None
    tags: tuple[str, ...] = ()
    attributes: Mapping[str, Attribute] = msgspec.field(default_factory=dict)
    width_px: int | None = None
    height_px: int | None = None
    created_at_us: int | None = None
    indexed_at_us: int | None = None
    engine: str | None = None
    attempt: Attempt | None = None


def point_id(tenant_id: str, image_id: str) -> uuid.UUID:
    """The id of an image's point: uuid5 of ``tenant_id/image_id``, so two tenants never share one."""
    return uuid.uuid5(_NAMESPACE, f"{tenant_id}/{image_id}")


# ---- an event meets what is stored -------------------------------------------------------------


class Step(StrEnum):
    """What the worker does next with an event."""

    EMBED = "embed"
    """Fetch, decode, embed, then write :class:`PutVector`."""
    REFRESH = "refresh"
    """The same picture under a newer version: write :class:`Refresh`, fetch nothing."""
    RECHECK = "recheck"
    """The same version names another ETag: ask the store; embed only if the object is another one."""
    BURY = "bury"
    """Write :class:`Bury`."""
    UNCHANGED = "unchanged"
    """Nothing to do: it is there already."""
    SUPERSEDED = "superseded"
    """Nothing to do: something newer, or a delete of the same version, was applied."""


def plan(event: ImageEvent, stored: Point | None) -> Step:
    """The step that follows when `event` meets `stored`."""
    known = 0 if stored is None else stored.version
    if event.is_delete:
        return Step.BURY if known <= event.version else Step.SUPERSEDED
    if known > event.version:
        return Step.SUPERSEDED
    if stored is None or known < event.version:
        return Step.REFRESH if stored is not None and _same_object(event, stored) else Step.EMBED
    if stored.state is not State.INDEXED:
        return Step.SUPERSEDED
    etag = event.location.etag if event.location is not None else None
    return Step.UNCHANGED if etag is None or etag == stored.etag else Step.RECHECK


def _same_object(event: ImageEvent, stored: Point) -> bool:
    """Whether a newer event names the very object whose vector is stored."""
    here, there = event.location, stored.location
    if stored.state is not State.INDEXED or here is None or there is None or here.etag is None:
        return False
    return (here.bucket, here.key, here.etag) == (there.bucket, there.key, stored.etag)


# ---- a write meets what is stored ----------------------------------------------------------------


class PutVector(msgspec.Struct, frozen=True, eq=False, gc=False):
    """Make the image searchable by `vector`.

    `etag` is the ETag of the bytes that were embedded. `replaces_etag` is set after a RECHECK only:
    the picture stored under the *same* version is replaced where its ETag is still this one.
    """

    image_id: str
    version: int
    vector: Vector
    location: Location
    etag: str
    sha256: str
    indexed_at_us: int
    created_at_us: int | None = None
    engine: str | None = None
    tags: tuple[str, ...] = ()
    attributes: Mapping[str, Attribute] = msgspec.field(default_factory=dict)
    width_px: int | None = None
    height_px: int | None = None
    replaces_etag: str | None = None


class Refresh(msgspec.Struct, frozen=True, gc=False):
    """The stored picture gets a newer version, tags and attributes; its vector stays.

    Holds only while the stored picture still has this `location` and `etag`.
    """

    image_id: str
    version: int
    location: Location
    etag: str
    tags: tuple[str, ...] = ()
    attributes: Mapping[str, Attribute] = msgspec.field(default_factory=dict)


class Note(msgspec.Struct, frozen=True, gc=False):
    """A try that was not applied: state, version and vector of the point stay as they are."""

    image_id: str
    attempt: Attempt


class Bury(msgspec.Struct, frozen=True, gc=False):
    """Leave a tombstone: the vector goes, the version stays so that a late create cannot resurrect."""

    image_id: str
    version: int
    at_us: int


class Sweep(msgspec.Struct, frozen=True, gc=False):
    """Forget a tombstone that was made before `before_us`: no create older than it can come any more.

    One that carries a note becomes an `empty` point. Anything else is left as it is.
    """

    image_id: str
    before_us: int


Write = PutVector | Refresh | Note | Bury | Sweep


class Written(StrEnum):
    """What became of a write."""

    APPLIED = "applied"
    """It holds now: written just now, or an identical write had been applied before."""
    SUPERSEDED = "superseded"
    """What is stored by now forbids it. Look again: :func:`plan` tells what follows."""


class Change(msgspec.Struct, frozen=True, gc=False):
    """The result of :func:`apply`: `point` is what is stored afterwards, None for nothing.

    `changed` is False where nothing has to be written. `vector` says what to do with the stored
    vector: True put the write's vector, False remove it, None leave it alone.
    """

    written: Written
    point: Point | None
    changed: bool = False
    vector: bool | None = None


def apply(tenant_id: str, stored: Point | None, write: Write) -> Change:
    """What is stored after `write` meets `stored`. Pure; the caller serialises writes of one image."""
    match write:
        case PutVector():
            return _put(tenant_id, stored, write)
        case Refresh():
            return _refresh(stored, write)
        case Note():
            return _note(tenant_id, stored, write)
        case Bury():
            return _bury(tenant_id, stored, write)
        case Sweep():
            return _sweep(stored, write)
        case _:
            assert_never(write)


def _put(tenant_id: str, stored: Point | None, write: PutVector) -> Change:
    if stored is not None and stored.version >= write.version:
        same_version = stored.version == write.version and stored.state is State.INDEXED
        if same_version and stored.etag == write.etag and stored.sha256 == write.sha256:
            return Change(Written.APPLIED, stored)
        if not same_version or write.replaces_etag is None or stored.etag != write.replaces_etag:
            return Change(Written.SUPERSEDED, stored)
    point = Point(
        tenant_id=tenant_id,
        image_id=write.image_id,
        version=write.version,
        state=State.INDEXED,
        etag=write.etag,
        sha256=write.sha256,
        location=write.location,
        tags=write.tags,
        attributes=write.attributes,
        width_px=write.width_px,
        height_px=write.height_px,
        created_at_us=write.created_at_us,
        indexed_at_us=write.indexed_at_us,
        engine=write.engine,
        attempt=_newer_attempt(stored, write.version),
    )
    return Change(Written.APPLIED, point, changed=True, vector=True)


def _refresh(stored: Point | None, write: Refresh) -> Change:
    if stored is None or stored.state is not State.INDEXED or stored.version > write.version:
        return Change(Written.SUPERSEDED, stored)
    there = stored.location
    if there is None or (there.bucket, there.key) != (write.location.bucket, write.location.key):
        return Change(Written.SUPERSEDED, stored)
    if stored.etag != write.etag:
        return Change(Written.SUPERSEDED, stored)
    if stored.version == write.version:
        return Change(Written.APPLIED, stored)
    point = replace(
        stored,
        version=write.version,
        tags=write.tags,
        attributes=write.attributes,
        attempt=_newer_attempt(stored, write.version),
    )
    return Change(Written.APPLIED, point, changed=True)


def _note(tenant_id: str, stored: Point | None, write: Note) -> Change:
    attempt = write.attempt
    if stored is None:
        empty = Point(tenant_id, write.image_id, version=0, state=State.EMPTY, attempt=attempt)
        return Change(Written.APPLIED, empty, changed=True)
    if stored.version >= attempt.version:
        return Change(Written.SUPERSEDED, stored)
    if stored.attempt is not None and not _may_replace(stored.attempt, attempt):
        return Change(Written.APPLIED, stored)
    return Change(Written.APPLIED, replace(stored, attempt=attempt), changed=True)


def _may_replace(known: Attempt, new: Attempt) -> bool:
    """A note about an older try is dropped; `pending`, written by the API, may lose to the worker."""
    if new.version != known.version:
        return new.version > known.version
    return new != known and (new.state is not AttemptState.PENDING)


def _bury(tenant_id: str, stored: Point | None, write: Bury) -> Change:
    if stored is not None and stored.version > write.version:
        return Change(Written.SUPERSEDED, stored)
    if stored is not None and stored.state is State.DELETED and stored.version == write.version:
        return Change(Written.APPLIED, stored)
    tombstone = Point(
        tenant_id=tenant_id,
        image_id=write.image_id,
        version=write.version,
        state=State.DELETED,
        indexed_at_us=write.at_us,
        attempt=_newer_attempt(stored, write.version),
    )
    return Change(Written.APPLIED, tombstone, changed=True, vector=False)


def is_forgettable(point: Point, *, before_us: int) -> bool:
    """Whether this is a tombstone made before `before_us`."""
    return point.state is State.DELETED and point.indexed_at_us is not None and point.indexed_at_us < before_us


def _sweep(stored: Point | None, write: Sweep) -> Change:
    if stored is None or not is_forgettable(stored, before_us=write.before_us):
        return Change(Written.APPLIED, stored)
    if stored.attempt is None:
        return Change(Written.APPLIED, None, changed=True, vector=False)
    empty = Point(stored.tenant_id, stored.image_id, version=0, state=State.EMPTY, attempt=stored.attempt)
    return Change(Written.APPLIED, empty, changed=True, vector=False)


def _newer_attempt(stored: Point | None, version: int) -> Attempt | None:
    """Notes not newer than what is applied have served."""
    attempt = None if stored is None else stored.attempt
    return attempt if attempt is not None and attempt.version > version else None
