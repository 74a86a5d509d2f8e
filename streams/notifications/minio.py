"""MinIO and RustFS: keys are form-escaped, names carry `s3:`, removals have neither ETag nor size."""

from __future__ import annotations

from streams.notifications.hint import Kind
from streams.notifications.record import Record, form_decoded

SOURCES = frozenset({"minio:s3", "rustfs:s3"})

KINDS = {
    "s3:ObjectCreated:Put": Kind.CREATED,
    "s3:ObjectCreated:Post": Kind.CREATED,
    "s3:ObjectCreated:Copy": Kind.CREATED,
    "s3:ObjectCreated:CompleteMultipartUpload": Kind.CREATED,
    "s3:ObjectRemoved:Delete": Kind.REMOVED,
    "s3:ObjectRemoved:DeleteMarkerCreated": Kind.REMOVED,
    "s3:ObjectRemoved:DeleteAllVersions": Kind.REMOVED,
    "s3:ObjectRemoved:NoOP": Kind.REMOVED,  # nothing was there to remove: mends a removal that got lost
}
"""Everything else is no work, tagging too: it is called `ObjectCreated:PutTagging` and touches no byte."""


def place(record: Record) -> tuple[str, str]:
    """Bucket and key."""
    return record.s3.bucket.name, form_decoded(record.s3.object.key)
