"""AWS: keys are form-escaped, names have no `s3:`. Its notifications reach Kafka through a bridge of the operator's."""

from __future__ import annotations

from streams.notifications.hint import Kind
from streams.notifications.record import Record, form_decoded

SOURCE = "aws:s3"

KINDS = {
    "ObjectCreated:Put": Kind.CREATED,
    "ObjectCreated:Post": Kind.CREATED,
    "ObjectCreated:Copy": Kind.CREATED,
    "ObjectCreated:CompleteMultipartUpload": Kind.CREATED,
    "ObjectRemoved:Delete": Kind.REMOVED,
    "ObjectRemoved:DeleteMarkerCreated": Kind.REMOVED,
    "LifecycleExpiration:Delete": Kind.REMOVED,
    "LifecycleExpiration:DeleteMarkerCreated": Kind.REMOVED,
}


def place(record: Record) -> tuple[str, str]:
    """Bucket and key."""
    return record.s3.bucket.name, form_decoded(record.s3.object.key)
