"""torch on the CPU, float32: the default, and the reference that every quicker engine is held against."""

from __future__ import annotations

import warnings
from collections.abc import Callable

import numpy as np
import numpy.typing as npt
import structlog
import torch

from embedder.models.protocol import Model, ModelInfo, Pixels, Weights
from embedder.models.torch_folding import fold_batch_norms
from embedder.models.vectors import normalise

log = structlog.get_logger(__name__)


class TorchEngine:
    """One thread by default: two processes with torch's own default on two cores are 30 times slower."""

    def __init__(self, model: Model, weights: Weights, *, threads: int = 1, reference: bool = False) -> None:
        """`reference` leaves the network as it was loaded: nothing folded, no other layout in memory."""
        torch.set_num_threads(threads)
        self._info = model.info
        network = model.load(weights)
        self._network: Callable[[torch.Tensor], torch.Tensor] = network
        if not reference:
            folded = fold_batch_norms(network).to(memory_format=torch.channels_last)
            self._network = frozen(folded, self._info.input_px)
        self._scale, self._shift = scale_and_shift(self._info)

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


def frozen(network: torch.nn.Module, side_px: int) -> Callable[[torch.Tensor], torch.Tensor]:
    """The network as a frozen trace: without Python between its layers, a fifth of a picture's time.

    Only one that torch.fx could follow: this tracer would take whatever way the example takes for the only one.
    torch calls it deprecated; where it is gone or fails, the network runs as it is, only slower. That a trace
    computes the same is what the gate examines.
    """
    if not isinstance(network, torch.fx.GraphModule):
        return network
    example = torch.zeros(1, 3, side_px, side_px).to(memory_format=torch.channels_last)
    try:
        with warnings.catch_warnings(), torch.inference_mode():
            warnings.simplefilter("ignore")
            made: Callable[[torch.Tensor], torch.Tensor] = torch.jit.freeze(
                torch.jit.trace(network, example, check_trace=False)  # type: ignore[no-untyped-call]
            )
    except (AttributeError, RuntimeError) as exc:
        log.info("the network is not traced, and slower for it", error=str(exc)[:200])
        return network
    return made


def scale_and_shift(info: ModelInfo) -> tuple[torch.Tensor, torch.Tensor]:
    """What a byte is multiplied with, and what is then added, a channel: (v / 255 - mean) / std."""
    shape = (1, 3, 1, 1)
    std = torch.tensor(info.std).reshape(shape)
    return 1.0 / (255.0 * std), -torch.tensor(info.mean).reshape(shape) / std
