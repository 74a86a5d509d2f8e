"""How a search is run, as a pure function of what is known before it (figures: docs/index.md)."""

from __future__ import annotations

from dataclasses import dataclass

HNSW_EF = 128
OVERSAMPLING = 2.0
"""Always rescored with the originals: quantized scores alone lose up to 5 of 100 neighbours."""
FULL_SCAN_THRESHOLD_KB = 130_000
"""About 26,000 vectors of 1280 floats. Below it the engine scans instead of walking the graph; what lies
near or above it with a filter must be searched exactly."""
EXACT_UP_TO = 1_000
"""A tenant this small is compared row by row: 0.3 ms per 1,000 points, no graph to be wrong about."""
EXACT_FILTERED_FROM = 10_000
"""What a filter leaves, from here on: well below the threshold, which the engine's own estimate decides on."""


@dataclass(frozen=True, slots=True)
class Policy:
    """What to ask the engine for."""

    exact: bool
    hnsw_ef: int = HNSW_EF
    oversampling: float = OVERSAMPLING


def choose(estimated_points: int, *, filtered: bool = False) -> Policy:
    """The policy for a search over about so many points: one tenant whole, or what a filter leaves of it.

    The tenant's own graph holds recall at any size; a small set is exact because that is as quick; a
    filtered set that the engine would not scan is exact because the graph loses what it cannot reach.
    """
    return Policy(exact=estimated_points <= EXACT_UP_TO or (filtered and estimated_points >= EXACT_FILTERED_FROM))
