"""What an event is, and the only way from a Kafka record to one and back (design: CloudEvents 1.0, binary mode).

A record's key is ``tenant_id/image_id``, its value JSON data, its attributes ``ce_*`` headers.
Writing goes through the CloudEvents SDK. Reading does not: the SDK builds a dict-backed event per
record and validates nothing of the data; :func:`parse` reads the same headers and checks every field.
A contract test holds both against the SDK in both directions.
"""

from __future__ import annotations

import re
import time as _time
import uuid
from collections.abc import Mapping
from datetime import UTC, datetime
from enum import StrEnum
from typing import Annotated, Any

import msgspec
from cloudevents.http import CloudEvent
from cloudevents.kafka import to_binary

from streams.errors import EventError, Reason

CREATED = "lookalike.image.created.v1"
DELETED = "lookalike.image.deleted.v1"

TENANT_ID_PATTERN = r"^[a-z0-9][a-z0-9_-]{0,62}\Z"
IMAGE_ID_PATTERN = r"^[A-Za-z0-9][A-Za-z0-9._~-]{0,127}\Z"
ATTRIBUTE_NAME_PATTERN = r"^[A-Za-z_][A-Za-z0-9_]{0,62}\Z"

MIN_VERSION = 946_684_800_000_000
"""The year 2000 in microseconds: a version sent in milliseconds or seconds lies below it."""
MAX_VERSION = 2**53 - 1
"""Qdrant's range filters are float64: integers above 2**53 are no longer told apart."""
MAX_INTEGER = 2**53 - 1
"""What an index and any reader of JSON keeps exactly: larger sizes and numbers are refused, not rounded."""
MAX_AHEAD_US = 5 * 60 * 1_000_000
"""How far a producer's clock may run ahead; nanoseconds sent by mistake lie far above it."""
MAX_TAGS = 64
MAX_ATTRIBUTES = 32
MAX_TEXT = 256

FIRST_PUBLISHED_HEADER = "lookalike.first_published_us"
COLLECTION_HEADER = "lookalike.collection"
TRACEPARENT_HEADER = "traceparent"

Headers = list[tuple[str, bytes]]
Attribute = str | int | float | bool


TENANT_ID = re.compile(TENANT_ID_PATTERN, re.ASCII)
"""For those who read a tenant where no event was parsed: a key, a label."""


class EventType(StrEnum):
    """The two things that can be said about an image."""

    CREATED = CREATED
    DELETED = DELETED


class Location(msgspec.Struct, frozen=True, gc=False):
    """Where the object lies. `etag` is the store's opaque revision, without quotes."""

    bucket: str
    key: str
    etag: str | None = None
    size_bytes: int | None = None
    content_type: str | None = None


class ImageEvent(msgspec.Struct, frozen=True, gc=False):
    """One thing said about one image of one tenant.

    `version` is microseconds since 1970 and orders everything said about the image; `location` is
    None only for a delete; `first_published_us` is when it first entered Kafka (retries keep it).
    """

    event_id: str
    type: EventType
    source: str
    time: datetime
    tenant_id: str
    image_id: str
    version: int
    location: Location | None = None
    tags: tuple[str, ...] = ()
    attributes: Mapping[str, Attribute] = msgspec.field(default_factory=dict)
    traceparent: str | None = None
    first_published_us: int | None = None

    @property
    def is_delete(self) -> bool:
        return self.type is EventType.DELETED


def now_us() -> int:
    """Microseconds since 1970: the default version of what happens now."""
    return _time.time_ns() // 1000


def created(
    tenant_id: str,
    image_id: str,
    location: Location,
    *,
    version: int | None = None,
    source: str = "lookalike",
    tags: tuple[str, ...] = (),
    attributes: Mapping[str, Attribute] | None = None,
    traceparent: str | None = None,
) -> ImageEvent:
    """A new `created` event; its version defaults to now."""
    at_us = now_us()
    return ImageEvent(
        event_id=str(uuid.uuid4()),
        type=EventType.CREATED,
        source=source,
        time=datetime.fromtimestamp(at_us / 1e6, tz=UTC),
        tenant_id=tenant_id,
        image_id=image_id,
        version=at_us if version is None else version,
        location=location,
        tags=tags,
        attributes=dict(attributes or {}),
        traceparent=traceparent,
        first_published_us=at_us,
    )


