"""Write docs/metrics.md from the catalogues: ``python -m lookalike.metrics_docs``. A test holds the file to it."""

from __future__ import annotations

import sys
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

from prometheus_client import CollectorRegistry
from prometheus_client.metrics_core import Metric
from prometheus_client.registry import Collector

from embedder.index.metrics import IndexMetrics
from embedder.metrics import WorkerMetrics
from embedder.normalize.metrics import NormalizeMetrics
from query_api.metrics import QueryMetrics, tell_key_expiry
from streams.metrics import PulseMetrics

HEAD = """# Metrics

Every long-running process answers `/metrics` in Prometheus' text format: the API on its own port, the others where
`LOOKALIKE_WORKER_METRICS_PORT`, `LOOKALIKE_NORMALIZE_METRICS_PORT`, `LOOKALIKE_INDEX_METRICS_PORT` and
`LOOKALIKE_PULSE_METRICS_PORT` say; `lookalike up` gives each a port and writes DATA/prometheus.json. All of them also
tell the usual `process_*` (memory, CPU, file descriptors, start). Times are seconds, sizes bytes. No label grows with
tenants or images, but the pulse's `tenant`: the top ten, `_other` and `_unknown`.

This page is generated: `make docs`. What is drawn from these: `deploy/grafana/`; what pages somebody:
`deploy/prometheus/alerts.yml` and [runbooks](runbooks/README.md).
"""


@dataclass(frozen=True, slots=True)
class Described:
    """One metric as it is scraped: its series begin with `name`."""

    name: str
    kind: str
    labels: tuple[str, ...]
    meaning: str


def catalogues() -> Iterator[tuple[str, list[Described]]]:
    """Each process and what it tells."""
    worker, index, pulse, api, normalizer = (CollectorRegistry() for _ in range(5))
    WorkerMetrics(worker)
    IndexMetrics(index, folder=Path("/"))
    PulseMetrics(pulse, rows=list)
    QueryMetrics(api)
    tell_key_expiry(api, lambda: None)
    NormalizeMetrics(normalizer)
    for title, registry in (
        ("Worker", worker),
        ("Index", index),
        ("Pulse", pulse),
        ("API", api),
        ("Normalizer", normalizer),
    ):
        yield title, sorted(_described(registry), key=lambda one: one.name)


def known_series() -> frozenset[str]:
    """Every name that a series may have: what dashboards and alerts may ask for."""
    found: set[str] = set()
    for _, metrics in catalogues():
        for one in metrics:
            found.add(one.name)
            if one.kind == "histogram":
                found |= {f"{one.name}_bucket", f"{one.name}_sum", f"{one.name}_count"}
    return frozenset(found)


def _described(registry: CollectorRegistry) -> Iterator[Described]:
    for collector in list(registry._collector_to_names):  # noqa: SLF001 - the client tells its collectors nowhere else
        for family in _families(collector):
            name = family.name + ("_total" if family.type == "counter" else "")
            yield Described(name, family.type, _labels(collector, family), family.documentation)


def _families(collector: Collector) -> Iterable[Metric]:
    describe = getattr(collector, "describe", None)
    return describe() if describe is not None else collector.collect()


def _labels(collector: Collector, family: Metric) -> tuple[str, ...]:
    """A family made by hand has its labels, a client's own metric has them itself."""
    by_hand: Iterable[str] = getattr(family, "_labelnames", None) or ()
    own: Iterable[str] = getattr(collector, "_labelnames", ())
    return tuple(by_hand) or tuple(own)


def render() -> str:
    """The whole page."""
    parts = [HEAD]
    for title, metrics in catalogues():
        parts.append(f"\n## {title}\n\n| metric | kind | labels | meaning |\n|---|---|---|---|")
        parts += [
            f"| `{one.name}` | {one.kind} | {', '.join(f'`{label}`' for label in one.labels) or '–'} | {one.meaning} |"
            for one in metrics
        ]
    return "\n".join(parts) + "\n"


if __name__ == "__main__":
    sys.stdout.write(render())
