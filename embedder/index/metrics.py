"""What the index process tells: one catalogue, on a registry that is passed in."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterable, Iterator
from pathlib import Path

from prometheus_client import CollectorRegistry, Counter, Histogram
from prometheus_client.core import GaugeMetricFamily
from prometheus_client.registry import Collector

_SECONDS = (0.0001, 0.00025, 0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.2, 0.5, 1.0, 2.5, 5.0, 10.0)
"""1 ms is the budget of a search in the index, 0.2 s that of the longest stall of any maintenance."""


class IndexMetrics:
    """The index process's metrics; names carry the prefix ``lookalike_``, times are seconds."""

    def __init__(self, registry: CollectorRegistry, *, folder: Path | None = None) -> None:
        """`folder` is where the index keeps its files: the room on its disk is told."""
        self.registry = registry
        self._requests = Counter(
            "lookalike_index_requests", "Requests by operation and result", ["operation", "result"], registry=registry
        )
        self._seconds = Histogram(
            "lookalike_index_request_seconds",
            "Time inside the index, behind the questions before it included, waiting for a flush not",
            ["operation"],
            buckets=_SECONDS,
            registry=registry,
        )
        self.flush = Histogram(
            "lookalike_index_flush_seconds",
            "Making writes durable; searches wait meanwhile",
            buckets=_SECONDS,
            registry=registry,
        )
        self.maintenance = Histogram(
            "lookalike_index_maintenance_seconds",
            "A round of maintenance; searches wait meanwhile",
            buckets=_SECONDS,
            registry=registry,
        )
        registry.register(_Holders())
        if folder is not None:
            registry.register(_Disk(folder))

    def observe(self, operation: str, result: str, took_s: float) -> None:
        """One request was answered; an operation that is none of ours counts as `other`."""
        name = operation if operation in OPERATIONS else "other"
        self._requests.labels(name, result).inc()
        self._seconds.labels(name).observe(took_s)


OPERATIONS = frozenset(
    {
        *("ping", "ensure", "write", "delete_tenant", "flush", "read", "get", "search", "search_batch", "facet"),
        *("list", "count", "spec", "stats", "tenant_stats", "sample"),
    }
)
"""What a client may ask for: a label must not be what somebody sends."""


class _Holders(Collector):
    """The processes that hold the vectors, or optimise a copy of them, are children of this one."""

    def describe(self) -> Iterable[GaugeMetricFamily]:
        return (_resident(),)

    def collect(self) -> Iterator[GaugeMetricFamily]:
        family = _resident()
        family.add_metric([], sum(map(_resident_bytes, _children())))
        yield family


def _children() -> list[str]:
    try:
        return Path(f"/proc/self/task/{os.getpid()}/children").read_text().split()
    except FileNotFoundError:
        return []  # a kernel that does not tell (CONFIG_PROC_CHILDREN)


def _resident_bytes(pid: str) -> int:
    try:
        return int(Path(f"/proc/{pid}/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")
    except (FileNotFoundError, ProcessLookupError):
        return 0  # it ended meanwhile


def _resident() -> GaugeMetricFamily:
    return GaugeMetricFamily(
        "lookalike_index_holders_resident_bytes",
        "Resident memory of the processes that hold the vectors, and of those that optimise a copy",
    )


class _Disk(Collector):
    """Asked when it is scraped."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def describe(self) -> Iterable[GaugeMetricFamily]:
        return _families()

    def collect(self) -> Iterator[GaugeMetricFamily]:
        free, size = _families()
        usage = shutil.disk_usage(self._folder)
        free.add_metric([], usage.free)
        size.add_metric([], usage.total)
        yield from (free, size)


def _families() -> tuple[GaugeMetricFamily, GaugeMetricFamily]:
    return (
        GaugeMetricFamily("lookalike_index_disk_free_bytes", "Room left on the disk that holds the index"),
        GaugeMetricFamily("lookalike_index_disk_size_bytes", "Size of the disk that holds the index"),
    )
