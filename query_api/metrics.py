"""What the API counts, on a registry that is passed in. No label grows with tenants or images."""

from __future__ import annotations

from prometheus_client import CollectorRegistry, Counter, Histogram

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

    def observe(self, kind: str, *, status: int, took_s: float) -> None:
        """One request came to its end."""
        self._seconds.labels(kind).observe(took_s)
        self._total.labels(kind, str(status)).inc()
