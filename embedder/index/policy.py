"""How a search is run, as pure functions of what is known before it: one per engine (figures: docs/index.md).

An engine has three ways to search, and only two of them are always right:

* compare every candidate with its full vector (`exact`);
* scan the short codes of every candidate and compare the best again in full: a third of that time or less;
* walk the tenant's graph: the quickest, and wrong without a word where a filter cuts the graph to pieces.

The engine itself chooses between the last two, by its own estimate against `full_scan_threshold`. So a
search without a filter is left to it, and one with a filter only where it is sure to scan.
"""

from __future__ import annotations

from dataclasses import dataclass

HNSW_EF = 128
OVERSAMPLING = 4.0
"""So many times the answer are rescored with the originals. Codes of four bits need 4 for what int8 has with 2: 1.000
instead of .997 to .999 in tenants of 5,000 to 500,000, for 0.03 ms (docs/index.md)."""
SCAN_UP_TO = 26_000
"""Vectors; below it the engine scans instead of walking the graph, and builds none for a tenant so small."""
EXACT_UP_TO = 1_000
"""A set this small is compared row by row: 0.3 to 1 ms per 1,000 points, no graph to be wrong about."""
EXACT_FILTERED_FROM = 9_000
"""What a filter leaves, from here on: a third of `SCAN_UP_TO`. On Edge a set of 7,400 was walked through the
graph under a threshold of 12,000 (cause unknown); on a server 33,000 above one of 26,000 came back empty."""
FLOAT_BYTES = 4


def full_scan_threshold_kb(dim: int) -> int:
    """`SCAN_UP_TO` as Qdrant wants it: kilobytes of full vectors."""
    return SCAN_UP_TO * dim * FLOAT_BYTES // 1024


@dataclass(frozen=True, slots=True)
class Policy:
    """What to ask the engine for."""

    exact: bool
    hnsw_ef: int = HNSW_EF
    oversampling: float = OVERSAMPLING


EXACT = Policy(exact=True)
APPROXIMATE = Policy(exact=False)


def edge_policy(estimated_points: int, *, filtered: bool) -> Policy:
    """The policy on Qdrant Edge for a search over about so many points (`count(exact=False)`: within 4 % from 700 up).

    The tenant's own graph, or the scan of a tenant without one, holds recall at any size.
    """
    if estimated_points <= EXACT_UP_TO:
        return EXACT
    return EXACT if filtered and estimated_points >= EXACT_FILTERED_FROM else APPROXIMATE


def server_policy(estimated_points: int, *, filtered: bool) -> Policy:
    """The policy on a Qdrant server (measured on 1.18.3): as on Edge, where a miss costs rows instead of recall.

    A filter that the graph cannot follow gives *no rows* there, with the collection green; the same two
    bounds keep away from it.
    """
    return edge_policy(estimated_points, filtered=filtered)
