"""Parameters of paths and queries, as the OpenAPI document shows them."""

from __future__ import annotations

from typing import Any

from embedder.index.points import State
from query_api.answers import FIELDS
from streams.event import ATTRIBUTE_NAME_PATTERN, TENANT_ID_PATTERN

Json = dict[str, Any]


def javascript(python: str) -> str:
    r"""JSON Schema's regular expressions are JavaScript's, where ``$`` is what ``\Z`` is in Python."""
    return python.replace(r"\Z", "$")


def _path(name: str, schema: Json, example: str, description: str) -> Json:
    return {
        "name": name,
        "in": "path",
        "required": True,
        "description": description,
        "schema": schema,
        "example": example,
    }


def _query(name: str, schema: Json, example: Any, description: str) -> Json:
    return {"name": name, "in": "query", "description": description, "schema": schema, "example": example}


_ID = {"$ref": "#/components/schemas/ImageId"}

PARAMETERS: Json = {
    "tenant": _path("tenant", {"type": "string", "pattern": javascript(TENANT_ID_PATTERN)}, "acme", "whose pictures"),
    "id": _path("id", _ID, "cat-1", "the image's id"),
    "field": _path(
        "field", {"type": "string", "pattern": javascript(ATTRIBUTE_NAME_PATTERN)}, "tags", "`tags`, or an attribute"
    ),
    "limit": _query("limit", {"type": "integer", "minimum": 1, "maximum": 100}, 10, "how many at most"),
    "cursor": _query(
        "cursor",
        {"$ref": "#/components/schemas/Cursor"},
        "kgrECWFiY2RlZmdoaQ",
        "`next_cursor` of the page before; good for the very same query only",
    ),
    "state": {
        **_query(
            "state",
            {"type": "array", "items": {"enum": [state.value for state in State]}},
            ["indexed"],
            "may be repeated; without it all but deleted images",
        ),
        "explode": True,
    },
    "fields": {
        **_query(
            "fields",
            {"type": "array", "items": {"enum": list(FIELDS)}},
            ["tags"],
            "may be repeated: what each hit brings along",
        ),
        "explode": True,
    },
    "filter": {
        "name": "filter",
        "in": "query",
        "description": "a filter (the schema Filter) as JSON",
        "content": {
            "application/json": {"schema": {"$ref": "#/components/schemas/Filter"}, "example": {"tags": ["red"]}}
        },
    },
    "score_threshold": _query(
        "score_threshold", {"type": "number", "minimum": -1, "maximum": 1}, 0.5, "the least cosine of a hit"
    ),
    "image_id": _query("image_id", _ID, "cat-1", "of a picture that is the body itself; without it its bytes decide"),
    "version": _query(
        "version",
        {"$ref": "#/components/schemas/Version"},
        1_700_000_000_000_000,
        "microseconds since 1970, the highest wins; without it the newest there is",
    ),
}
