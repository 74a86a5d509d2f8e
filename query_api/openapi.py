"""The OpenAPI 3.1 document: the operations' own docs, and the schemas that they share."""

from __future__ import annotations

from collections.abc import Iterable
from importlib.metadata import version
from typing import Any

from embedder.index.points import AttemptState, State
from query_api.operation import Operation
from streams.errors import Reason
from streams.event import IMAGE_ID_PATTERN, TENANT_ID_PATTERN

Json = dict[str, Any]


def document(operations: Iterable[Operation]) -> Json:
    """What `/openapi.json` answers."""
    paths: dict[str, Json] = {}
    for operation in operations:
        doc = {"operationId": operation.kind, **operation.doc}
        paths.setdefault(operation.path, {})[operation.method.lower()] = doc
    return {
        "openapi": "3.1.0",
        "info": {
            "title": "lookalike",
            "version": version("lookalike"),
            "description": "Which of my pictures look like this one?",
        },
        "paths": paths,
        "components": {"schemas": SCHEMAS, "parameters": PARAMETERS, "responses": {"Error": ERROR_RESPONSE}},
    }


def ref(kind: str, name: str) -> Json:
    """A reference to a component."""
    return {"$ref": f"#/components/{kind}/{name}"}


def parameters(*names: str) -> list[Json]:
    """References to shared parameters."""
    return [ref("parameters", name) for name in names]


def answers(description: str, schema: str, *errors: int) -> Json:
    """200 with a JSON body of a shared schema, and the error body for each of `errors`."""
    content = {"application/json": {"schema": ref("schemas", schema)}}
    return {"200": {"description": description, "content": content}, **refusals(*errors)}


def refusals(*errors: int) -> Json:
    """The error body for each of these statuses, and for any other."""
    return {**{str(status): ref("responses", "Error") for status in errors}, "default": ref("responses", "Error")}


def _object(properties: Json, *, optional: tuple[str, ...] = ()) -> Json:
    required = [name for name in properties if name not in optional]
    return {"type": "object", "properties": properties, "required": required}


def _pattern(python: str) -> str:
    r"""JSON Schema's regular expressions are JavaScript's, where ``$`` is what ``\Z`` is in Python."""
    return python.replace(r"\Z", "$")


_TEXT: Json = {"type": ["string", "null"]}
_NUMBER: Json = {"type": ["integer", "null"]}
_TIME: Json = {"type": ["string", "null"], "format": "date-time"}
_VERSION: Json = {"type": "integer", "description": "microseconds since 1970; the highest wins"}

_ROW: Json = {
    "image_id": {"type": "string"},
    "state": {"enum": [state.value for state in State]},
    "version": _VERSION,
    "width_px": _NUMBER,
    "height_px": _NUMBER,
    "indexed_at": _TIME,
    "attempt": {"anyOf": [{"$ref": "#/components/schemas/Attempt"}, {"type": "null"}]},
}

SCHEMAS: Json = {
    "Error": _object(
        {
            "error": _object(
                {"code": {"type": "string"}, "message": {"type": "string"}, "field": _TEXT, "request_id": _TEXT}
            )
        }
    ),
    "Attempt": {
        "description": "the newest try that was not applied: how far it came, why, how often, when",
        **_object(
            {
                "version": _VERSION,
                "state": {"enum": [state.value for state in AttemptState]},
                "reason": {"enum": [*(reason.value for reason in Reason), None]},
                "tries": {"type": "integer"},
                "at": _TIME,
            }
        ),
    },
    "ImageRow": _object(_ROW),
    "ImageList": _object(
        {"images": {"type": "array", "items": {"$ref": "#/components/schemas/ImageRow"}}, "next_cursor": _TEXT}
    ),
    "ImageStatus": _object(
        {
            "tenant_id": {"type": "string"},
            **_ROW,
            "model": {"type": "string", "description": "the model of the collection"},
            "collection": {"type": "string"},
            "engine": {**_TEXT, "description": "what ran the network for this picture"},
            "location": {
                "anyOf": [
                    _object(
                        {
                            "bucket": {"type": "string"},
                            "key": {"type": "string"},
                            "etag": _TEXT,
                            "size_bytes": _NUMBER,
                            "content_type": _TEXT,
                        }
                    ),
                    {"type": "null"},
                ]
            },
            "etag": _TEXT,
            "sha256": _TEXT,
            "tags": {"type": "array", "items": {"type": "string"}},
            "attributes": {
                "type": "object",
                "additionalProperties": {"type": ["string", "integer", "number", "boolean"]},
            },
            "created_at": _TIME,
        }
    ),
    "Hits": _object(
        {
            "hits": {
                "type": "array",
                "items": _object(
                    {
                        "image_id": {"type": "string"},
                        "score": {"type": "number", "description": "the cosine, -1 to 1; higher is more alike"},
                    }
                ),
            },
            "exact": {"type": "boolean", "description": "whether every candidate was compared"},
            "model": {"type": "string"},
            "collection": {"type": "string"},
            "took_ms": {"type": "number"},
            "request_id": {"type": "string"},
        }
    ),
    "Health": _object({"status": {"type": "string"}}),
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
        }
    ),
}

PARAMETERS: Json = {
    "tenant": {
        "name": "tenant",
        "in": "path",
        "required": True,
        "schema": {"type": "string", "pattern": _pattern(TENANT_ID_PATTERN)},
    },
    "id": {
        "name": "id",
        "in": "path",
        "required": True,
        "description": "image id",
        "schema": {"type": "string", "pattern": _pattern(IMAGE_ID_PATTERN)},
    },
    "limit": {
        "name": "limit",
        "in": "query",
        "description": "how many at most",
        "schema": {"type": "integer", "minimum": 1, "maximum": 100},
    },
    "cursor": {
        "name": "cursor",
        "in": "query",
        "description": "`next_cursor` of the page before",
        "schema": {"type": "string"},
    },
    "state": {
        "name": "state",
        "in": "query",
        "description": "may be repeated; without it all but deleted images",
        "schema": {"type": "array", "items": {"enum": [state.value for state in State]}},
    },
}

ERROR_RESPONSE: Json = {
    "description": "what went wrong, in the one error body",
    "content": {"application/json": {"schema": {"$ref": "#/components/schemas/Error"}}},
}
