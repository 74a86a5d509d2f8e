"""What the pulse tells: one catalogue, on a registry that is passed in.

The tenants' rows are made anew for each scrape from the top of the view: who leaves the top leaves the
metrics, and their number is the same for a hundred tenants and for a thousand.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence

from prometheus_client import CollectorRegistry, Counter, Gauge
from prometheus_client.core import GaugeMetricFamily
from prometheus_client.registry import Collector

from streams.report.outcomes import OutcomeState
from streams.tenant_view import TenantFigures

QUANTILES = (0.5, 0.95, 0.99)

Rows = Callable[[], Sequence[TenantFigures]]


class PulseMetrics:
    """The pulse's metrics; names carry the prefix ``lookalike_``, times are seconds."""

    def __init__(self, registry: CollectorRegistry, *, rows: Rows) -> None:
        """`rows` gives the tenants to show, a bounded number."""
        self.registry = registry
        self.lag = Gauge(
            "lookalike_consumer_lag",
            "Records that the workers' group has not finished",
            ["topic", "partition"],
            registry=registry,
        )
        self.oldest_age = Gauge(
            "lookalike_oldest_event_age_seconds",
            "Age of the oldest unfinished record, 0 where nothing waits",
            ["topic"],
            registry=registry,
        )
        self.retention = Gauge(
            "lookalike_topic_retention_seconds",
            "How long the broker keeps a record; absent: for ever",
            ["topic"],
            registry=registry,
        )
        self.answers = Gauge(
            "lookalike_dependency_up",
            "1 where the dependency answered when it was last asked",
            ["dependency"],
            registry=registry,
        )
        self.index_points = Gauge("lookalike_index_points", "Points by state", ["state"], registry=registry)
        self.index_tenants = Gauge("lookalike_index_tenants", "Tenants that have points", registry=registry)
        self.recall = Gauge(
            "lookalike_recall_at_10",
            "Share of the 10 exact neighbours that searches find, mean of the last 30 samples",
            registry=registry,
        )
        self.recall_samples = Counter(
            "lookalike_recall_samples", "Questions that were asked twice to measure recall", registry=registry
        )
        self.view_behind = Gauge(
            "lookalike_pulse_behind", "Records that the view per tenant has not read yet", registry=registry
        )
        self.view_complete = Gauge(
            "lookalike_pulse_complete", "1 once the view covers its whole window", registry=registry
        )
        self.recall.set(float("nan"))  # until the first sample, or an alert would take it for none found
        registry.register(_Tenants(rows))


class _Tenants(Collector):
    """The rows of the view as metrics."""

    def __init__(self, rows: Rows) -> None:
        self._rows = rows

    def describe(self) -> Iterable[GaugeMetricFamily]:
        """Their names, without asking the view."""
        return _families()

    def collect(self) -> Iterator[GaugeMetricFamily]:
        events, rate, failures, dead, freshness, backlog, done_in = families = _families()
        for row in self._rows():
            name = row.tenant_id
            rate.add_metric([name], row.recent_per_s)
            backlog.add_metric([name], row.backlog)
            if row.backlog_s is not None:
                done_in.add_metric([name], row.backlog_s)
            for state in OutcomeState:
                events.add_metric([name, state.value], row.counts.outcomes[state.value])
            failures.add_metric([name], row.counts.failures.total())
            dead.add_metric([name], row.counts.dead_letters.total())
            for quantile in QUANTILES:
                seconds = row.counts.freshness_s(quantile)
                if seconds is not None:
                    freshness.add_metric([name, str(quantile)], seconds)
        yield from families


def _families() -> tuple[GaugeMetricFamily, ...]:
    def family(name: str, help_: str, *labels: str) -> GaugeMetricFamily:
        return GaugeMetricFamily(f"lookalike_tenant_{name}", help_, labels=["tenant", *labels])

    window = "in the last 15 minutes, the top tenants and _other"
    return (
        family("events", f"Finished events by outcome {window}", "outcome"),
        family("events_per_second", "Finished events a second over the last two minutes"),
        family("failures", f"Events that failed for good {window}"),
        family("dead_letters", f"Dead letters {window}"),
        family("freshness_seconds", f"First publish to searchable {window}", "quantile"),
        family("backlog", "Events that wait, estimated from a sample of each partition's backlog"),
        family("backlog_done_seconds", "When the backlog will be done at the present rate; absent: not at all"),
    )
