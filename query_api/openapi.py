"""The OpenAPI 3.1 document: the operations' own docs, and the schemas that they share."""

from __future__ import annotations

from collections.abc import Iterable
from importlib.metadata import version
from typing import Any

from query_api.operation import Operation
from query_api.parameters import PARAMETERS
from query_api.schemas import ERROR_EXAMPLE, SCHEMAS
from query_api.schemas_asked import ASKED

Json = dict[str, Any]

DESCRIPTION = """Which of my pictures look like this one?

Every answer about a tenant tells `model`, `collection`, `took_ms` and `request_id`; every refusal has one body."""

ERROR_RESPONSE: Json = {
    "description": "what went wrong, in the one error body",
    "content": {"application/json": {"schema": {"$ref": "#/components/schemas/Error"}, "example": ERROR_EXAMPLE}},
}


def document(operations: Iterable[Operation], *, has_keys: bool) -> Json:
    """What `/openapi.json` answers; where there are keys it says which operations need one."""
    paths: dict[str, Json] = {}
    for operation in operations:
        doc = {"operationId": operation.kind, **operation.doc}
        if has_keys and operation.scope is not None:
            doc["security"] = [{"key": [operation.scope.value]}]
            doc["responses"] = {**doc["responses"], **{status: ref("responses", "Error") for status in KEY_STATUSES}}
        paths.setdefault(operation.path, {})[operation.method.lower()] = doc
    components: Json = {
        "schemas": {**SCHEMAS, **ASKED},
        "parameters": PARAMETERS,
        "responses": {"Error": ERROR_RESPONSE},
    }
    if has_keys:
        components["securitySchemes"] = {
            "key": {"type": "http", "scheme": "bearer", "description": "made by `lookalike keys create`"}
        }
    return {
        "openapi": "3.1.0",
        "info": {"title": "lookalike", "version": version("lookalike"), "description": DESCRIPTION},
        "paths": paths,
        "components": components,
    }


KEY_STATUSES = ("401", "403", "404", "429")
"""What may be answered besides, where there are keys."""


def ref(kind: str, name: str) -> Json:
    """A reference to a component."""
    return {"$ref": f"#/components/{kind}/{name}"}


def parameters(*names: str) -> list[Json]:
    """References to shared parameters."""
    return [ref("parameters", name) for name in names]


def json_request(schema: str) -> Json:
    """A JSON body of a shared schema."""
    return {"required": True, "content": {"application/json": {"schema": ref("schemas", schema)}}}


def binary_body(*, form: str | None = None, more: Json | None = None) -> Json:
    """A picture as it is, or in a form's part `file`, beside a part `image` of the schema `form`; or `more`."""
    properties: Json = {"file": {"type": "string", "format": "binary"}}
    if form is not None:
        properties["image"] = ref("schemas", form)
    of_form: Json = {"schema": {"type": "object", "properties": properties, "required": ["file"]}}
    if form is not None:
        of_form["encoding"] = {"image": {"contentType": "application/json"}}
    binary: Json = {"schema": {"type": "string", "format": "binary"}}
    content = {"image/*": binary, "application/octet-stream": binary, "multipart/form-data": of_form}
    return {"required": True, "content": {**content, **(more or {})}}


def answers(description: str, schema: str, *errors: int, status: int = 200) -> Json:
    """A JSON body of a shared schema, and the error body for each of `errors`."""
    content = {"application/json": {"schema": ref("schemas", schema)}}
    return {str(status): {"description": description, "content": content}, **refusals(*errors)}


def refusals(*errors: int) -> Json:
    """The error body for each of these statuses, and for any other."""
    return {**{str(status): ref("responses", "Error") for status in errors}, "default": ref("responses", "Error")}
