"""A worker's own HTTP side: alive, ready, metrics."""

from __future__ import annotations

import threading
import urllib.error
import urllib.request

from prometheus_client import CollectorRegistry

from embedder.metrics import WorkerMetrics
from embedder.probes import Probes


def _get(port: int, path: str) -> tuple[int, str]:
    try:
        with urllib.request.urlopen(f"http://127.0.0.1:{port}{path}", timeout=10) as answer:
            return answer.status, answer.read().decode()
    except urllib.error.HTTPError as exc:
        return exc.code, exc.read().decode()


def test_three_paths_are_answered_and_readiness_follows_the_worker() -> None:
    """Alive is always yes, ready is what the worker says now, metrics are those of its registry."""
    metrics, ready = WorkerMetrics(CollectorRegistry()), threading.Event()
    metrics.finished.record("live", "indexed", {"fetch": 0.02, "write": 0.5}, 0.3)
    metrics.lost_data.inc()
    with Probes("127.0.0.1", 0, registry=metrics.registry, ready=ready.is_set) as probes:
        assert _get(probes.port, "/healthz")[0] == 200
        assert _get(probes.port, "/readyz")[0] == 503
        ready.set()
        assert _get(probes.port, "/readyz")[0] == 200
        status, text = _get(probes.port, "/metrics")
        assert _get(probes.port, "/elsewhere")[0] == 404
    assert status == 200
    assert 'lookalike_events_total{lane="live",outcome="indexed"} 1.0' in text
    assert 'lookalike_stage_seconds_bucket{le="0.025",stage="fetch"} 1.0' in text
    assert 'lookalike_freshness_seconds_count{lane="live"} 1.0' in text
    assert "lookalike_lost_data_total 1.0" in text
