"""What ``bench search`` asks: a collection in a folder of its own, built once and kept."""

from __future__ import annotations

import json
import time
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path

from embedder.index.protocol import CollectionSpec
from lookalike.bench.clustered import FIELDS, Clustered
from lookalike.output import note

WRITES = 256
"""Of one call while building, as a worker's fullest batch."""


@dataclass(frozen=True, slots=True)
class Place:
    """Where the bench keeps what it builds."""

    folder: Path

    @property
    def vectors(self) -> Path:
        return self.folder / "vectors.npy"

    @property
    def index(self) -> Path:
        return self.folder / "index"

    @property
    def socket(self) -> Path:
        return self.folder / "index.sock"

    @property
    def built(self) -> Path:
        """The figures of the build; there once it is complete."""
        return self.folder / "built.json"


def build(place: Place, data: Clustered) -> dict[str, float]:
    """Write every point and build the graphs, as the index process would; a build that is there is used again."""
    if place.built.exists():
        return dict(json.loads(place.built.read_text()))
    from embedder.index.apart.engine import EngineApart
    from embedder.index.collections import Collections
    from embedder.index.edge.shard import EdgeIndex

    vectors = data.vectors(place.vectors)
    note(f"{data.n_points} vectors are made; building")
    spec = CollectionSpec("bench", f"clustered-{data.dim}", data.dim, FIELDS)
    place.index.mkdir(parents=True, exist_ok=True)
    Collections(place.index, EngineApart, engine="edge").ensure(spec)
    started = time.monotonic()
    with closing(EdgeIndex(spec, place.index / "collections" / spec.name)) as index:
        for tenant_id, rows in data.batches(WRITES):
            index.write_now(tenant_id, [data.put(row, vectors[row]) for row in rows])
        written_s = time.monotonic() - started
        index.flush()
        index.optimise()
    figures = {
        "build_s": round(time.monotonic() - started, 1),
        "write_s": round(written_s, 1),
        "disk_mb": round(_disk_mb(place.index), 1),
    }
    place.built.write_text(json.dumps(figures))
    return figures


def read_ahead(place: Place) -> dict[str, float]:
    """What the index process does by itself after its start, waited for: its files are in memory."""
    from embedder.index.edge.pointer import Pointer
    from embedder.index.edge.warm import warm

    started, n_bytes = time.monotonic(), 0
    for home in (place.index / "collections").iterdir():
        n_bytes += warm(Pointer(home).folder())
    return {"read_ahead_mb": round(n_bytes / 2**20, 1), "read_ahead_s": round(time.monotonic() - started, 1)}


def _disk_mb(folder: Path) -> float:
    return sum(path.stat().st_blocks * 512 for path in folder.rglob("*") if path.is_file()) / 2**20
