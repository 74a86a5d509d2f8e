"""Figures as benches report them: percentiles, and one JSON object kept beside the build."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path


def percentile(values: Sequence[float], share: float) -> float:
    """The smallest value that at least `share` (0 to 1) of `values` do not exceed (nearest rank)."""
    if not values:
        raise ValueError("no values")
    ordered = sorted(values)
    rank = max(1, -(-len(ordered) * round(share * 10_000) // 10_000))
    return ordered[min(len(ordered), rank) - 1]


def keep(name: str, figures: Mapping[str, object], *, folder: Path = Path("build")) -> str:
    """The figures as one line of JSON, kept as ``build/bench-NAME.json`` too."""
    line = json.dumps(figures)
    folder.mkdir(parents=True, exist_ok=True)
    (folder / f"bench-{name}.json").write_text(line + "\n")
    return line
