"""What a vector must be before it may reach an index, and the engine that needs no network."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import pytest

from embedder.models.hash_engine import HashEngine
from embedder.models.vectors import check_vector, normalise
from streams.errors import EventError, Reason
from tests.pictures import photo

Row = npt.NDArray[np.float32]


def _row(*values: float) -> Row:
    return np.array(values, np.float32)


@pytest.mark.parametrize("vector", [_row(1, 0, 0), _row(-3, 4, 1e-6), _row(1e-15, 0, 0)])
def test_a_usable_vector_passes(vector: Row) -> None:
    """Its length does not matter here, only that it has one."""
    check_vector(vector, 3)


@pytest.mark.parametrize(
    "vector",
    [
        _row(0, 0, 0),
        _row(1, np.nan, 0),
        _row(np.inf, 0, 0),
        _row(-np.inf, np.inf, 0),
        _row(1e-30, 0, 0),
        _row(1e30, 0, 0),
        _row(1, 0),
        _row(1, 0, 0, 0),
        _row(1, 0, 0)[np.newaxis],
        _row(),
    ],
    ids=[
        "zero",
        "NaN",
        "infinite",
        "both infinities",
        "underflow",
        "overflow",
        "short",
        "long",
        "a row of rows",
        "empty",
    ],
)
def test_a_vector_that_cannot_be_compared_is_refused(vector: Row) -> None:
    """An index would take it without a word and answer nonsense."""
    with np.errstate(over="ignore"), pytest.raises(EventError) as caught:
        check_vector(vector, 3)
    assert caught.value.reason is Reason.VECTOR_INVALID


def test_rows_get_length_one() -> None:
    """Each on its own, in float32; the caller's array stays as it was."""
    rows = np.random.default_rng(0).normal(0, 50, (7, 64)).astype(np.float32)
    before = rows.copy()
    scaled = normalise(rows)
    np.testing.assert_allclose(np.linalg.norm(scaled, axis=1), 1, atol=1e-6)
    np.testing.assert_allclose(scaled * np.linalg.norm(rows, axis=1, keepdims=True), rows, rtol=1e-5)
    np.testing.assert_array_equal(rows, before)
    assert scaled.dtype == np.float32


def test_unusable_rows_stay_and_spoil_no_other() -> None:
    """They reach the check that refuses them as they are."""
    rows = np.stack([_row(3, 4), _row(0, 0), _row(np.nan, 1), _row(np.inf, 1)])
    scaled = normalise(rows)
    np.testing.assert_allclose(scaled[0], [0.6, 0.8], atol=1e-6)
    np.testing.assert_array_equal(scaled[1:], rows[1:])


def _pixels(*seeds: int, side_px: int = 32) -> npt.NDArray[np.float16]:
    return np.stack([np.asarray(photo(side_px, side_px, seed=seed)) for seed in seeds])


def test_the_hash_engine_tells_pictures_apart() -> None:
    """Equal pictures have equal vectors, a brightened one is near, another one is farther away."""
    engine = HashEngine(dim=64)
    pixels = _pixels(1, 1, 2)
    brighter = np.clip(pixels[:1].astype(int) + 12, 0, 255).astype(np.float16)
    same, again, other, near = engine.embed(np.concatenate([pixels, brighter]))
    np.testing.assert_array_equal(same, again)
    assert float(same @ near) > float(same @ other)
    assert float(same @ near) > 0.9
    check_vector(same, engine.info.dim)


@pytest.mark.parametrize(("dim", "side_px"), [(4, 4), (64, 32), (16, 33), (1280, 224)])
def test_the_hash_engine_has_the_shape_it_states(dim: int, side_px: int) -> None:
    """Rows of length one, the same in another process; also for sides that its grid does not divide."""
    engine = HashEngine(dim=dim, input_px=side_px)
    vectors = engine.embed(_pixels(1, 2, 3, side_px=side_px))
    assert vectors.shape == (3, dim)
    assert vectors.dtype == np.float32
    np.testing.assert_allclose(np.linalg.norm(vectors, axis=1), 1, atol=1e-5)
    np.testing.assert_array_equal(
        vectors, HashEngine(dim=dim, input_px=side_px).embed(_pixels(1, 2, 3, side_px=side_px))
    )
