"""What operators ask of the API: ready, metrics, the page's headers."""

from __future__ import annotations

import asyncio
import time
from collections import deque
from dataclasses import replace

import pytest
from prometheus_client.parser import text_string_to_metric_families

from query_api.app import create_app
from query_api.loop_lag import KEPT, LOOK_EVERY_S, LoopLag
from streams.errors import DependencyError
from tests.api_rig import TENANT, filled, get


def test_ready_asks_every_dependency() -> None:
    """With everything well each is `ok`, with its latency and no error."""
    response = get(create_app(replace(filled(1, 1).deps(), checks={"broker": lambda: None})), "/readyz")
    body = response.json()
    assert (response.status_code, body["status"]) == (200, "ready")
    assert set(body["dependencies"]) == {"index", "objects", "embedder", "broker"}
    for told in body["dependencies"].values():
        assert told["state"] == "ok"
        assert told["latency_ms"] >= 0
        assert told["last_error"] is None


@pytest.mark.parametrize("name", ["broker", "objects"])
def test_one_dependency_that_is_down_makes_it_not_ready(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """503 names it and its error; once it is back the error is still told, with its age."""
    rig = filled(1, 1)
    faults: deque[Exception] = deque([DependencyError(name, "no answer")])

    def check(*_: object) -> None:
        if faults:
            raise faults.popleft()

    if name == "objects":
        monkeypatch.setattr(rig.objects, "check", check)
    app = create_app(replace(rig.deps(), checks={"broker": check if name == "broker" else lambda: None}))
    down = get(app, "/readyz")
    assert (down.status_code, down.json()["status"]) == (503, "not_ready")
    assert down.json()["dependencies"][name]["state"] == "failed"
    assert down.json()["dependencies"]["index"]["state"] == "ok"
    up = get(app, "/readyz")
    assert up.status_code == 200
    told = up.json()["dependencies"][name]
    assert (told["state"], told["last_error"]) == ("ok", "no answer")
    assert told["last_error_s_ago"] >= 0


def test_an_embedder_that_is_loading_is_shown_and_does_not_decide() -> None:
    """Lists and look-alikes work without it."""
    rig = filled(1, 1)
    rig.embedder.faults.append(DependencyError("embedder", "loading"))
    response = get(rig.app(), "/readyz")
    told = response.json()["dependencies"]["embedder"]
    assert response.status_code == 200
    assert (told["state"], told["required"], told["last_error"]) == ("failed", False, "loading")


def test_requests_are_counted_by_kind_and_status() -> None:
    """Also those that no route answers; no label carries a tenant or an image."""
    rig = filled(1, 1)
    app = rig.app()
    images = f"/v1/tenants/{TENANT}/images"
    for path in (images, images, images + "/absent", "/nowhere", images + "/f0-m0/similar"):
        get(app, path)
    families = {family.name: family for family in text_string_to_metric_families(get(app, "/metrics").text)}
    counted = {
        (sample.labels["kind"], sample.labels["status"]): sample.value
        for sample in families["lookalike_query"].samples
        if sample.name == "lookalike_query_total"
    }
    assert counted == {("list", "200"): 2, ("status", "404"): 1, ("other", "404"): 1, ("similar", "200"): 1}
    timed = {s.labels["kind"]: s.value for s in families["lookalike_query_seconds"].samples if s.name.endswith("count")}
    assert timed == {"list": 2, "status": 1, "other": 1, "similar": 1}


def test_the_embedder_lives_as_long_as_the_app() -> None:
    """The lifespan starts it and closes it."""
    rig = filled(1, 1)
    app = rig.app()
    assert get(app, "/healthz").json()["status"] == "ok"
    assert rig.embedder.running is False
    rig.embedder.close = lambda: None  # type: ignore[method-assign]
    get(app, "/healthz")
    assert rig.embedder.running is True


def test_a_loop_that_is_held_shows_in_health_and_metrics() -> None:
    """How late the loop was woken, at worst, is told; a loop that nothing holds is woken in time."""
    clock = [100.0]
    lag = LoopLag(lambda: clock[0])
    assert lag.worst_s == 0.0
    lag.woken(due=99.75)
    lag.woken(due=100.5)
    assert lag.worst_s == 0.25
    for _ in range(KEPT):
        lag.woken(due=100.0)
    assert lag.worst_s == 0.0, "a minute later it is forgotten"


def test_the_watch_notices_a_callback_that_blocks() -> None:
    """The real loop, held by a callback for longer than a look takes."""
    lag = LoopLag()

    async def held() -> None:
        async with lag.watching():
            await asyncio.sleep(0)  # the watch waits now
            time.sleep(2 * LOOK_EVERY_S)  # what is to be noticed
            while lag.worst_s == 0.0:
                await asyncio.sleep(0.01)

    asyncio.run(asyncio.wait_for(held(), 30))
    assert lag.worst_s > 0.5 * LOOK_EVERY_S


def test_the_page_escapes_the_tenant_and_allows_no_inline_script() -> None:
    """What the address says is text; scripts and styles come from this address only."""
    response = get(filled(1, 1).app(), "/?tenant=%22%3E%3Cscript%3Ealert(1)%3C/script%3E")
    assert response.status_code == 200
    assert "<script>alert" not in response.text
    assert "&lt;script&gt;" in response.text
    policy = response.headers["content-security-policy"]
    assert "default-src 'none'" in policy
    assert "script-src 'self'" in policy
    assert "unsafe" not in policy


@pytest.mark.parametrize(
    ("path", "media_type"), [("page.js", "text/javascript"), ("page.css", "text/css"), ("icon.svg", "image/svg+xml")]
)
def test_assets_have_their_type_and_are_asked_for_again(path: str, media_type: str) -> None:
    """nosniff with the right type; an unchanged one is 304."""
    app = filled(1, 1).app()
    response = get(app, f"/static/{path}")
    assert response.headers["content-type"].startswith(media_type)
    assert response.headers["x-content-type-options"] == "nosniff"
    assert get(app, f"/static/{path}", headers={"If-None-Match": response.headers["etag"]}).status_code == 304
