"""What a vector must be before it may reach an index: indexes accept NaN and zero vectors without a word."""

from __future__ import annotations

from collections.abc import Sequence

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


def comparable(vectors: npt.NDArray[np.float32]) -> npt.NDArray[np.bool_]:
    """Of rows (n, dim), which :func:`check_vector` would take: one call for a batch, because each call of
    numpy on a vector gives Python's lock away and waits to get it back."""
    squares = np.einsum("ij,ij->i", vectors, vectors)
    good: npt.NDArray[np.bool_] = np.isfinite(squares) & (squares > 0)
    return good


def unit_stack(vectors: Sequence[npt.NDArray[np.float32]], dim: int) -> npt.NDArray[np.float32]:
    """Rows (n, dim) of length 1; one pass checks them and gives their lengths.

    Raises:
        EventError: as :func:`check_vector`, for the first that cannot be compared.
    """
    if any(vector.shape != (dim,) for vector in vectors):
        for vector in vectors:
            check_vector(vector, dim)
    rows = np.empty((len(vectors), dim), np.float32)
    if not vectors:
        return rows
    np.stack(vectors, out=rows)
    squares = np.einsum("ij,ij->i", rows, rows)
    if not (np.isfinite(squares) & (squares > 0)).all():
        for vector in vectors:
            check_vector(vector, dim)
    rows /= np.sqrt(squares)[:, None]
    return rows


def normalise(vectors: npt.NDArray[np.float32]) -> npt.NDArray[np.float32]:
    """Rows (n, dim) scaled to length 1; rows that are zero or not finite stay as they are."""
    norms = np.linalg.norm(vectors, axis=1, keepdims=True)
    usable = np.isfinite(norms) & (norms > 0)
    scaled: npt.NDArray[np.float32] = np.divide(vectors, norms, out=vectors.copy(), where=usable)
    return scaled
