"""Every way an error arises ends in the one error body."""

from __future__ import annotations

import asyncio
import threading
from dataclasses import replace

import httpx
import pytest

from embedder.index.protocol import Hits
from embedder.index.query import Query
from query_api.app import create_app
from query_api.deps import Limits
from streams.errors import DependencyError
from tests.api_rig import TENANT, Rig, ask, client_of, error_of, filled, get, until

IMAGES = f"/v1/tenants/{TENANT}/images"


class FaultyIndex:
    """An index whose `search` raises what it is given, or hangs until let go."""

    def __init__(self, rig: Rig, fault: Exception | None = None) -> None:
        self._index = rig.index
        self._fault = fault
        self.hold = threading.Event()
        self.n_held = 0
        self.spec, self.get, self.list, self.count = rig.index.spec, rig.index.get, rig.index.list, rig.index.count
        self.search_batch, self.facet = rig.index.search_batch, rig.index.facet

    def search(self, tenant_id: str, query: Query) -> Hits:
        if self._fault is not None:
            raise self._fault
        self.n_held += 1
        assert self.hold.wait(30), "the test never let go"
        return self._index.search(tenant_id, query)


@pytest.mark.parametrize(
    ("path", "status", "code", "field"),
    [
        ("/nowhere", 404, "not_found", None),
        (IMAGES + "/", 404, "not_found", None),
        ("/static/../app.py", 404, "not_found", None),
        (IMAGES + "/absent", 404, "image_not_found", "id"),
        (IMAGES + "/%2e%2e", 404, "image_not_found", "id"),
        (IMAGES + "/a%00b", 404, "image_not_found", "id"),
        ("/v1/tenants/NOT-LOWER/images", 404, "tenant_not_found", "tenant"),
        ("/v1/tenants/a%0Ab/images", 404, "tenant_not_found", "tenant"),
        (IMAGES + "?limit=0", 400, "invalid_parameter", "limit"),
        (IMAGES + "?limit=101", 400, "invalid_parameter", "limit"),
        (IMAGES + "?limit=-1", 400, "invalid_parameter", "limit"),
        (IMAGES + "?limit=1e1", 400, "invalid_parameter", "limit"),
        (IMAGES + "?limit=%D9%A3", 400, "invalid_parameter", "limit"),
        (IMAGES + "?limit=1&limit=2", 400, "invalid_parameter", "limit"),
        (IMAGES + "?limt=5", 400, "invalid_parameter", "limt"),
        (IMAGES + "?state=lost", 400, "invalid_parameter", "state"),
        (IMAGES + "?cursor=%00", 400, "invalid_parameter", "cursor"),
        (IMAGES + "/f0-m0/similar?limit=x", 400, "invalid_parameter", "limit"),
        (IMAGES + "/f0-m0/similar?cursor=a", 400, "invalid_parameter", "cursor"),
    ],
)
def test_a_wrong_request_names_what_is_wrong(path: str, status: int, code: str, field: str | None) -> None:
    """Router and validation answer with the same body, and name the parameter."""
    response = get(filled(1, 1).app(), path)
    error = error_of(response)
    assert (response.status_code, error["code"], error["field"]) == (status, code, field)


def test_a_method_that_is_not_there_is_405_and_names_the_others() -> None:
    """The error body does not cost the Allow header."""
    response = ask(filled(1, 1).app(), "DELETE", IMAGES)
    assert (response.status_code, error_of(response)["code"]) == (405, "method_not_allowed")
    assert "GET" in response.headers["allow"]


def test_something_unexpected_is_500_and_tells_nothing_of_the_inside() -> None:
    """The exception's text is for the log, not for the caller; the headers of every answer are there."""
    rig = filled(1, 1)
    app = create_app(replace(rig.deps(), searcher=FaultyIndex(rig, RuntimeError("secret"))))
    response = get(app, IMAGES + "/f0-m0/similar")
    assert (response.status_code, error_of(response)["code"]) == (500, "internal_error")
    assert "secret" not in response.text
    assert response.headers["x-content-type-options"] == "nosniff"


def test_an_index_that_is_down_is_503_with_retry_after() -> None:
    """The caller learns which dependency it was, and when to ask again."""
    rig = filled(1, 1)
    app = create_app(replace(rig.deps(), searcher=FaultyIndex(rig, DependencyError("index", "no answer"))))
    response = get(app, IMAGES + "/f0-m0/similar")
    assert (response.status_code, error_of(response)["code"]) == (503, "index_unavailable")
    assert int(response.headers["retry-after"]) > 0


def test_an_index_that_hangs_is_504_then_503_and_never_a_hanging_request() -> None:
    """Calls past their deadline keep their threads; when all are taken, others are refused at once."""
    rig = filled(1, 1)
    index = FaultyIndex(rig)
    limits = Limits(n_index_threads=1, max_waiting=1, deadline_s=0.2)
    app = create_app(replace(rig.deps(limits=limits), searcher=index))

    async def run() -> list[httpx.Response]:
        async with client_of(app) as client:
            hanging = asyncio.create_task(client.get(IMAGES + "/f0-m0/similar"))
            await until(lambda: index.n_held == 1)
            behind = await client.get(IMAGES + "/f0-m0")
            refused = await client.get(IMAGES + "/f0-m0")
            hung = await hanging
            index.hold.set()
            return [hung, behind, refused]

    hung, behind, refused = asyncio.run(run())
    assert [(response.status_code, error_of(response)["code"]) for response in (hung, behind, refused)] == [
        (504, "timeout"),
        (504, "timeout"),
        (503, "overloaded"),
    ]


def test_a_request_id_is_kept_only_where_it_is_harmless() -> None:
    """A sane one joins the caller's logs with ours; anything else is replaced."""
    app = filled(1, 1).app()
    assert get(app, "/healthz", headers={"X-Request-ID": "abc-1"}).headers["x-request-id"] == "abc-1"
    for bad in ("a b", "x" * 65, "<b>", ""):
        made = get(app, "/healthz", headers={"X-Request-ID": bad}).headers["x-request-id"]
        assert made != bad
        assert len(made) == 32
