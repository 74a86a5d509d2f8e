"""torch on a GPU: bfloat16, channels_last, batches, pinned memory. Fed by decoder processes of its own.

What runs without a GPU is tested (sizes, halving); the rest was written by torch's documentation and has
not been run here (docs/models.md).
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import numpy.typing as npt
import torch

from embedder.models.protocol import Model, ModelInfo, Pixels, Weights
from embedder.models.torch_engine import scale_and_shift
from embedder.models.torch_folding import fold_batch_norms
from embedder.models.vectors import normalise
from streams.errors import ConfigError

MAX_BATCH = 64
"""Between 32 and 256 a GPU is busy; more pictures wait longer for their batch."""


class CudaEngine:
    """One GPU. Pixels are normalised on the GPU: half of what float32 would take over the bus."""

    def __init__(self, model: Model, weights: Weights, *, max_batch: int = MAX_BATCH, device: str = "cuda") -> None:
        """Raises ConfigError where torch sees no GPU."""
        if not torch.cuda.is_available():
            raise ConfigError("the engine torch-cuda needs a GPU that torch sees: set LOOKALIKE_MODEL_ENGINE=torch")
        self._info = model.info
        self._device = torch.device(device)
        network = fold_batch_norms(model.load(weights)).to(self._device, torch.bfloat16)
        self._network = network.to(memory_format=torch.channels_last)
        self._scale, self._shift = (one.to(self._device) for one in scale_and_shift(self._info))
        side_px = self._info.input_px
        self._staging = torch.empty((max_batch, side_px, side_px, 3), dtype=torch.float16, pin_memory=True)
        self._batches = Halving(self._run, max_batch=max_batch, free=torch.cuda.empty_cache)

    @property
    def name(self) -> str:
        return "torch-cuda-bf16"

    @property
    def info(self) -> ModelInfo:
        return self._info

    def embed(self, pixels: Pixels) -> npt.NDArray[np.float32]:
        return normalise(self._batches(pixels))

    def _run(self, pixels: Pixels) -> npt.NDArray[np.float32]:
        staged = self._staging[: len(pixels)]
        staged.copy_(torch.from_numpy(np.ascontiguousarray(pixels)))
        with torch.inference_mode():
            planes = staged.to(self._device, non_blocking=True).permute(0, 3, 1, 2)
            entering = planes.float().mul_(self._scale).add_(self._shift).to(torch.bfloat16)
            found: npt.NDArray[np.float32] = self._network(entering).float().cpu().numpy()  # waits for the GPU
        return found


class Halving:
    """Runs batches of at most `max_batch`; one that does not fit into memory is halved, and so are those after it."""

    def __init__(
        self,
        run: Callable[[Pixels], npt.NDArray[np.float32]],
        *,
        max_batch: int,
        free: Callable[[], None] = lambda: None,
    ) -> None:
        """`free` gives the allocator's blocks back before the next try."""
        self._run = run
        self._free = free
        self.max_batch = max_batch

    def __call__(self, pixels: Pixels) -> npt.NDArray[np.float32]:
        """All rows, in order. Raises torch.OutOfMemoryError where not even one picture fits."""
        rows: list[npt.NDArray[np.float32]] = []
        at = 0
        while at < len(pixels):
            part = pixels[at : at + self.max_batch]
            try:
                rows.append(self._run(part))
            except torch.OutOfMemoryError:
                if len(part) == 1:
                    raise
                self.max_batch = len(part) // 2
                self._free()
                continue
            at += len(part)
        return np.concatenate(rows)
