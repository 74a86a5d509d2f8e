"""The bench's table as a picture (extra `plots`)."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any


def plot_search(figures: Mapping[str, Any], file: Path) -> bool:
    """p50 and p95 of every shape, in the index and over HTTP, to `file`; False where matplotlib is not installed."""
    try:
        import matplotlib as mpl
    except ImportError:
        return False
    mpl.use("Agg")
    from matplotlib import pyplot

    rows = [row for row in figures["rows"] if row["clients"] == 1]
    labels = [f"{row['shape']} ({row['policy']}, {row['recall_at_10']:.3f})" for row in rows]
    figure, axes = pyplot.subplots(figsize=(9, 0.45 * len(rows) + 1.5))
    for offset, (start, name) in zip((-0.2, 0.2), (("index", "index"), ("http", "HTTP")), strict=True):
        places = [n + offset for n in range(len(rows))]
        axes.barh(places, [row[f"{start}_p95_ms"] for row in rows], 0.38, alpha=0.35, label=f"{name} p95")
        axes.barh(places, [row[f"{start}_p50_ms"] for row in rows], 0.38, label=f"{name} p50")
    axes.set_yticks(range(len(rows)), labels)
    axes.invert_yaxis()
    axes.set_xscale("log")
    axes.set_xlabel("milliseconds")
    axes.set_title(f"{figures['points']:,} points of {figures['dims']} floats; policy and recall@10")
    axes.legend()
    figure.tight_layout()
    figure.savefig(file, dpi=120)
    pyplot.close(figure)
    return True
