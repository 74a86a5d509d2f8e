"""What answers look like, with examples that are valid."""

from __future__ import annotations

from typing import Any

from embedder.index.points import AttemptState, State
from streams.errors import Reason

Json = dict[str, Any]


def _object(properties: Json, *, optional: tuple[str, ...] = (), **more: Any) -> Json:
    required = [name for name in properties if name not in optional]
    return {"type": "object", "properties": properties, "required": required, **more}


_TEXT: Json = {"type": ["string", "null"]}
_NUMBER: Json = {"type": ["integer", "null"]}
_TIME: Json = {"type": ["string", "null"], "format": "date-time"}
_VERSION: Json = {"type": "integer", "description": "microseconds since 1970; the highest wins"}
_ATTRIBUTES: Json = {
    "type": "object",
    "additionalProperties": {"type": ["string", "integer", "number", "boolean"]},
}
_ABOUT: Json = {
    "model": {**_TEXT, "description": "of the collection; null where the index does not answer"},
    "collection": _TEXT,
    "took_ms": {"type": "number"},
    "request_id": {"type": "string"},
}
ABOUT_EXAMPLE: Json = {
    "model": "efficientnet_lite0.5e2c0b51",
    "collection": "efficientnet_lite0.5e2c0b51--pil-1",
    "took_ms": 1.042,
    "request_id": "5b0ff7a53f0a4a0e9d352f1d7b1c0a11",
}
_AT = 1_700_000_000_000_000
_TIME_EXAMPLE = "2023-11-14T22:13:20+00:00"

_FIELDS: Json = {
    "version": _VERSION,
    "tags": {"type": "array", "items": {"type": "string"}},
    "attributes": _ATTRIBUTES,
    "width_px": _NUMBER,
    "height_px": _NUMBER,
    "created_at": _TIME,
    "indexed_at": _TIME,
    "location": {"anyOf": [{"$ref": "#/components/schemas/Location"}, {"type": "null"}]},
    "etag": _TEXT,
    "sha256": _TEXT,
    "engine": {**_TEXT, "description": "what ran the network for this picture"},
}
_ROW: Json = {
    "image_id": {"type": "string"},
    "state": {"enum": [state.value for state in State]},
    "version": _VERSION,
    "width_px": _NUMBER,
    "height_px": _NUMBER,
    "indexed_at": _TIME,
    "attempt": {"anyOf": [{"$ref": "#/components/schemas/Attempt"}, {"type": "null"}]},
}
_ROW_EXAMPLE: Json = {
    "image_id": "cat-1",
    "state": "indexed",
    "version": _AT,
    "width_px": 1600,
    "height_px": 1200,
    "indexed_at": _TIME_EXAMPLE,
    "attempt": None,
}
_LOCATION_EXAMPLE: Json = {
    "bucket": "pictures",
    "key": "acme/cat-1.jpg",
    "etag": "9b2cf535f27731c974343645a3985328",
    "size_bytes": 483_112,
    "content_type": "image/jpeg",
}
_PAGE: Json = {
    "hits": {"type": "array", "items": {"$ref": "#/components/schemas/Hit"}},
    "exact": {"type": "boolean", "description": "whether every candidate was compared"},
    "next_cursor": _TEXT,
}
_PAGE_EXAMPLE: Json = {"hits": [{"image_id": "cat-2", "score": 0.93}], "exact": True, "next_cursor": None}
_PROBLEM: Json = {"code": {"type": "string"}, "message": {"type": "string"}, "field": _TEXT}
ERROR_EXAMPLE: Json = {
    "error": {
        "code": "image_not_found",
        "message": "the tenant has no image 'cat-9'",
        "field": "id",
        "request_id": ABOUT_EXAMPLE["request_id"],
    }
}

