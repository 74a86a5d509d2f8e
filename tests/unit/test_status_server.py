"""What a process tells about itself over HTTP: metrics, health, readiness, and nothing else."""

from __future__ import annotations

import json
import urllib.error
import urllib.request
from collections.abc import Iterator

import pytest

from embedder.metrics import WorkerMetrics
from streams.checks import Checks
from streams.errors import ConfigError, DependencyError, Reason
from streams.status_server import StatusServer, process_registry


class State:
    """What a test says of the process."""

    alive = True
    down: str | None = None

    def check(self) -> None:
        if self.down:
            raise DependencyError("index", self.down)


@pytest.fixture
def state() -> State:
    return State()


@pytest.fixture
def server(state: State) -> Iterator[StatusServer]:
    checks = Checks({"index": state.check})
    with StatusServer(
        "127.0.0.1",
        0,
        registry=process_registry(),
        health=lambda: (state.alive, {"poll_gap_s": 0.1}),
        ready=checks.ask,
        pages={"/pulse": lambda: {"answer": 42}},
    ) as started:
        yield started


def get(server: StatusServer, path: str) -> tuple[int, str]:
    try:
        with urllib.request.urlopen(server.url + path, timeout=10) as answer:
            return answer.status, answer.read().decode()
    except urllib.error.HTTPError as exc:
        return exc.code, exc.read().decode()


def test_metrics_tell_the_process_too(server: StatusServer) -> None:
    """Memory and start time are there: a restart is seen in them."""
    status, text = get(server, "/metrics?name[]=ignored")
    assert status == 200
    assert "process_start_time_seconds " in text
    assert "process_resident_memory_bytes " in text


def test_health_is_503_where_the_process_does_not_move(server: StatusServer, state: State) -> None:
    """The body says why in both cases."""
    assert get(server, "/healthz") == (200, '{"status":"ok","poll_gap_s":0.1}')
    state.alive = False
    assert get(server, "/healthz") == (503, '{"status":"failed","poll_gap_s":0.1}')


def test_readiness_names_each_dependency_with_its_last_error(server: StatusServer, state: State) -> None:
    """Also when it has recovered: a flapping one shows."""
    state.down = "no such socket"
    status, text = get(server, "/readyz")
    assert status == 503
    assert json.loads(text)["dependencies"]["index"]["last_error"] == "no such socket"
    state.down = None
    status, text = get(server, "/readyz")
    found = json.loads(text)["dependencies"]["index"]
    assert status == 200
    assert (found["state"], found["last_error"]) == ("ok", "no such socket")
    assert found["latency_ms"] >= 0


def test_an_optional_dependency_is_shown_and_does_not_decide(state: State) -> None:
    """What a process can do without keeps it from no traffic."""
    state.down = "away"
    well, told = Checks({"index": state.check}, optional={"index"}).ask()
    assert well
    assert told["dependencies"]["index"]["state"] == "failed"


def test_a_worker_tells_what_it_counted() -> None:
    """The counter, stages and freshness of a finished event, in Prometheus' text."""
    metrics = WorkerMetrics(process_registry())
    metrics.finished.record("live", "indexed", {"fetch": 0.02, "write": 0.5}, 0.3)
    metrics.lost_data.inc()
    with StatusServer("127.0.0.1", 0, registry=metrics.registry) as server:
        status, text = get(server, "/metrics")
    assert status == 200
    assert 'lookalike_events_total{lane="live",outcome="indexed"} 1.0' in text
    assert 'lookalike_stage_seconds_bucket{le="0.025",stage="fetch"} 1.0' in text
    assert 'lookalike_freshness_seconds_count{lane="live"} 1.0' in text
    assert "lookalike_lost_data_total 1.0" in text
    zeros = [f'lookalike_dead_letters_total{{reason="{reason}"}} 0.0' in text for reason in Reason]
    assert all(zeros), "a burst must be seen from the first on"


def test_pages_are_json_and_other_paths_are_not_found(server: StatusServer) -> None:
    """No listing, no file, no traceback."""
    assert get(server, "/pulse") == (200, '{"answer":42}')
    assert get(server, "/../etc/passwd")[0] == 404


def test_a_taken_port_is_one_line_that_says_what_to_set(server: StatusServer) -> None:
    """Not a traceback of the socket module."""
    port = int(server.url.rpartition(":")[2])
    with pytest.raises(ConfigError, match="_METRICS_PORT"):
        StatusServer("127.0.0.1", port, registry=process_registry())
