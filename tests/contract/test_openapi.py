"""The published description of the API against the API."""

from __future__ import annotations

from typing import Any

import pytest
from jsonschema import Draft202012Validator
from openapi_spec_validator import OpenAPIV31SpecValidator
from starlette.routing import Route

from embedder.index.points import Attempt, AttemptState, Note
from streams.errors import Reason
from tests.api_rig import TENANT, VERSION, ask, filled, get, picture

IMAGES = f"/v1/tenants/{TENANT}/images"


@pytest.fixture(scope="module")
def document() -> dict[str, Any]:
    """What `/openapi.json` answers."""
    described: dict[str, Any] = get(filled(1, 1).app(), "/openapi.json").json()
    return described


def test_the_document_is_valid(document: dict[str, Any]) -> None:
    """By the OpenAPI 3.1 schema and by the references in it."""
    assert document["openapi"].startswith("3.1")
    OpenAPIV31SpecValidator(document).validate()


def test_routes_and_paths_are_the_same(document: dict[str, Any]) -> None:
    """Every route but the page's assets is described, and nothing else is."""
    routes = {
        (route.path, method)
        for route in filled(1, 1).app().routes
        if isinstance(route, Route) and not route.path.startswith("/static/")
        for method in (route.methods or set()) - {"HEAD"}
    }
    described = {(path, method.upper()) for path, item in document["paths"].items() for method in item}
    assert routes == described


@pytest.mark.parametrize(
    ("method", "path", "described"),
    [
        ("GET", IMAGES, "/v1/tenants/{tenant}/images"),
        ("GET", IMAGES + "/f0-m0", "/v1/tenants/{tenant}/images/{id}"),
        ("GET", IMAGES + "/broken", "/v1/tenants/{tenant}/images/{id}"),
        ("GET", IMAGES + "/absent", "/v1/tenants/{tenant}/images/{id}"),
        ("GET", IMAGES + "/broken/similar", "/v1/tenants/{tenant}/images/{id}/similar"),
        ("GET", IMAGES + "/f0-m0/similar", "/v1/tenants/{tenant}/images/{id}/similar"),
        ("GET", IMAGES + "/broken/thumbnail", "/v1/tenants/{tenant}/images/{id}/thumbnail"),
        ("POST", f"/v1/tenants/{TENANT}/search/upload", "/v1/tenants/{tenant}/search/upload"),
        ("GET", "/healthz", "/healthz"),
        ("GET", "/readyz", "/readyz"),
    ],
)
def test_answers_are_as_described(document: dict[str, Any], method: str, path: str, described: str) -> None:
    """The body of each kind of answer, errors included, fits the schema its status is described with."""
    rig = filled(2, 2)
    attempt = Attempt(VERSION, AttemptState.FAILED, Reason.IMAGE_EMPTY, tries=1, at_us=VERSION)
    rig.index.write(TENANT, [Note("broken", attempt)]).result()
    response = ask(rig.app(), method, path, content=picture(0, 0) if method == "POST" else None)
    answers = document["paths"][described][method.lower()]["responses"]
    assert str(response.status_code) in answers
    answer = answers[str(response.status_code)]
    if "$ref" in answer:
        answer = document["components"]["responses"][answer["$ref"].rsplit("/", 1)[1]]
    schema = {**answer["content"]["application/json"]["schema"], "components": document["components"]}
    Draft202012Validator(schema).validate(response.json())
