"""Bucket notifications for tests: those that were recorded, and new ones in their form."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import quote_plus

_RECORDED = Path(__file__).parent / "data" / "notifications"


@dataclass(frozen=True, slots=True)
class Recorded:
    """One record as a store sent it to Kafka, with the truth of whoever made the request."""

    store: str
    case: str
    bucket: str | None
    key: str | None
    value: bytes

    @property
    def json(self) -> Any:
        return json.loads(self.value)


def recorded(store: str) -> list[Recorded]:
    """All that was recorded of `minio` or `versitygw`, in the order of its topic."""
    found = json.loads((_RECORDED / f"{store}.json").read_text(encoding="utf-8"))["records"]
    return [
        Recorded(store, one["case"], one["true_bucket"], one["true_key"], json.dumps(one["value"]).encode())
        for one in found
    ]


def minio(name: str, bucket: str, key: str, *, source: str = "minio:s3") -> bytes:
    """One event in the words of MinIO and RustFS; `name` like ``ObjectCreated:Put``."""
    event = {
        "eventVersion": "2.0",
        "eventSource": source,
        "eventName": f"s3:{name}",
        "s3": {"bucket": {"name": bucket, "arn": f"arn:aws:s3:::{bucket}"}, "object": {"key": quote_plus(key)}},
    }
    return json.dumps({"EventName": f"s3:{name}", "Key": f"{bucket}/{key}", "Records": [event]}).encode()


def aws(*events: tuple[str, str, str]) -> bytes:
    """Several (name, bucket, key) in the words of AWS, which may put them into one message."""
    records = [
        {
            "eventVersion": "2.1",
            "eventSource": "aws:s3",
            "eventName": name,
            "s3": {"bucket": {"name": bucket}, "object": {"key": quote_plus(key, safe="/"), "size": 1}},
        }
        for name, bucket, key in events
    ]
    return json.dumps({"Records": records}).encode()
