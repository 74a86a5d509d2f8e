"""versitygw: calls itself `aws:s3`, keeps `s3:` in names, and does not escape keys.

Under load one event in ten carries the bucket or key of another request (measured with 1.8.0): only
`bucket.arn`, ``arn:aws:s3:::/BUCKET/KEY``, was right in all of 28,000. Two events have no key there:
DeleteObjects, whose `object.key` comes from the request's body and is right, and Post, which has none at all.
"""

from __future__ import annotations

from streams.errors import EventError, Reason
from streams.notifications.hint import Kind
from streams.notifications.record import Record

PREFIX = "s3:"
"""Of its event names; AWS has none."""

KINDS = {
    "s3:ObjectCreated:Put": Kind.CREATED,
    "s3:ObjectCreated:Post": Kind.CREATED,
    "s3:ObjectCreated:Copy": Kind.CREATED,
    "s3:ObjectCreated:CompleteMultipartUpload": Kind.CREATED,
    "s3:ObjectRemoved:Delete": Kind.REMOVED,
    "s3:ObjectRemoved:DeleteObjects": Kind.REMOVED,
}
_ARN = "arn:aws:s3:::/"


def place(record: Record) -> tuple[str, str]:
    """Bucket and key.

    Raises:
        EventError: the record does not say which object it is about.
    """
    if not record.s3.bucket.arn.startswith(_ARN):
        raise EventError(Reason.EVENT_INVALID, f"bucket.arn does not begin with {_ARN}", field="bucket.arn")
    bucket, _, key = record.s3.bucket.arn.removeprefix(_ARN).partition("/")
    if not key and record.name == "s3:ObjectRemoved:DeleteObjects":
        key = record.s3.object.key
    if not key:
        what = "versitygw names no key in this event; what was uploaded must be announced by its uploader"
        raise EventError(Reason.EVENT_INVALID, what, field="object.key")
    return bucket, key
