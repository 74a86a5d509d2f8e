"""One good Kafka record, and every way to spoil it: for the parser alone and for whoever reads through it."""

from __future__ import annotations

import json
from typing import Any

from streams.event import CREATED, MAX_VERSION, MIN_VERSION

NOW_US = 1_800_000_000_000_000
VERSION = 1_750_000_000_000_000
DATA: dict[str, Any] = {
    "tenant_id": "acme",
    "image_id": "photo-1",
    "version": VERSION,
    "location": {"bucket": "pictures", "key": "acme/photo-1.jpg"},
}
HEADERS = {
    "ce_id": b"e-1",
    "ce_source": b"camera",
    "ce_type": CREATED.encode(),
    "ce_time": b"2026-01-01T00:00:00Z",
    "ce_specversion": b"1.0",
}


def record(**data: object) -> bytes:
    """The usual data with some fields replaced; `...` leaves one out."""
    return json.dumps({name: value for name, value in (DATA | data).items() if value is not ...}).encode()


def with_raw(field: bytes) -> bytes:
    """The usual data and one more field, written as bytes that no JSON writer would give."""
    return record()[:-1] + b"," + field + b"}"


def place(**location: object) -> dict[str, object]:
    return {"location": DATA["location"] | location}


NOT_DATA: dict[str, bytes | None] = {
    "no value": None,
    "empty": b"",
    "not JSON": b"picture!",
    "cut off": record()[:-1],
    "two documents": record() + record(),
    "a list": b"[]",
    "null": b"null",
    "a number": b"1",
    "a string": b'"x"',
    "an empty object": b"{}",
    "a NUL byte": b"\x00",
    "a byte order mark": b"\xef\xbb\xbf" + record(),
    "UTF-16": record().decode().encode("utf-16"),
    "not UTF-8": with_raw(b'"tags":["\xff"]'),
    "an encoded surrogate": with_raw(b'"tags":["\xed\xa0\x80"]'),
    "a lone surrogate": with_raw(rb'"tags":["\ud800"]'),
    "NaN": with_raw(b'"attributes":{"a":NaN}'),
    "Infinity": with_raw(b'"attributes":{"a":-Infinity}'),
    "a number beyond float64": with_raw(b'"attributes":{"a":1e999}'),
    "an integer of a million digits": with_raw(b'"attributes":{"a":' + b"9" * 1_000_000 + b"}"),
    "a version of a million digits": with_raw(b'"version":' + b"9" * 1_000_000),
    "deep lists": b"[" * 100_000,
    "deep objects": b'{"a":' * 100_000,
    "a deep unknown field": with_raw(b'"x":' + b"[" * 100_000 + b"]" * 100_000),
    "deep tags": with_raw(b'"tags":' + b"[" * 100_000 + b"]" * 100_000),
    "deep attributes": with_raw(b'"attributes":' + b'{"a":' * 100_000 + b"1" + b"}" * 100_000),
}
"""Values that are not the JSON object of the contract."""

BAD_FIELDS: dict[str, dict[str, object]] = {
    "no tenant": {"tenant_id": ...},
    "no image": {"image_id": ...},
    "no location": {"location": ...},
    "null location": {"location": None},
    "tenant empty": {"tenant_id": ""},
    "tenant uppercase": {"tenant_id": "Acme"},
    "tenant with a newline": {"tenant_id": "acme\n"},
    "tenant with a slash": {"tenant_id": "acme/other"},
    "tenant with dots": {"tenant_id": ".."},
    "tenant with a leading dash": {"tenant_id": "-acme"},
    "tenant with other digits": {"tenant_id": "acme٣"},
    "tenant with a look-alike letter": {"tenant_id": "аcme"},
    "tenant too long": {"tenant_id": "a" * 64},
    "tenant a number": {"tenant_id": 7},
    "tenant null": {"tenant_id": None},
    "image empty": {"image_id": ""},
    "image with a newline": {"image_id": "photo\n"},
    "image with a slash": {"image_id": "../photo"},
    "image with a backslash": {"image_id": "a\\b"},
    "image dots": {"image_id": ".."},
    "image with NUL": {"image_id": "photo\x00"},
    "image with a space": {"image_id": "a b"},
    "image with other digits": {"image_id": "photo٣"},
    "image with an umlaut": {"image_id": "fotö"},
    "image too long": {"image_id": "a" * 129},
    "image very long": {"image_id": "a" * 5_000_000},
    "image a number": {"image_id": 7},
    "version in milliseconds": {"version": VERSION // 1000},
    "version in nanoseconds": {"version": VERSION * 1000},
    "version in seconds": {"version": VERSION // 1_000_000},
    "version zero": {"version": 0},
    "version negative": {"version": -VERSION},
    "version before 2000": {"version": MIN_VERSION - 1},
    "version from the future": {"version": NOW_US + 300_000_001},
    "version beyond float64": {"version": MAX_VERSION + 1},
    "version beyond 64 bits": {"version": 2**70},
    "version a float": {"version": float(VERSION)},
    "version a string": {"version": str(VERSION)},
    "version a bool": {"version": True},
    "version a list": {"version": [VERSION]},
    "location a string": {"location": "acme/photo"},
    "location a list": {"location": []},
    "location without a bucket": {"location": {"key": "k"}},
    "location without a key": {"location": {"bucket": "b"}},
    "bucket empty": place(bucket=""),
    "bucket too long": place(bucket="b" * 256),
    "key empty": place(key=""),
    "key too long": place(key="k" * 1025),
    "key a number": place(key=7),
    "etag empty": place(etag=""),
    "etag too long": place(etag="e" * 257),
    "etag a number": place(etag=7),
    "size negative": place(size_bytes=-1),
    "size a float": place(size_bytes=1.5),
    "size beyond 64 bits": place(size_bytes=2**64),
    "content type too long": place(content_type="t" * 257),
    "tags a string": {"tags": "a"},
    "tags an object": {"tags": {}},
    "tags null": {"tags": None},
    "tag a number": {"tags": [1]},
    "tag null": {"tags": [None]},
    "tag too long": {"tags": ["t" * 257]},
    "65 tags": {"tags": ["t"] * 65},
    "attributes a list": {"attributes": []},
    "attribute null": {"attributes": {"a": None}},
    "attribute nested": {"attributes": {"a": {"b": 1}}},
    "attribute a list": {"attributes": {"a": [1]}},
    "attribute too long": {"attributes": {"a": "v" * 257}},
    "33 attributes": {"attributes": {f"a{number}": 1 for number in range(33)}},
    "attribute beyond float64": {"attributes": {"a": 10**400}},
    "attribute beyond 64 bits": {"attributes": {"a": -(2**64)}},
    "attribute that float64 rounds": {"attributes": {"a": 2**53}},
    "attribute without a name": {"attributes": {"": 1}},
    "attribute name with an equals sign": {"attributes": {"a=b": 1}},
    "attribute name with a newline": {"attributes": {"a\n": 1}},
    "attribute name with a dot": {"attributes": {"a.b": 1}},
    "attribute name too long": {"attributes": {"a" * 64: 1}},
}
"""One wrong field each, to be put into :func:`record`; the first key names it."""
