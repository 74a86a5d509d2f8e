"""What bodies of requests look like, with examples that are valid."""

from __future__ import annotations

from typing import Any

from embedder.index.filters import MAX_DEPTH, MAX_SIZE
from embedder.index.query import MAX_EXAMPLES
from query_api.answers import FIELDS
from query_api.parameters import javascript
from streams.event import (
    ATTRIBUTE_NAME_PATTERN,
    IMAGE_ID_PATTERN,
    MAX_ATTRIBUTES,
    MAX_INTEGER,
    MAX_TAGS,
    MAX_TEXT,
    MAX_VERSION,
    MIN_VERSION,
)

Json = dict[str, Any]


def _ref(name: str) -> Json:
    return {"$ref": f"#/components/schemas/{name}"}


def _closed(properties: Json, *required: str, **more: Any) -> Json:
    return {
        "type": "object",
        "properties": properties,
        "required": list(required),
        "additionalProperties": False,
        **more,
    }


_TEXT: Json = {"type": "string", "minLength": 1, "maxLength": MAX_TEXT}
_NAME: Json = {"type": "string", "pattern": javascript(ATTRIBUTE_NAME_PATTERN)}
_BOUND: Json = {
    "anyOf": [
        {"type": "number", "minimum": -MAX_INTEGER, "maximum": MAX_INTEGER},
        {"type": "string", "format": "date-time"},
    ]
}
_PARTS: Json = {"type": "array", "items": _ref("Filter"), "minItems": 1, "maxItems": 16}
_EXAMPLES: Json = {"type": "array", "items": _ref("Example"), "maxItems": MAX_EXAMPLES}
_IMAGE: Json = {
    "image_id": _ref("ImageId"),
    "version": _ref("Version"),
    "tags": {"type": "array", "items": {"type": "string", "maxLength": MAX_TEXT}, "maxItems": MAX_TAGS},
    "attributes": {
        "type": "object",
        "propertyNames": _NAME,
        "additionalProperties": {
            "anyOf": [
                {"type": "string", "maxLength": MAX_TEXT},
                {"type": "number", "minimum": -MAX_INTEGER, "maximum": MAX_INTEGER},
                {"type": "boolean"},
            ]
        },
        "maxProperties": MAX_ATTRIBUTES,
    },
}

ASKED: Json = {
    "ImageId": {"type": "string", "pattern": javascript(IMAGE_ID_PATTERN), "examples": ["cat-1"]},
    "Version": {
        "type": "integer",
        "minimum": MIN_VERSION,
        "maximum": MAX_VERSION,
        "description": "microseconds since 1970, at most 5 minutes ahead; the highest wins",
        "examples": [1_700_000_000_000_000],
    },
    "Cursor": {"type": "string", "maxLength": 1024, "examples": ["kgrECWFiY2RlZmdoaQ"]},
    "Vector": {
        "type": "array",
        "items": {"type": "number"},
        "description": "as many numbers as the collection's vectors have; of any length but 0",
        "examples": [[0.1, -0.2, 0.3]],
    },
    "Example": {"anyOf": [_ref("ImageId"), _ref("Vector")], "description": "one of the tenant's images, or a vector"},
    "Filter": {
        "description": (
            f"exactly one condition; at most {MAX_DEPTH} deep, {MAX_SIZE} conditions and values together. Attributes "
            "that are strings or bools are compared with `in`; `range` is for declared numbers and times, width_px, "
            "height_px, created_at and indexed_at"
        ),
        "oneOf": [
            _closed({"tags": {"type": "array", "items": _TEXT, "minItems": 1, "maxItems": 64}}, "tags"),
            _closed(
                {
                    "attribute": _NAME,
                    "in": {
                        "type": "array",
                        "items": {"anyOf": [{"type": "string", "maxLength": MAX_TEXT}, {"type": "boolean"}]},
                        "minItems": 1,
                        "maxItems": 64,
                    },
                },
                "attribute",
                "in",
            ),
            _closed({"range": _NAME, "gte": _BOUND, "gt": _BOUND, "lte": _BOUND, "lt": _BOUND}, "range"),
            _closed({"all": _PARTS}, "all"),
            _closed({"any": _PARTS}, "any"),
            _closed({"not": _ref("Filter")}, "not"),
        ],
        "examples": [
            {"tags": ["red", "blue"]},
            {"all": [{"attribute": "colour", "in": ["red"]}, {"not": {"tags": ["draft"]}}]},
            {"range": "indexed_at", "gte": "2026-01-31T12:00:00Z"},
        ],
    },
    "Search": _closed(
        {
            "positive": {**_EXAMPLES, "minItems": 1},
            "negative": _EXAMPLES,
            "filter": {"anyOf": [_ref("Filter"), {"type": "null"}]},
            "score_threshold": {"type": ["number", "null"], "minimum": -1, "maximum": 1},
            "limit": {"type": "integer", "minimum": 1, "maximum": 100, "default": 10},
            "cursor": {"anyOf": [_ref("Cursor"), {"type": "null"}]},
            "fields": {"type": "array", "items": {"enum": list(FIELDS)}, "maxItems": len(FIELDS)},
        },
        "positive",
        examples=[
            {"positive": ["cat-1"], "negative": ["dog-1"], "filter": {"tags": ["red"]}, "fields": ["tags"]},
            {"positive": ["cat-1", "cat-2"], "score_threshold": 0.5, "limit": 3},
        ],
    ),
    "SearchBatch": _closed(
        {"searches": {"type": "array", "items": _ref("Search"), "minItems": 1, "maxItems": 64}},
        "searches",
        examples=[{"searches": [{"positive": ["cat-1"]}, {"positive": ["dog-1"], "limit": 3}]}],
    ),
    "ImageFields": _closed(
        _IMAGE, examples=[{"image_id": "cat-1", "tags": ["red"], "attributes": {"colour": "red", "price": 10}}]
    ),
    "ObjectPlace": _closed(
        {
            "bucket": {"type": "string", "minLength": 1, "maxLength": 255},
            "key": {"type": "string", "minLength": 1, "maxLength": 1024},
            "etag": {**_TEXT, "description": "refuse any other object"},
        },
        "bucket",
        "key",
        examples=[{"bucket": "pictures", "key": "acme/cat-1.jpg"}],
    ),
    "ImageReference": _closed(
        {**_IMAGE, "location": _ref("ObjectPlace")},
        "location",
        examples=[{"image_id": "cat-1", "location": {"bucket": "pictures", "key": "acme/cat-1.jpg"}}],
    ),
}
"""Named apart so that a reader, and the leak suite, knows what a value means wherever it stands."""
