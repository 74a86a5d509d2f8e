"""What telling costs: the worker's metrics per event, the pulse's answer with many tenants."""

from __future__ import annotations

import statistics
import time
from typing import Any

from prometheus_client import CollectorRegistry, generate_latest

from embedder.metrics import WorkerMetrics
from streams.metrics import PulseMetrics
from streams.report.outcomes import OutcomeState
from streams.tenant_view import TenantView

STAGES = {"lookup": 0.001, "fetch": 0.002, "decode": 0.04, "embed": 0.03, "write": 0.02}
MAX_BATCH = 4


def telling(*, n_events: int, rounds: int) -> dict[str, Any]:
    """CPU microseconds per finished event, and milliseconds per answer of `/metrics` with 100 and 1,000 tenants.

    Per event: the counter, five stages and the freshness; the gauges and histograms of the poll thread and
    of a batch, as often as they come.
    """
    per_event = [_worker_us(n_events) for _ in range(rounds)]
    return {
        "worker_cpu_us_per_event": _spread(per_event),
        "events": n_events,
        "rounds": rounds,
        "pulse": {str(n): _pulse(n, rounds) for n in (100, 1_000)},
    }


def _worker_us(n_events: int) -> float:
    metrics = WorkerMetrics(CollectorRegistry())
    started = time.process_time()
    for number in range(n_events):
        metrics.finished.record("live", "indexed", STAGES, 0.1)
        if number % MAX_BATCH == 0:
            metrics.batch_size.observe(MAX_BATCH)
            metrics.poll_gap.observe(0.05)
            metrics.in_flight.labels("events").set(number)
    return (time.process_time() - started) / n_events * 1e6


def _pulse(n_tenants: int, rounds: int) -> dict[str, Any]:
    now = time.time()
    view = TenantView(clock=lambda: now)
    for number in range(n_tenants * 60):  # two events of each tenant in each slice
        at_ms = int((now - number % 900) * 1000)
        view.record_outcome(at_ms, f"tenant-{number % n_tenants}", OutcomeState.INDEXED, None, 0.1)
    registry = CollectorRegistry()
    PulseMetrics(registry, rows=lambda: view.figures({}))
    took_ms = []
    for _ in range(rounds * 4):
        started = time.perf_counter()
        text = generate_latest(registry)
        took_ms.append((time.perf_counter() - started) * 1e3)
    lines = [line for line in text.decode().splitlines() if not line.startswith("#")]
    return {"answer_ms": _spread(took_ms), "series": len(lines)}


def _spread(values: list[float]) -> dict[str, float]:
    return {
        "median": round(statistics.median(values), 3),
        "min": round(min(values), 3),
        "max": round(max(values), 3),
    }
