"""One tenant's points, and its vectors as rows of one growing matrix."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import numpy.typing as npt

from embedder.index.fields import Field
from embedder.index.filters import Filter, matches
from embedder.index.points import Point, Vector
from embedder.index.protocol import Hit
from embedder.index.query import Query

_FIRST_ROWS = 8
_MASKS_KEPT = 8


class Tenant:
    """Not thread-safe: its index serialises the calls. Freed rows are used again."""

    def __init__(self, dim: int, fields: Sequence[Field] = ()) -> None:
        self.points: dict[str, Point] = {}
        self._fields = fields
        self._rows: dict[str, int] = {}
        self._names: list[str | None] = []
        self._matrix: npt.NDArray[np.float32] = np.zeros((_FIRST_ROWS, dim), np.float32)
        self._free: list[int] = []
        self._masks: dict[Filter, npt.NDArray[np.bool_]] = {}
        """Which rows a filter lets through; forgotten with the next write."""

    def put_vectors(self, which: Mapping[str, int], units: npt.NDArray[np.float32]) -> None:
        """What these images look like: of rows (n, dim) of length 1, the one with this number.

        All rows at once, which costs a third of one by one.
        """
        rows = [self._row(image_id) for image_id in which]
        self._matrix[rows] = units if len(which) == len(units) else units[list(which.values())]

    def remove_vector(self, image_id: str) -> None:
        """The image is not searched any more."""
        row = self._rows.pop(image_id, None)
        if row is not None:
            self._matrix[row] = 0
            self._names[row] = None
            self._free.append(row)

    def note(self, point: Point) -> None:
        """The point; its vector stays."""
        self.points[point.image_id] = point
        self._masks.clear()

    def forget(self, image_id: str) -> None:
        """Nothing is known of the image any more; its vector was removed before."""
        del self.points[image_id]
        self._masks.clear()

    def vector(self, image_id: str) -> Vector | None:
        """The image's vector, of length 1."""
        row = self._rows.get(image_id)
        return None if row is None else self._matrix[row]

    def search(self, wanted: Vector, query: Query) -> tuple[Hit, ...]:
        """The best rows; equal scores in the order of their names, also where the limit cuts."""
        used = len(self._names)
        scores = (self._matrix[:used] @ wanted).clip(-1.0, 1.0)  # rounding reaches beyond a cosine's range
        scores[self._free] = -np.inf
        scores[[row for name in query.named if (row := self._rows.get(name)) is not None]] = -np.inf
        if query.filter is not None:
            scores[~self._mask(query.filter)] = -np.inf
        lowest = -2.0 if query.score_threshold is None else query.score_threshold
        if query.reach < used:
            lowest = max(lowest, np.partition(scores, used - query.reach)[used - query.reach])
        best = np.flatnonzero(scores >= lowest)
        found = sorted((-float(scores[row]), name) for row in best if (name := self._names[row]) is not None)
        return tuple(
            Hit(name, -score, self.points[name] if query.with_points else None)
            for score, name in found[query.offset : query.reach]
        )

    def _mask(self, condition: Filter) -> npt.NDArray[np.bool_]:
        known = self._masks.get(condition)
        if known is not None:
            return known
        rows = (name is not None and matches(condition, self.points[name], self._fields) for name in self._names)
        mask = np.fromiter(rows, np.bool_, len(self._names))
        if len(self._masks) == _MASKS_KEPT:
            self._masks.clear()
        self._masks[condition] = mask
        return mask

    def _row(self, image_id: str) -> int:
        row = self._rows.get(image_id)
        if row is None:
            row = self._rows[image_id] = self._new_row()
            self._names[row] = image_id
        return row

    def _new_row(self) -> int:
        if self._free:
            return self._free.pop()
        if len(self._names) == len(self._matrix):
            grown = np.empty((2 * len(self._matrix), self._matrix.shape[1]), np.float32)  # unused pages cost nothing
            grown[: len(self._matrix)] = self._matrix
            self._matrix = grown
        self._names.append(None)
        return len(self._names) - 1
