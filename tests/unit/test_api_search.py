"""Search by a picture that is sent along."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import AsyncIterator
from dataclasses import replace

import httpx
import pytest

from embedder.query_embedder import QueueFullError
from query_api.deps import Limits
from streams.errors import DependencyError, LookalikeError, Reason, RetryableError
from tests.api_rig import SPEC, TENANT, ask, client_of, error_of, filled, picture, until

UPLOAD = f"/v1/tenants/{TENANT}/search/upload"


def test_a_raw_body_and_a_form_find_the_same() -> None:
    """A picture of the tenant, sent either way, finds itself first."""
    app, data = filled().app(), picture(1, 0)
    raw = ask(app, "POST", UPLOAD + "?limit=4", content=data).json()
    form = ask(app, "POST", UPLOAD + "?limit=4", files={"file": ("a.jpg", data, "image/jpeg")}).json()
    assert raw["hits"] == form["hits"]
    assert raw["hits"][0]["image_id"] == "f1-m0"
    assert raw["hits"][0]["score"] == pytest.approx(1.0, abs=1e-5)
    assert {hit["image_id"][:2] for hit in raw["hits"]} == {"f1"}


def test_what_is_no_picture_is_422_with_its_reason() -> None:
    """The code is the word that a dead letter would carry."""
    response = ask(filled().app(), "POST", UPLOAD, content=b"not a picture")
    assert (response.status_code, error_of(response)["code"]) == (422, "image_unreadable")


def test_a_form_without_the_file_is_refused() -> None:
    """400 names the part that is missing; a form that cannot be read is 400, too."""
    app = filled().app()
    response = ask(app, "POST", UPLOAD, files={"picture": ("a.jpg", picture(1, 0))})
    assert (response.status_code, error_of(response)["field"]) == (400, "file")
    broken = ask(app, "POST", UPLOAD, content=b"x", headers={"Content-Type": "multipart/form-data; boundary=b"})
    assert broken.status_code == 400
    error_of(broken)
    unbounded = ask(app, "POST", UPLOAD, content=b"x", headers={"Content-Type": "multipart/form-data"})
    assert unbounded.status_code == 400
    error_of(unbounded)


@pytest.mark.parametrize("chunked", [False, True])
def test_a_body_over_the_limit_is_413(chunked: bool) -> None:
    """Both where the length is declared and where the body comes in chunks."""

    async def chunks() -> AsyncIterator[bytes]:
        for _ in range(8):
            yield bytes(512)

    app = filled().app(limits=Limits(max_body_bytes=2048))
    response = ask(app, "POST", UPLOAD, content=chunks() if chunked else bytes(4096))
    assert (response.status_code, error_of(response)["code"]) == (413, "body_too_large")
    assert ask(app, "GET", "/healthz", content=bytes(4096)).status_code == 413  # refused whether or not it is read
    within = ask(app, "POST", UPLOAD, content=bytes(2048))
    assert within.status_code == 422


def test_uploads_above_the_bound_are_429_and_later_ones_are_served() -> None:
    """With two allowed in hand the third is told when to ask again; once they are done there is room."""
    rig = filled()
    app = rig.app(limits=Limits(max_uploads=2))
    rig.embedder.hold = hold = threading.Event()
    data = picture(1, 0)

    async def run() -> tuple[httpx.Response, list[httpx.Response], httpx.Response]:
        async with client_of(app) as client:
            under_way = [asyncio.create_task(client.post(UPLOAD, content=data)) for _ in range(2)]
            await until(lambda: rig.embedder.n_held == 2)
            refused = await client.post(UPLOAD, content=data)
            hold.set()
            return refused, list(await asyncio.gather(*under_way)), await client.post(UPLOAD, content=data)

    refused, served, later = asyncio.run(run())
    assert (refused.status_code, error_of(refused)["code"]) == (429, "queue_full")
    assert int(refused.headers["retry-after"]) > 0
    assert [response.status_code for response in [*served, later]] == [200, 200, 200]


@pytest.mark.parametrize(
    ("fault", "status", "code"),
    [
        (QueueFullError("full"), 429, "queue_full"),
        (RetryableError(Reason.DECODER_TIMEOUT, "too slow"), 422, "decoder_timeout"),
        (DependencyError("embedder", "not there"), 503, "embedder_unavailable"),
        (TimeoutError(), 504, "timeout"),
    ],
)
def test_what_the_embedder_says_becomes_a_status(fault: LookalikeError | TimeoutError, status: int, code: str) -> None:
    """Its bound, its patience and its absence each have a status; 429 and 503 say when to ask again."""
    rig = filled()
    app = rig.app()
    rig.embedder.faults.append(fault)
    response = ask(app, "POST", UPLOAD, content=picture(1, 0))
    assert (response.status_code, error_of(response)["code"]) == (status, code)
    assert ("retry-after" in response.headers) == (status in {429, 503})


def test_vectors_of_another_model_are_not_compared() -> None:
    """Where the API's model is not the collection's the answer is 503, not nonsense."""
    rig = filled()
    rig.embedder.vectors_of = replace(SPEC, model_id="another")
    response = ask(rig.app(), "POST", UPLOAD, content=picture(1, 0))
    assert (response.status_code, error_of(response)["code"]) == (503, "embedder_unavailable")
    assert "another--test" in error_of(response)["message"]


def test_an_unknown_tenant_is_refused_before_its_picture_is_embedded() -> None:
    """404, and the embedder was not asked: its fault is still waiting."""
    rig = filled()
    rig.embedder.faults.append(AssertionError("asked"))
    response = ask(rig.app(), "POST", "/v1/tenants/nobody/search/upload", content=picture(1, 0))
    assert (response.status_code, error_of(response)["code"]) == (404, "tenant_not_found")
    assert len(rig.embedder.faults) == 1


def test_a_body_that_does_not_come_is_given_up() -> None:
    """A sender that stops in the middle is answered 408, and its place is free again."""

    async def stuck() -> AsyncIterator[bytes]:
        yield b"\xff\xd8"
        await asyncio.Event().wait()

    app = filled().app(limits=Limits(max_uploads=1, deadline_s=0.05))
    response = ask(app, "POST", UPLOAD, content=stuck())
    assert (response.status_code, error_of(response)["code"]) == (408, "body_timeout")
    assert ask(app, "POST", UPLOAD, content=b"x").status_code == 422
