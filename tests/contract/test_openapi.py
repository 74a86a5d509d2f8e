"""The published description of the API against the API."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from jsonschema import Draft202012Validator
from openapi_spec_validator import OpenAPIV31SpecValidator
from starlette.routing import Route

from embedder.index.points import Attempt, AttemptState, Note
from query_api.app import create_app
from query_api.key_ring import KeyRing
from query_api.keys import changing
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


def test_every_schema_of_a_body_has_examples_that_fit_it(document: dict[str, Any]) -> None:
    """What is asked and what is answered is shown, and what is shown is valid."""
    schemas = document["components"]["schemas"]
    named = {name for name in schemas if f'schemas/{name}"' in json.dumps(document["paths"])}
    assert named >= {"Search", "SearchBatch", "Hits", "BatchResults", "Facet", "Accepted", "Deleted", "ImageReference"}
    assert all(schemas[name].get("examples") for name in named)
    for name, schema in schemas.items():
        whole = {**schema, "components": document["components"]}
        for example in schema.get("examples", ()):
            errors = [error.message for error in Draft202012Validator(whole).iter_errors(example)]
            assert errors == [], name


def test_every_parameter_has_an_example(document: dict[str, Any]) -> None:
    """Whoever reads the document can write the request."""
    for name, parameter in document["components"]["parameters"].items():
        shown = parameter.get("content", {}).get("application/json", parameter)
        assert "example" in shown, name
        assert parameter["description"], name


def test_what_is_shown_to_be_asked_can_be_asked(document: dict[str, Any]) -> None:
    """The examples of searches are answered, once the images they name are there."""
    rig = filled(1, 1)
    for n, image_id in enumerate(("cat-1", "cat-2", "dog-1")):
        rig.add(image_id, picture(n, 0))
    app, schemas = rig.app(), document["components"]["schemas"]
    for schema, path in (("Search", "search"), ("SearchBatch", "search/batch"), ("ImageReference", "images")):
        for example in schemas[schema]["examples"]:
            response = ask(app, "POST", f"/v1/tenants/{TENANT}/{path}", json=example)
            assert response.status_code in (200, 202), response.text
    for example in schemas["Filter"]["examples"]:
        body = {"positive": ["cat-1"], "filter": example}
        assert ask(app, "POST", f"/v1/tenants/{TENANT}/search", json=body).status_code == 200


def test_with_keys_the_document_says_what_needs_which(tmp_path: Path) -> None:
    """Every operation below a tenant has its scope and the answers to a wrong key; it is valid all the same."""
    with changing(tmp_path / "keys.json"):
        pass
    app = create_app(replace(filled(1, 1).deps(), keys=KeyRing(tmp_path / "keys.json")))
    told = get(app, "/openapi.json").json()
    OpenAPIV31SpecValidator(told).validate()
    for path, item in told["paths"].items():
        for method, operation in item.items():
            needed = "write" if method in ("post", "delete") and "/images" in path else "search"
            if "{tenant}" in path:
                assert operation["security"] == [{"key": [needed]}]
                assert set(operation["responses"]) >= {"401", "403", "404", "429"}
    assert told["paths"]["/metrics"]["get"]["security"] == [{"key": ["admin"]}]
    assert "security" not in told["paths"]["/healthz"]["get"]
    assert "/" not in told["paths"]


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
        ("POST", f"/v1/tenants/{TENANT}/images", "/v1/tenants/{tenant}/images"),
        ("DELETE", IMAGES + "/f0-m0", "/v1/tenants/{tenant}/images/{id}"),
        ("DELETE", IMAGES + "/absent", "/v1/tenants/{tenant}/images/{id}"),
        ("GET", f"/v1/tenants/{TENANT}/facets/tags", "/v1/tenants/{tenant}/facets/{field}"),
        ("GET", f"/v1/tenants/{TENANT}/facets/shelf", "/v1/tenants/{tenant}/facets/{field}"),
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
