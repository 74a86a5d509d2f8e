"""Requests made up from the published document, legal and illegal: no server error, no answer beside the document."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
import schemathesis
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st
from schemathesis import GenerationMode
from schemathesis.checks import not_a_server_error
from schemathesis.specs.openapi.checks import (
    content_type_conformance,
    response_schema_conformance,
    status_code_conformance,
)

from tests.api_rig import TENANT, filled, get, serving

CHECKS = [not_a_server_error, status_code_conformance, content_type_conformance, response_schema_conformance]
N_EXAMPLES = 40
"""Per operation and mode."""
PINS = [{}, {"tenant": TENANT}, {"tenant": TENANT, "id": "f0-m0", "field": "tags"}, {"tenant": TENANT, "id": "f1-m2"}]
"""Parts of paths that mean something here: made-up ones alone would all end in 404."""


@pytest.fixture(scope="module")
def described() -> Iterator[Any]:
    """The document of a real server with a few pictures, which its requests go to."""
    with serving(filled(2, 3).app()) as address:
        yield schemathesis.openapi.from_url(f"{address}/openapi.json")


def _operations() -> list[tuple[str, str]]:
    paths = get(filled(1, 1).app(), "/openapi.json").json()["paths"]
    return [(path, method) for path, item in paths.items() for method in item]


@pytest.mark.parametrize("mode", [GenerationMode.POSITIVE, GenerationMode.NEGATIVE], ids=["legal", "illegal"])
@pytest.mark.parametrize(("path", "method"), _operations(), ids=lambda part: part)
def test_no_request_makes_a_server_error(described: Any, path: str, method: str, mode: GenerationMode) -> None:
    """Whatever is sent is answered below 500, with a status and a body that the document knows."""
    operation = described[path][method]
    if mode is GenerationMode.NEGATIVE and not _takes_anything(operation):
        return

    @given(case=operation.as_strategy(generation_mode=mode), pins=st.sampled_from(PINS), plain=st.booleans())
    @settings(
        max_examples=N_EXAMPLES,
        deadline=None,
        derandomize=True,
        database=None,
        phases=(Phase.explicit, Phase.generate),
        suppress_health_check=list(HealthCheck),
    )
    def run(case: schemathesis.Case[Any], pins: dict[str, str], plain: bool) -> None:
        for name, value in pins.items():
            if name in case.path_parameters:
                case.path_parameters[name] = value
        if plain and mode is GenerationMode.POSITIVE:
            _make_plain(case)
        case.call_and_validate(checks=CHECKS)

    run()


def _make_plain(case: schemathesis.Case[Any]) -> None:
    """Without what is legal and refused nearly always: made-up cursors, fields and images stop a request early."""
    body: Any = case.body
    bodies = [body, *(body.get("searches", ()) if isinstance(body, dict) else ())]
    for part in (case.query, *bodies):
        if isinstance(part, dict):
            for name in ("filter", "cursor", "negative"):
                part.pop(name, None)
            if "positive" in part:
                part["positive"] = ["f0-m0"]


def _takes_anything(operation: Any) -> bool:
    """Nothing illegal can be sent to an operation without parameters."""
    return bool(list(operation.iter_parameters()) or list(operation.body))