def deleted(tenant_id: str, image_id: str, *, version: int | None = None, source: str = "lookalike") -> ImageEvent:
    """A new `deleted` event; its version defaults to now."""
    at_us = now_us()
    return ImageEvent(
        event_id=str(uuid.uuid4()),
        type=EventType.DELETED,
        source=source,
        time=datetime.fromtimestamp(at_us / 1e6, tz=UTC),
        tenant_id=tenant_id,
        image_id=image_id,
        version=at_us if version is None else version,
        first_published_us=at_us,
    )


def key_of(event: ImageEvent) -> bytes:
    """The record key: all events of one image meet in one partition, in order."""
    return f"{event.tenant_id}/{event.image_id}".encode()


def encode(event: ImageEvent) -> tuple[bytes, bytes, Headers]:
    """(key, value, headers) of the record that carries `event`."""
    data: dict[str, Any] = {"tenant_id": event.tenant_id, "image_id": event.image_id, "version": event.version}
    if event.location is not None:
        location = msgspec.to_builtins(event.location)
        data["location"] = {name: value for name, value in location.items() if value is not None}
    if event.tags:
        data["tags"] = list(event.tags)
    if event.attributes:
        data["attributes"] = dict(event.attributes)
    attributes = {
        "id": event.event_id,
        "source": event.source,
        "type": event.type.value,
        "time": event.time.isoformat(),
        "specversion": "1.0",
        "datacontenttype": "application/json",
    }
    message = to_binary(CloudEvent(attributes, data), data_marshaller=msgspec.json.encode)
    headers: Headers = list(message.headers.items())
    if event.traceparent is not None:
        headers.append((TRACEPARENT_HEADER, event.traceparent.encode()))
    if event.first_published_us is not None:
        headers.append((FIRST_PUBLISHED_HEADER, str(event.first_published_us).encode()))
    value = message.value if isinstance(message.value, bytes) else message.value.encode()
    return key_of(event), value, headers


# ---- reading ---------------------------------------------------------------------------------

_Text = Annotated[str, msgspec.Meta(max_length=MAX_TEXT)]


class _LocationData(msgspec.Struct, frozen=True):
    bucket: Annotated[str, msgspec.Meta(min_length=1, max_length=255)]
    key: Annotated[str, msgspec.Meta(min_length=1, max_length=1024)]
    etag: Annotated[str, msgspec.Meta(min_length=1, max_length=MAX_TEXT)] | None = None
    size_bytes: Annotated[int, msgspec.Meta(ge=0, le=MAX_INTEGER)] | None = None
    content_type: _Text | None = None


class _EventData(msgspec.Struct, frozen=True):
    """The data as it must be; fields this version does not know are left in the record's bytes."""

    tenant_id: Annotated[str, msgspec.Meta(pattern=TENANT_ID_PATTERN)]
    image_id: Annotated[str, msgspec.Meta(pattern=IMAGE_ID_PATTERN)]
    version: int | None = None
    location: _LocationData | None = None
    tags: Annotated[list[_Text], msgspec.Meta(max_length=MAX_TAGS)] = msgspec.field(default_factory=list)
    attributes: Annotated[dict[str, str | int | float | bool], msgspec.Meta(max_length=MAX_ATTRIBUTES)] = msgspec.field(
        default_factory=dict
    )


_decode = msgspec.json.Decoder(_EventData).decode
_TYPES = {kind.value.encode(): kind for kind in EventType}
_attribute_name = re.compile(ATTRIBUTE_NAME_PATTERN)


