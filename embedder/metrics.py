"""What a worker counts: one catalogue, on a registry that is passed in. No label grows with tenants or images."""

from __future__ import annotations

import threading
from bisect import bisect_left
from collections import Counter as Tally
from collections.abc import Iterable, Mapping, Sequence

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram
from prometheus_client.metrics_core import CounterMetricFamily, HistogramMetricFamily, Metric
from prometheus_client.registry import Collector

from streams.errors import Reason

_SECONDS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.2, 0.4, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0)
"""From a queue hop to a decoder's time limit; 0.1, 0.2 and 0.4 s are the freshness budgets."""


class WorkerMetrics:
    """The worker's metrics; names carry the prefix ``lookalike_``, times are seconds."""

    def __init__(self, registry: CollectorRegistry) -> None:
        self.registry = registry
        self.finished = FinishedEvents()
        registry.register(self.finished)
        self.in_flight = Gauge(
            "lookalike_in_flight",
            "In this worker's hands: events, bytes of their records, shunts, retries held until their time",
            ["kind"],
            registry=registry,
        )
        self.dead_letters = Counter("lookalike_dead_letters", "Dead letters by reason", ["reason"], registry=registry)
        for reason in Reason:  # a series that is born with its first hundred looks to Prometheus as if it had not grown
            self.dead_letters.labels(reason.value)
        self.breaker = Gauge(
            "lookalike_dead_letter_breaker", "1 while failures are held instead of dead-lettered", registry=registry
        )
        self.retries = Counter("lookalike_retries", "Tries that are repeated, by delay", ["delay"], registry=registry)
        self.shunted = Counter("lookalike_shunted", "Events moved from live to bulk", registry=registry)
        self.skipped = Counter("lookalike_skipped", "Records meant for another collection", registry=registry)
        self.lost_data = Counter(
            "lookalike_lost_data", "Partitions whose records were deleted before they were read", registry=registry
        )
        self.paused = Gauge("lookalike_paused", "1 while a dependency is down", ["cause"], registry=registry)
        self.swept = Counter("lookalike_tombstones_swept", "Tombstones removed by age", registry=registry)
        self.batch_size = Histogram(
            "lookalike_batch_size",
            "Pictures per forward pass",
            buckets=(1, 2, 4, 8, 16, 32, 64, 128, 256),
            registry=registry,
        )
        self.poll_gap = Histogram(
            "lookalike_poll_gap_seconds", "Time between two polls of the broker", buckets=_SECONDS, registry=registry
        )
        self.build_info = Gauge(
            "lookalike_build_info", "1, with what runs here", ["model", "engine", "collection"], registry=registry
        )


class _Buckets:
    """One histogram series."""

    __slots__ = ("counts", "total")

    def __init__(self) -> None:
        self.counts = [0] * (len(_SECONDS) + 1)
        self.total = 0.0

    def observe(self, value: float) -> None:
        self.counts[bisect_left(_SECONDS, value)] += 1
        self.total += value

    def cumulative(self) -> list[tuple[str, float]]:
        below, found = 0, []
        for bound, count in zip([*map(str, _SECONDS), "+Inf"], self.counts, strict=True):
            below += count
            found.append((bound, float(below)))
        return found


class FinishedEvents(Collector):
    """Every finished event: by lane and outcome, the time in each stage, its freshness. Thread-safe.

    A collector of its own, because an event touches seven series: one lock instead of seven.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self.total = 0
        """All of them, whatever became of them."""
        self._events: Tally[tuple[str, str]] = Tally()
        self._stages: dict[str, _Buckets] = {}
        self._freshness: dict[str, _Buckets] = {}

    def record(self, lane: str, outcome: str, stage_s: Mapping[str, float], freshness_s: float | None) -> None:
        """Count one event."""
        with self._lock:
            self.total += 1
            self._events[lane, outcome] += 1
            for stage, seconds in stage_s.items():
                series = self._stages.get(stage)
                if series is None:
                    series = self._stages[stage] = _Buckets()
                series.observe(seconds)
            if freshness_s is not None:
                self._freshness.setdefault(lane, _Buckets()).observe(freshness_s)

    def collect(self) -> Iterable[Metric]:
        with self._lock:
            events = CounterMetricFamily(
                "lookalike_events", "Finished events by lane and outcome", labels=["lane", "outcome"]
            )
            for (lane, outcome), n in self._events.items():
                events.add_metric([lane, outcome], n)
            return [
                events,
                _histogram(
                    "lookalike_stage_seconds",
                    "Time per stage and event, waiting before it included",
                    "stage",
                    self._stages,
                ),
                _histogram(
                    "lookalike_freshness_seconds", "First publish to visible in the index", "lane", self._freshness
                ),
            ]


def _histogram(name: str, documentation: str, label: str, series: Mapping[str, _Buckets]) -> Metric:
    family = HistogramMetricFamily(name, documentation, labels=[label])
    for value, one in series.items():
        buckets: Sequence[tuple[str, float]] = one.cumulative()
        family.add_metric([value], buckets, one.total)
    return family
