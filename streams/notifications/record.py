"""The form that all dialects share (S3's event version 2), with only the fields that some dialect can be trusted in."""

from __future__ import annotations

from urllib.parse import unquote_plus

import msgspec

from streams.errors import EventError, Reason


class BucketPart(msgspec.Struct, frozen=True):
    """`name` is overwritten by versitygw under load; its `arn` is not."""

    name: str = ""
    arn: str = ""


class ObjectPart(msgspec.Struct, frozen=True):
    """`key` is form-escaped by MinIO and AWS, raw in versitygw."""

    key: str = ""


class S3Part(msgspec.Struct, frozen=True):
    """Where it happened."""

    bucket: BucketPart = BucketPart()
    object: ObjectPart = ObjectPart()


class Record(msgspec.Struct, frozen=True):
    """One event."""

    source: str = msgspec.field(name="eventSource")
    name: str = msgspec.field(name="eventName")
    s3: S3Part = S3Part()


class Message(msgspec.Struct, frozen=True):
    """One Kafka value: events, or the test with which a store tries its target."""

    records: tuple[Record, ...] | None = msgspec.field(name="Records", default=None)
    event: str | None = msgspec.field(name="Event", default=None)


def form_decoded(key: str) -> str:
    """A key as `application/x-www-form-urlencoded` writes it: ``+`` is a space.

    Raises:
        EventError: the escapes are no UTF-8, so that the key could only be guessed.
    """
    try:
        return unquote_plus(key, errors="strict")
    except UnicodeDecodeError as exc:
        raise EventError(Reason.EVENT_INVALID, f"key {key[:80]!r} is not UTF-8", field="object.key") from exc
