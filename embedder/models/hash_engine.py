"""An engine without a network: product code, for tests and for benches of everything around the network."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from embedder.models.protocol import ModelInfo, Pixels


class HashEngine:
    """The vector is a fixed random projection of the mean colours of an 8 × 8 grid of the picture.

    So equal pictures get equal vectors, similar ones similar vectors, and it costs microseconds.
    """

    def __init__(self, *, dim: int = 64, input_px: int = 32, seed: int = 0) -> None:
        self._info = ModelInfo(
            model_id="hash",
            dim=dim,
            input_px=input_px,
            resample="bilinear",
            mean=(0.0, 0.0, 0.0),
            std=(1.0, 1.0, 1.0),
            licence="Apache-2.0",
        )
        self._grid = min(8, input_px)
        projection = np.random.default_rng(seed).standard_normal((self._grid * self._grid * 3, dim))
        self._projection = projection.astype(np.float32)

    @property
    def name(self) -> str:
        return "hash"

    @property
    def info(self) -> ModelInfo:
        return self._info

    def embed(self, pixels: Pixels) -> npt.NDArray[np.float32]:
        step = pixels.shape[1] // self._grid
        side = step * self._grid
        cells = pixels[:, :side, :side].reshape(len(pixels), self._grid, step, self._grid, step, 3)
        features = cells.mean(axis=(2, 4), dtype=np.float32).reshape(len(pixels), -1) - np.float32(127.5)
        vectors = features @ self._projection
        norms: npt.NDArray[np.float32] = np.linalg.norm(vectors, axis=1, keepdims=True).astype(np.float32)
        normalised: npt.NDArray[np.float32] = np.divide(vectors, norms, out=vectors, where=norms > 0)
        return normalised
