"""The picture of `bench embed`: speed against the seed's way, and what it costs."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any


def plot(figures: Mapping[str, Any], path: Path) -> bool:
    """Bars of the JPEG rows, each with its least cosine; False where matplotlib (extra `plots`) is not installed."""
    try:
        import matplotlib as mpl
    except ImportError:
        return False
    mpl.use("Agg")
    from matplotlib import pyplot

    rows = [row for row in figures["rows"] if row["format"] == "jpeg"]
    rows.sort(key=lambda row: row["images_per_s_per_core"])
    shown, axes = pyplot.subplots(figsize=(9, 0.45 * len(rows) + 1.6))
    bars = axes.barh([row["name"] for row in rows], [row["images_per_s_per_core"] for row in rows], color="#4878a8")
    for bar, row in zip(bars, rows, strict=True):
        cosine = "" if row["cosine_min"] is None else f", cosine ≥ {row['cosine_min']:.4f}"
        axes.annotate(
            f" {row['ratio_to_seed']:.2f}×{cosine}",
            (bar.get_width(), bar.get_y() + bar.get_height() / 2),
            va="center",
            fontsize=8,
        )
    axes.set_xlabel("2.5-megapixel JPEG, images/s on one core")
    axes.set_xlim(0, max(row["images_per_s_per_core"] for row in rows) * 1.35)
    axes.set_title(figures["device"], fontsize=8)
    shown.tight_layout()
    shown.savefig(path, dpi=120)
    pyplot.close(shown)
    return True
