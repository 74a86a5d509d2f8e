"""What a worker counts: one catalogue, on a registry that is passed in. No label grows with tenants or images."""

from __future__ import annotations

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram

_SECONDS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.2, 0.4, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0)
"""From a queue hop to a decoder's time limit; 0.1, 0.2 and 0.4 s are the freshness budgets."""


class WorkerMetrics:
    """The worker's metrics; names carry the prefix ``lookalike_``, times are seconds."""

    def __init__(self, registry: CollectorRegistry) -> None:
        self.registry = registry
        self.events = Counter(
            "lookalike_events", "Finished events by lane and outcome", ["lane", "outcome"], registry=registry
        )
        self.stages = Histogram(
            "lookalike_stage_seconds",
            "Time per stage and event, waiting before it included",
            ["stage"],
            buckets=_SECONDS,
            registry=registry,
        )
        self.freshness = Histogram(
            "lookalike_freshness_seconds",
            "First publish to visible in the index",
            ["lane"],
            buckets=_SECONDS,
            registry=registry,
        )
        self.in_flight = Gauge("lookalike_in_flight", "Events in this worker's hands", registry=registry)
        self.dead_letters = Counter("lookalike_dead_letters", "Dead letters by reason", ["reason"], registry=registry)
        self.retries = Counter("lookalike_retries", "Tries that are repeated, by delay", ["delay"], registry=registry)
        self.paused = Gauge("lookalike_paused", "1 while a dependency is down", ["cause"], registry=registry)
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
        self._stage_children: dict[str, Histogram] = {}

    def stage(self, name: str) -> Histogram:
        """The stage's own series, looked up once."""
        child = self._stage_children.get(name)
        if child is None:
            child = self._stage_children[name] = self.stages.labels(name)
        return child