SCHEMAS: Json = {
    "Error": _object({"error": _object({**_PROBLEM, "request_id": _TEXT})}, examples=[ERROR_EXAMPLE]),
    "Attempt": _object(
        {
            "version": _VERSION,
            "state": {"enum": [state.value for state in AttemptState]},
            "reason": {"enum": [*(reason.value for reason in Reason), None]},
            "tries": {"type": "integer"},
            "at": _TIME,
        },
        description="the newest try that was not applied: how far it came, why, how often, when",
        examples=[{"version": _AT, "state": "failed", "reason": "image_unreadable", "tries": 1, "at": _TIME_EXAMPLE}],
    ),
    "Location": _object(
        {
            "bucket": {"type": "string"},
            "key": {"type": "string"},
            "etag": _TEXT,
            "size_bytes": _NUMBER,
            "content_type": _TEXT,
        },
        examples=[_LOCATION_EXAMPLE],
    ),
    "ImageRow": _object(_ROW, examples=[_ROW_EXAMPLE]),
    "ImageList": _object(
        {
            "images": {"type": "array", "items": {"$ref": "#/components/schemas/ImageRow"}},
            "next_cursor": _TEXT,
            **_ABOUT,
        },
        examples=[{"images": [_ROW_EXAMPLE], "next_cursor": None, **ABOUT_EXAMPLE}],
    ),
    "ImageStatus": _object(
        {"tenant_id": {"type": "string"}, **_ROW, **_FIELDS, **_ABOUT},
        examples=[
            {
                "tenant_id": "acme",
                **_ROW_EXAMPLE,
                "tags": ["red"],
                "attributes": {"colour": "red"},
                "created_at": _TIME_EXAMPLE,
                "location": _LOCATION_EXAMPLE,
                "etag": _LOCATION_EXAMPLE["etag"],
                "sha256": "0" * 64,
                "engine": "torch",
                **ABOUT_EXAMPLE,
            }
        ],
    ),
    "Hit": _object(
        {
            "image_id": {"type": "string"},
            "score": {"type": "number", "description": "the cosine, -1 to 1; higher is more alike"},
            "fields": _object(_FIELDS, optional=tuple(_FIELDS), description="what `fields` asked for"),
        },
        optional=("fields",),
        examples=[{"image_id": "cat-2", "score": 0.93, "fields": {"tags": ["red"]}}],
    ),
    "Hits": _object({**_PAGE, **_ABOUT}, examples=[{**_PAGE_EXAMPLE, **ABOUT_EXAMPLE}]),
    "BatchResults": _object(
        {
            "results": {
                "type": "array",
                "items": {"anyOf": [_object(_PAGE), _object({"error": _object(_PROBLEM)})]},
            },
            **_ABOUT,
        },
        examples=[{"results": [_PAGE_EXAMPLE], **ABOUT_EXAMPLE}],
    ),
    "Facet": _object(
        {
            "field": {"type": "string"},
            "values": {
                "type": "array",
                "items": _object({"value": {"type": "string"}, "count": {"type": "integer"}}),
            },
            "complete": {"type": "boolean", "description": "whether a rare value may be missing"},
            **_ABOUT,
        },
        examples=[{"field": "tags", "values": [{"value": "red", "count": 12}], "complete": True, **ABOUT_EXAMPLE}],
    ),
    "Accepted": _object(
        {
            "tenant_id": {"type": "string"},
            "image_id": {"type": "string"},
            "version": _VERSION,
            "pending": {"type": "boolean", "description": "whether its status tells of it already"},
            "location": {"$ref": "#/components/schemas/Location"},
            **_ABOUT,
        },
        examples=[
            {
                "tenant_id": "acme",
                "image_id": "cat-1",
                "version": _AT,
                "pending": True,
                "location": _LOCATION_EXAMPLE,
                **ABOUT_EXAMPLE,
            }
        ],
    ),
    "Deleted": _object(
        {
            "tenant_id": {"type": "string"},
            "image_id": {"type": "string"},
            "version": _VERSION,
            "search": {"enum": ["gone", "pending"]},
            **_ABOUT,
        },
        examples=[{"tenant_id": "acme", "image_id": "cat-1", "version": _AT, "search": "gone", **ABOUT_EXAMPLE}],
    ),
    "Health": _object(
        {
            "status": {"type": "string"},
            "loop_lag_ms": {"type": "number", "description": "the event loop's latest wake-up within a minute"},
        },
        examples=[{"status": "ok", "loop_lag_ms": 1.2}],
    ),
    "Readiness": _object(
        {
            "status": {"enum": ["ready", "not_ready"]},
            "dependencies": {
                "type": "object",
                "additionalProperties": _object(
                    {
                        "state": {"enum": ["ok", "failed"]},
                        "required": {"type": "boolean", "description": "whether it alone makes the API not ready"},
                        "latency_ms": {"type": "number"},
                        "last_error": _TEXT,
                        "last_error_s_ago": {"type": ["number", "null"]},
                    }
                ),
            },
        },
        examples=[
            {
                "status": "ready",
                "dependencies": {
                    "index": {
                        "state": "ok",
                        "required": True,
                        "latency_ms": 0.2,
                        "last_error": None,
                        "last_error_s_ago": None,
                    }
                },
            }
        ],
    ),
}
