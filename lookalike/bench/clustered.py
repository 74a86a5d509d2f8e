"""Pictures that nobody has to take: clustered vectors, skewed tenants, attributes that go with the clusters.

Vectors are a mixture of Gaussians, normalised; real features have more structure, so figures of recall
on them will differ. One tenant has half of all points, one a hundredth (at most 10,000, at least a
tenth of 100,000), one a twentieth; the rest is some tenants of 5,000 and hundreds of tiny ones.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np
import numpy.typing as npt

from embedder.index.fields import Field, Kind
from embedder.index.filters import AllOf, AnyOf, Filter, HasTag, Is, Not, Within
from embedder.index.points import PutVector, Vector
from streams.event import MIN_VERSION, Attribute, Location

FIELDS = (Field("price", Kind.NUMBER), Field("taken_at", Kind.TIME))
HALF, TENTH, TWENTIETH, TINY = "half", "tenth", "twentieth", "tiny-0"
TINY_POINTS = 50
N_TINY = 300
DAY_US = 86_400_000_000
EPOCH_US = 1_700_000_000_000_000
"""Day 0 of `taken_at`."""
_SPREAD = 0.7
"""Length of the noise beside a centre of length 1: the cosine of two pictures of a cluster is about 0.67."""
_ROWS = 10_000
Array = npt.NDArray[np.float32]


@dataclass(frozen=True)
class Clustered:
    """`n_points` points of `dim` floats, always the same for the same numbers. Row numbers are contiguous by tenant."""

    n_points: int
    dim: int
    seed: int = 7

    @cached_property
    def n_clusters(self) -> int:
        """About 50 close neighbours each, as many as 2,000 clusters at most."""
        return max(20, min(2_000, self.n_points // 50))

    @cached_property
    def tenants(self) -> Mapping[str, range]:
        """The rows of each tenant."""
        sizes = {HALF: self.n_points // 2, TENTH: min(10_000, self.n_points // 10), TWENTIETH: self.n_points // 20}
        rest = self.n_points - sum(sizes.values())
        n_tiny = min(N_TINY, rest // (2 * TINY_POINTS))
        sizes.update({f"tiny-{n}": TINY_POINTS for n in range(n_tiny)})
        rest -= n_tiny * TINY_POINTS
        for n in range(-(-rest // 5_000)):
            sizes[f"middle-{n}"] = min(5_000, rest - n * 5_000)
        starts = np.cumsum([0, *sizes.values()])
        return {
            name: range(int(start), int(start) + size)
            for (name, size), start in zip(sizes.items(), starts[:-1], strict=True)
        }

    @cached_property
    def clusters(self) -> npt.NDArray[np.int64]:
        """The cluster of each row."""
        return np.random.default_rng([self.seed, 1]).integers(self.n_clusters, size=self.n_points)

    @cached_property
    def _centres(self) -> Array:
        centres = np.random.default_rng([self.seed, 2]).standard_normal((self.n_clusters, self.dim), np.float32)
        return _normalised(centres)

    @cached_property
    def _chances(self) -> Array:
        """Four numbers between 0 and 1 for each row, from which its attributes follow."""
        return np.random.default_rng([self.seed, 3]).random((self.n_points, 4), np.float32)

    def near(self, clusters: npt.NDArray[np.int64], rng: np.random.Generator) -> Array:
        """One vector of each of these clusters."""
        noise = rng.standard_normal((len(clusters), self.dim), np.float32)
        return _normalised(self._centres[clusters] + _SPREAD * noise / np.sqrt(np.float32(self.dim)))

    def vectors(self, file: Path | None = None) -> Array:
        """All rows; in `file` (a memory map) where one is given and they would be in the way."""
        shape = (self.n_points, self.dim)
        rows: Array = (
            np.empty(shape, np.float32) if file is None else np.lib.format.open_memmap(file, "w+", np.float32, shape)
        )
        for start in range(0, self.n_points, _ROWS):
            part = self.clusters[start : start + _ROWS]
            rows[start : start + len(part)] = self.near(part, np.random.default_rng([self.seed, 4, start]))
        return rows

    def queries(self, n: int) -> Array:
        """Vectors that are near what is stored and not among it."""
        rng = np.random.default_rng([self.seed, 5])
        return self.near(rng.integers(self.n_clusters, size=n), rng)

    def batches(self, size: int) -> Iterator[tuple[str, range]]:
        """Every row once, in calls of one tenant, tenants mixed as they are when many write at once."""
        parts = [
            (name, rows[start : start + size])
            for name, rows in self.tenants.items()
            for start in range(0, len(rows), size)
        ]
        for n in np.random.default_rng([self.seed, 6]).permutation(len(parts)):
            yield parts[n]

    def put(self, row: int, vector: Vector, *, version: int = 0) -> PutVector:
        """The write that makes the row searchable."""
        return PutVector(
            image_id=f"i{row}",
            version=MIN_VERSION + version,
            vector=vector,
            location=Location("bench", f"{row}.jpg", "e"),
            etag="e",
            sha256="0" * 64,
            indexed_at_us=EPOCH_US,
            created_at_us=EPOCH_US + (row * 7919) % self.n_points,  # of no order that tenants or clusters have
            engine="none",
            tags=self.tags(row),
            attributes=self.attributes(row),
            width_px=400 + row % 1000,
            height_px=300 + row % 700,
        )

    def tags(self, row: int) -> tuple[str, ...]:
        """Its topic, one of 12 that follow from the cluster; `sale` (a fifth), `rare` (one in 200)."""
        chance = float(self._chances[row, 0])
        others = ("rare",) if chance < 0.005 else ("sale",) if chance < 0.205 else ()
        return (f"topic-{self.clusters[row] % 12}", *others)

    def attributes(self, row: int) -> dict[str, Attribute]:
        """`colour`, one of three, follows from the cluster nine times in ten; so do `taken_at` and `price`."""
        cluster, chances = int(self.clusters[row]), self._chances[row]
        colour = cluster % 3 if chances[1] < 0.9 else int(chances[1] * 1000) % 3
        day = (cluster % 8) * 30 + 60 * float(chances[2])
        taken = np.datetime64(EPOCH_US + int(day * DAY_US), "us")
        return {
            "colour": ("red", "green", "blue")[colour],
            "shop": f"shop-{int(chances[3] * 100)}",
            "taken_at": f"{taken}Z",
            "price": round(float(cluster % 50 + 10 * chances[2]), 2),
        }


def days(first: float, last: float) -> Within:
    """Taken from day `first` until before day `last`, of 270."""
    return Within("taken_at", gte=EPOCH_US + int(first * DAY_US), lt=EPOCH_US + int(last * DAY_US))


SHAPES: Mapping[str, Filter] = {
    "tag": HasTag(("topic-3",)),
    "attribute": Is("colour", ("red",)),
    "time": days(60, 120),
    "not": Not(Is("colour", ("red",))),
    "rare_tag": HasTag(("rare",)),
    "any_tags": HasTag(("topic-1", "topic-2", "topic-3")),
    "attribute_of_many": Is("shop", tuple(f"shop-{n}" for n in range(0, 100, 4))),
    "tag_and_time": AllOf((HasTag(("topic-3", "topic-5")), days(30, 150))),
    "number": Within("price", gte=10, lt=20),
    "size": Within("width_px", gte=900),
    "created": Within("created_at", lt=EPOCH_US + 20_000),
    "or": AnyOf((Is("colour", ("green",)), HasTag(("sale",)))),
    "not_any": Not(AnyOf((Is("colour", ("green",)), HasTag(("sale",)), days(0, 30)))),
    "nearly_all": Not(HasTag(("rare",))),
}
"""Filters of every kind that the API allows, from one point in 200 to nearly all of a tenant."""


def _normalised(rows: Array) -> Array:
    return np.asarray(rows / np.linalg.norm(rows, axis=1, keepdims=True), np.float32)
