"""The dashboards as code: ``python deploy/grafana/dashboards.py`` writes deploy/grafana/dashboards/*.json.

A test holds the files to this one, and asks a real Prometheus every expression while everything runs.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from grafana_foundation_sdk.builders import common, prometheus, stat, timeseries
from grafana_foundation_sdk.builders import dashboard as dashboards
from grafana_foundation_sdk.cog.encoder import JSONEncoder
from grafana_foundation_sdk.models.dashboard import DataSourceRef

FOLDER = Path(__file__).parent / "dashboards"
SOURCE = DataSourceRef(type_val="prometheus", uid="prometheus")
R = "$__rate_interval"
LANES = 'topic=~".*images[.](live|bulk)"'
"""What waits here, waits for a worker; in the retry topics it waits for its time."""


@dataclass(frozen=True, slots=True)
class Panel:
    """One panel: (expression, legend) pairs, or a single number where `number` is set. Width of 24."""

    title: str
    meaning: str
    queries: Sequence[tuple[str, str]]
    unit: str = "short"
    width: int = 8
    number: bool = False


def quantiles(metric: str, *by: str, of: Sequence[float] = (0.5, 0.95, 0.99), where: str = "") -> list[tuple[str, str]]:
    """The usual quantiles of a histogram."""
    labels = ", ".join((*by, "le"))
    legend = " ".join(f"{{{{{label}}}}}" for label in by)
    return [
        (f"histogram_quantile({q}, sum by ({labels}) (rate({metric}_bucket{where}[{R}])))", f"p{q * 100:g} {legend}")
        for q in of
    ]


WATERMARK = f"sum(lookalike_consumer_lag{{{LANES}}})"
FINISHED = f"sum(rate(lookalike_events_total[{R}]))"

OVERVIEW = [
    Panel("Finished events", "Everything that came to an end, whatever the end", [(FINISHED, "")], "ops", 6, True),
    Panel("Waiting", "Records in live and bulk that no worker has finished", [(WATERMARK, "")], "short", 6, True),
    Panel(
        "Drained in",
        "What waits, at the rate of now",
        [(f"{WATERMARK} / clamp_min({FINISHED}, 0.001)", "")],
        "s",
        6,
        True,
    ),
    Panel(
        "Recall@10",
        "Share of the exact neighbours that searches find, sampled once a minute",
        [("lookalike_recall_at_10", "")],
        "percentunit",
        6,
        True,
    ),
    Panel(
        "Throughput",
        "Finished events by outcome",
        [(f"sum by (outcome) (rate(lookalike_events_total[{R}]))", "{{outcome}}")],
        "ops",
    ),
    Panel(
        "Freshness of live events",
        "First publish to searchable",
        quantiles("lookalike_freshness_seconds", where='{lane="live"}'),
        "s",
    ),
    Panel("Lag", "Unfinished records by topic", [("sum by (topic) (lookalike_consumer_lag)", "{{topic}}")], width=8),
    Panel(
        "Oldest waiting event",
        "Its age, and half of what the broker keeps: above it events are about to be lost",
        [
            ("max by (topic) (lookalike_oldest_event_age_seconds)", "{{topic}}"),
            (f"min(lookalike_topic_retention_seconds{{{LANES}}}) / 2", "half of retention"),
        ],
        "s",
    ),
    Panel(
        "Failures",
        "Dead letters by reason",
        [(f"sum by (reason) (rate(lookalike_dead_letters_total[{R}])) or vector(0)", "{{reason}}")],
        "ops",
    ),
    Panel(
        "Queries",
        "Requests to the API by kind",
        [(f"sum by (kind) (rate(lookalike_query_total[{R}]))", "{{kind}}")],
        "reqps",
    ),
    Panel(
        "Dependencies",
        "1 where it answered the pulse; what workers wait for",
        [
            ("min by (dependency) (lookalike_dependency_up)", "{{dependency}} answers"),
            ("max by (cause) (lookalike_paused) or vector(0)", "paused {{cause}}"),
        ],
    ),
    Panel(
        "Processes",
        "Which answer Prometheus",
        [('sum by (job) (up{job=~"lookalike-.*"})', "{{job}}")],
    ),
]

WORKER = [
    Panel(
        "Throughput by worker",
        "Finished events",
        [(f"sum by (instance) (rate(lookalike_events_total[{R}]))", "{{instance}}")],
        "ops",
    ),
    Panel(
        "Time by stage",
        "95th percentile, waiting before the stage included",
        quantiles("lookalike_stage_seconds", "stage", of=(0.95,)),
        "s",
    ),
    Panel(
        "In hand", "Events, records' bytes, shunts, held retries", [("sum by (kind) (lookalike_in_flight)", "{{kind}}")]
    ),
    Panel(
        "Pictures a batch",
        "Mean; 1 when idle",
        [(f"sum(rate(lookalike_batch_size_sum[{R}])) / sum(rate(lookalike_batch_size_count[{R}]))", "mean")],
    ),
    Panel(
        "Poll gap",
        "Time between two polls of the broker; the group throws out who is silent for minutes",
        quantiles("lookalike_poll_gap_seconds", of=(0.99,)),
        "s",
    ),
    Panel(
        "Retries and shunts",
        "Tries that are repeated, by delay; events of a flooding tenant moved to bulk",
        [
            (f"sum by (delay) (rate(lookalike_retries_total[{R}])) or vector(0)", "retry {{delay}}"),
            (f"sum(rate(lookalike_shunted_total[{R}]))", "shunted"),
        ],
        "ops",
    ),
    Panel(
        "Paused",
        "What workers wait for; the open breaker",
        [
            ("max by (cause, instance) (lookalike_paused) or vector(0)", "{{cause}} {{instance}}"),
            ("max(lookalike_dead_letter_breaker)", "dead-letter breaker"),
        ],
    ),
    Panel(
        "Memory",
        "Resident",
        [('process_resident_memory_bytes{job="lookalike-worker"}', "{{instance}}")],
        "bytes",
    ),
    Panel(
        "CPU",
        "Cores; decoders not included",
        [(f'rate(process_cpu_seconds_total{{job="lookalike-worker"}}[{R}])', "{{instance}}")],
    ),
    Panel(
        "What runs",
        "Workers by collection and engine",
        [("count by (collection, engine) (lookalike_build_info)", "{{collection}} {{engine}}")],
    ),
]

INDEX = [
    Panel("Points", "By state", [("sum by (state) (lookalike_index_points)", "{{state}}")]),
    Panel("Tenants", "That have points", [("max(lookalike_index_tenants)", "tenants")]),
    Panel("Recall@10", "Mean of the last 30 samples", [("lookalike_recall_at_10", "recall")], "percentunit"),
    Panel(
        "Requests",
        "By operation",
        [(f"sum by (operation) (rate(lookalike_index_requests_total[{R}]))", "{{operation}}")],
        "reqps",
    ),
    Panel(
        "Time by operation",
        "95th percentile inside the index",
        quantiles("lookalike_index_request_seconds", "operation", of=(0.95,)),
        "s",
    ),
    Panel(
        "Failed requests",
        "Also the caller's mistakes",
        [(f'sum by (operation) (rate(lookalike_index_requests_total{{result="failed"}}[{R}])) or vector(0)', "")],
        "reqps",
    ),
    Panel("Flush", "Searches wait meanwhile", quantiles("lookalike_index_flush_seconds", of=(0.5, 0.99)), "s"),
    Panel("Maintenance", "Searches wait meanwhile", quantiles("lookalike_index_maintenance_seconds", of=(0.99,)), "s"),
    Panel(
        "Room on the disk",
        "Free share",
        [("lookalike_index_disk_free_bytes / lookalike_index_disk_size_bytes", "{{instance}}")],
        "percentunit",
    ),
    Panel(
        "Memory",
        "Resident: of the process that answers, of those that hold the vectors",
        [
            ('process_resident_memory_bytes{job="lookalike-index"}', "{{instance}}"),
            ("lookalike_index_holders_resident_bytes", "{{instance}} vectors"),
        ],
        "bytes",
    ),
]

_REQUESTS = f"rate(lookalike_query_total[{R}])"
API = [
    Panel(
        "Requests",
        "By kind and status",
        [(f"sum by (kind, status) (rate(lookalike_query_total[{R}]))", "{{kind}} {{status}}")],
        "reqps",
    ),
    Panel("Time by kind", "95th percentile", quantiles("lookalike_query_seconds", "kind", of=(0.95,)), "s"),
    Panel(
        "Searches",
        "All ways of asking what is alike",
        quantiles("lookalike_query_seconds", where='{kind=~"similar|search.*"}'),
        "s",
    ),
    Panel(
        "Server errors",
        "Share of 5xx",
        [
            (
                f'(sum(rate(lookalike_query_total{{status=~"5.."}}[{R}])) or vector(0)) / sum({_REQUESTS})',
                "5xx",
            )
        ],
        "percentunit",
    ),
    Panel(
        "Refused",
        "429: too many at once; 401 and 403: who may not",
        [(f'sum by (status) (rate(lookalike_query_total{{status=~"401|403|429"}}[{R}])) or vector(0)', "{{status}}")],
        "reqps",
    ),
    Panel("Memory", "Resident", [('process_resident_memory_bytes{job="lookalike-api"}', "{{instance}}")], "bytes"),
]

TENANTS = [
    Panel(
        "Events a second",
        "Finished in the last two minutes; the ten busiest, all others together",
        [("lookalike_tenant_events_per_second", "{{tenant}}")],
        "ops",
        12,
    ),
    Panel("Waiting", "Estimated from a sample of the lanes", [("lookalike_tenant_backlog", "{{tenant}}")], width=12),
    Panel(
        "Done in",
        "What waits, at the rate of the last two minutes",
        [("lookalike_tenant_backlog_done_seconds", "{{tenant}}")],
        "s",
        12,
    ),
    Panel(
        "Freshness",
        "95th percentile over 15 minutes",
        [('lookalike_tenant_freshness_seconds{quantile="0.95"}', "{{tenant}}")],
        "s",
        12,
    ),
    Panel("Failed for good", "In 15 minutes", [("lookalike_tenant_failures", "{{tenant}}")], width=12),
    Panel("Dead letters", "In 15 minutes", [("lookalike_tenant_dead_letters", "{{tenant}}")], width=12),
]

ALL = {"overview": OVERVIEW, "worker": WORKER, "index": INDEX, "api": API, "tenants": TENANTS}


def render(name: str) -> str:
    """The JSON of one dashboard, as Grafana reads it."""
    board = (
        dashboards.Dashboard(f"lookalike: {name}")
        .uid(f"lookalike-{name}")
        .tags(["lookalike"])
        .refresh("30s")
        .time("now-1h", "now")
        .timezone("browser")
        .readonly()
    )
    for panel in ALL[name]:
        board = board.with_panel(_built(panel))
    return json.dumps(json.loads(JSONEncoder(sort_keys=True, indent=1).encode(board.build())), indent=1) + "\n"


def _built(panel: Panel) -> timeseries.Panel | stat.Panel:
    kind: timeseries.Panel | stat.Panel = stat.Panel()
    if not panel.number:
        kind = timeseries.Panel().legend(common.VizLegendOptions().show_legend(True))
    kind = kind.title(panel.title).description(panel.meaning).datasource(SOURCE).unit(panel.unit)
    kind = kind.span(panel.width).height(4 if panel.number else 8)
    for number, (expression, legend) in enumerate(panel.queries):
        query = prometheus.Dataquery().expr(expression).legend_format(legend or "__auto").ref_id(chr(65 + number))
        kind = kind.with_target(query)
    return kind


def main() -> None:
    """Write all of them."""
    FOLDER.mkdir(exist_ok=True)
    for name in ALL:
        (FOLDER / f"{name}.json").write_text(render(name))


if __name__ == "__main__":
    main()
