"""From a Kafka value to hints: which dialect it is, which of its events are ours, and where they happened."""

from __future__ import annotations

import msgspec

from streams.errors import EventError, Reason
from streams.notifications import aws, minio, versitygw
from streams.notifications.hint import Dialect, Hint, Kind, Notification
from streams.notifications.record import Message, Record

TEST_EVENT = "s3:TestEvent"

_decode = msgspec.json.Decoder(Message).decode
_KINDS = {Dialect.MINIO: minio.KINDS, Dialect.AWS: aws.KINDS, Dialect.VERSITYGW: versitygw.KINDS}
_PLACES = {Dialect.MINIO: minio.place, Dialect.AWS: aws.place, Dialect.VERSITYGW: versitygw.place}


def read(value: bytes | None) -> Notification:
    """What one record says. One event that cannot be read does not hide its neighbours.

    Raises:
        EventError: `event_invalid` where the value is no notification, `event_unsupported` for one of a
            store that this version does not know.
    """
    if value is None:
        raise EventError(Reason.EVENT_INVALID, "the record has no value", field="value")
    try:
        message = _decode(value)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as exc:
        raise EventError(Reason.EVENT_INVALID, f"no bucket notification: {exc}", field="value") from exc
    if message.records is None:
        if message.event == TEST_EVENT:
            return Notification(n_ignored=1)
        raise EventError(Reason.EVENT_INVALID, "no bucket notification: there are no Records", field="Records")
    hints: list[Hint] = []
    problem: EventError | None = None
    for record in message.records:
        try:
            hint = _hint(record)
        except EventError as exc:
            problem = problem or exc
        else:
            hints += [] if hint is None else [hint]
    n_ignored = 0 if problem is not None else len(message.records) - len(hints)
    return Notification(tuple(hints), n_ignored, problem)


def dialect_of(record: Record) -> Dialect:
    """Who wrote this.

    Raises:
        EventError: nobody we know: its escaping could only be guessed.
    """
    if record.source in minio.SOURCES:
        return Dialect.MINIO
    if record.source == aws.SOURCE:
        return Dialect.VERSITYGW if record.name.startswith(versitygw.PREFIX) else Dialect.AWS
    raise EventError(
        Reason.EVENT_UNSUPPORTED, f"notifications of {record.source[:80]!r} are not known", field="eventSource"
    )


def _hint(record: Record) -> Hint | None:
    dialect = dialect_of(record)
    kind: Kind | None = _KINDS[dialect].get(record.name)
    if kind is None:
        return None
    bucket, key = _PLACES[dialect](record)
    if not bucket or not key:
        raise EventError(Reason.EVENT_INVALID, "the event names no object", field="object.key")
    return Hint(dialect, bucket, key, kind)
