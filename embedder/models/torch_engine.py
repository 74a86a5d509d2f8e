"""torch on the CPU, float32: the reference that every quicker engine is held against."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import torch

from embedder.models.protocol import Model, ModelInfo, Pixels, Weights
from embedder.models.vectors import normalise


class TorchEngine:
    """One thread by default: two processes with torch's own default on two cores are 30 times slower."""

    def __init__(self, model: Model, weights: Weights, *, threads: int = 1) -> None:
        torch.set_num_threads(threads)
        self._info = model.info
        self._network = model.load(weights).to(memory_format=torch.channels_last)
        shape = (1, 3, 1, 1)
        self._scale = 1.0 / (255.0 * torch.tensor(self._info.std).reshape(shape))
        self._shift = -torch.tensor(self._info.mean).reshape(shape) / torch.tensor(self._info.std).reshape(shape)

    @property
    def name(self) -> str:
        return "torch-cpu-fp32"

    @property
    def info(self) -> ModelInfo:
        return self._info

    def embed(self, pixels: Pixels) -> npt.NDArray[np.float32]:
        with torch.inference_mode():
            # (n, s, s, 3) seen as (n, 3, s, s) is already channels_last: nothing is moved
            planes = torch.from_numpy(np.ascontiguousarray(pixels)).permute(0, 3, 1, 2)
            found = self._network(planes.float().mul_(self._scale).add_(self._shift))
        return normalise(found.numpy())
