"""What a vector must be before it may reach an index: indexes accept NaN and zero vectors without a word."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from streams.errors import EventError, Reason


def check_vector(vector: npt.NDArray[np.float32], dim: int) -> None:
    """Refuse what cannot be compared.

    Raises:
        EventError: `vector_invalid` unless `vector` is (dim,), finite and not all zero.
    """
    if vector.shape != (dim,):
        raise EventError(Reason.VECTOR_INVALID, f"a vector has shape {vector.shape}, ({dim},) is wanted")
    norm = float(np.dot(vector, vector))  # NaN and infinity propagate
    if not np.isfinite(norm):
        raise EventError(Reason.VECTOR_INVALID, "a vector is not finite")
    if norm <= 0.0:
        raise EventError(Reason.VECTOR_INVALID, "a vector is all zero")


def normalise(vectors: npt.NDArray[np.float32]) -> npt.NDArray[np.float32]:
    """Rows (n, dim) scaled to length 1; rows that are zero or not finite stay as they are."""
    norms = np.linalg.norm(vectors, axis=1, keepdims=True)
    usable = np.isfinite(norms) & (norms > 0)
    scaled: npt.NDArray[np.float32] = np.divide(vectors, norms, out=vectors.copy(), where=usable)
    return scaled
