"""What the API counts, on a registry that is passed in. No label grows with tenants or images."""

from __future__ import annotations

from collections.abc import Callable, Iterable

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram
from prometheus_client.core import GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

_SECONDS = (0.001, 0.002, 0.003, 0.006, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0)
"""3 and 6 ms are the budgets of a search over HTTP."""


class QueryMetrics:
    """Requests by kind (the operation's name; `other` where no route matched)."""

    def __init__(self, registry: CollectorRegistry) -> None:
        self.registry = registry
        self._seconds = Histogram(
            "lookalike_query_seconds", "Time per request, by kind", ["kind"], buckets=_SECONDS, registry=registry
        )
        self._total = Counter("lookalike_query", "Requests by kind and status", ["kind", "status"], registry=registry)

        self._lag = Gauge(
            "lookalike_query_loop_lag_seconds", "Latest wake-up of the event loop within a minute", registry=registry
        )

    def tell_loop_lag(self, worst_s: Callable[[], float]) -> None:
        """Ask for it when it is scraped."""
        self._lag.set_function(worst_s)

    def observe(self, kind: str, *, status: int, took_s: float) -> None:
        """One request came to its end."""
        self._seconds.labels(kind).observe(took_s)
        self._total.labels(kind, str(status)).inc()


def tell_key_expiry(registry: CollectorRegistry, next_expiry: Callable[[], float | None]) -> None:
    """Tell when the access key that expires next does; asked when it is scraped."""
    registry.register(_KeyExpiry(next_expiry))


class _KeyExpiry(Collector):
    def __init__(self, next_expiry: Callable[[], float | None]) -> None:
        self._next_expiry = next_expiry

    def describe(self) -> Iterable[Metric]:
        return [self._family()]

    def collect(self) -> Iterable[Metric]:
        family, at = self._family(), self._next_expiry()
        if at is not None:
            family.add_metric([], at)
        return [family]

    def _family(self) -> GaugeMetricFamily:
        return GaugeMetricFamily(
            "lookalike_access_key_expiry_timestamp_seconds",
            "When the access key that expires next does; absent where none will",
        )
