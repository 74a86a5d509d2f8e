"""What a normalizer counts, on a registry that is passed in."""

from __future__ import annotations

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram

_SECONDS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0)


class NormalizeMetrics:
    """`result` is created, deleted (announced as such), ignored (no work), own (announced by who put it) or dead."""

    def __init__(self, registry: CollectorRegistry) -> None:
        self.registry = registry
        self.notifications = Counter(
            "lookalike_notifications", "Finished bucket notifications by result", ["result"], registry=registry
        )
        self.dead_letters = Counter("lookalike_dead_letters", "Dead letters by reason", ["reason"], registry=registry)
        self.heads = Histogram(
            "lookalike_head_seconds", "Time of one HEAD at the store", buckets=_SECONDS, registry=registry
        )
        self.in_flight = Gauge("lookalike_in_flight", "Notifications in this process's hands", registry=registry)
        self.paused = Gauge("lookalike_paused", "1 while a dependency is down", ["cause"], registry=registry)

    def set_paused(self, cause: str, down: bool) -> None:
        self.paused.labels(cause).set(int(down))