def parse(value: bytes | None, headers: Headers, *, at_us: int, published_us: int | None = None) -> ImageEvent:
    """The event a record carries; `at_us` is now, for the bound on versions from the future.

    `published_us` is the log's time of the record: the first publish time of one that does not tell it.

    Raises:
        EventError: `event_unsupported` for a type this version does not know, else `event_invalid`
            with the field that is wrong.
    """
    named = dict(headers)
    event_type = _event_type(named)
    event_id, source = _text(named, "ce_id"), _text(named, "ce_source")
    at = _event_time(named)
    if value is None:
        raise EventError(Reason.EVENT_INVALID, "the record has no value", field="data")
    try:
        data = _decode(value)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as exc:
        raise EventError(Reason.EVENT_INVALID, f"data: {exc}", field="data") from exc
    version = _version(data.version, at, at_us)
    _check_attributes(data.attributes)
    location = None
    if data.location is not None:
        place = data.location
        location = Location(place.bucket, place.key, place.etag, place.size_bytes, place.content_type)
    elif event_type is EventType.CREATED:
        raise EventError(Reason.EVENT_INVALID, "a created event needs a location", field="location")
    return ImageEvent(
        event_id=event_id,
        type=event_type,
        source=source,
        time=at,
        tenant_id=data.tenant_id,
        image_id=data.image_id,
        version=version,
        location=location,
        tags=tuple(data.tags),
        attributes=data.attributes,
        traceparent=_optional(named, TRACEPARENT_HEADER),
        first_published_us=_first_published(named, published_us),
    )


def _event_type(named: Mapping[str, bytes]) -> EventType:
    known = _TYPES.get(named.get("ce_type", b"")) if named.get("ce_specversion") == b"1.0" else None
    if known is not None:
        return known
    if _text(named, "ce_specversion") != "1.0":
        raise EventError(Reason.EVENT_UNSUPPORTED, "only CloudEvents 1.0 is read", field="ce_specversion")
    name = _text(named, "ce_type")
    try:
        return EventType(name)
    except ValueError as exc:
        raise EventError(Reason.EVENT_UNSUPPORTED, f"unknown event type {name[:80]!r}", field="ce_type") from exc


def _text(named: Mapping[str, bytes], name: str) -> str:
    value = _optional(named, name)
    if not value:
        raise EventError(Reason.EVENT_INVALID, f"header {name} is missing", field=name)
    return value


def _optional(named: Mapping[str, bytes], name: str) -> str | None:
    raw = named.get(name)
    if raw is None:
        return None
    try:
        return raw.decode()
    except UnicodeDecodeError as exc:
        raise EventError(Reason.EVENT_INVALID, f"header {name} is not UTF-8", field=name) from exc


def _event_time(named: Mapping[str, bytes]) -> datetime:
    text = _text(named, "ce_time")
    try:
        at = datetime.fromisoformat(text)
    except ValueError as exc:
        raise EventError(Reason.EVENT_INVALID, f"ce_time is not RFC 3339: {text[:80]!r}", field="ce_time") from exc
    return at if at.tzinfo is not None else at.replace(tzinfo=UTC)


def _version(given: int | None, at: datetime, at_us: int) -> int:
    version = round(at.timestamp() * 1e6) if given is None else given
    if not MIN_VERSION <= version <= MAX_VERSION:
        raise EventError(
            Reason.EVENT_INVALID,
            f"version {version} is not microseconds since 1970 ({MIN_VERSION} to {MAX_VERSION})",
            field="version",
        )
    if version > at_us + MAX_AHEAD_US:
        ahead_s = (version - at_us) / 1e6
        raise EventError(Reason.EVENT_INVALID, f"version {version} lies {ahead_s:.0f} s ahead", field="version")
    return version


def _first_published(named: Mapping[str, bytes], otherwise_us: int | None) -> int | None:
    text = _optional(named, FIRST_PUBLISHED_HEADER)
    if text is None:
        return otherwise_us
    if not (text.isascii() and text.isdigit() and len(text) <= 17):
        raise EventError(Reason.EVENT_INVALID, "not a time in microseconds", field=FIRST_PUBLISHED_HEADER)
    return int(text)


def _check_attributes(attributes: Mapping[str, Attribute]) -> None:
    for name, value in attributes.items():
        if _attribute_name.match(name) is None:
            raise EventError(Reason.EVENT_INVALID, f"illegal attribute name {name[:80]!r}", field="attributes")
        if isinstance(value, str) and len(value) > MAX_TEXT:
            raise EventError(Reason.EVENT_INVALID, f"attribute {name} is too long", field="attributes")
        if isinstance(value, int) and abs(value) > MAX_INTEGER:
            raise EventError(Reason.EVENT_INVALID, f"attribute {name} is too large a number", field="attributes")
