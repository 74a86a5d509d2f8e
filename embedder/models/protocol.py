"""What a model is: a network with its weights, and the rules from pixels to its input."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

import numpy as np
import numpy.typing as npt

if TYPE_CHECKING:  # torch is loaded only where a network runs
    import torch

Pixels = npt.NDArray[np.float16]
"""Network input before normalisation: shape (n, size, size, 3) or (size, size, 3), RGB, float16.

0 to 255, a little beyond beside hard edges. 8 bits would round what the resize found: on smooth pictures the
network sees that (docs/performance.md)."""


@dataclass(frozen=True, slots=True)
class ModelInfo:
    """What a model states about itself.

    `input_px` is the side of the square input; `resample` the filter of the one resize from the
    upright picture (its aspect is not kept) to it; a channel c of value v enters the network as
    ``(v / 255 - mean[c]) / std[c]``.
    """

    model_id: str
    dim: int
    input_px: int
    resample: str  # "bilinear" or "bicubic"
    mean: tuple[float, float, float]
    std: tuple[float, float, float]
    licence: str


@dataclass(frozen=True, slots=True)
class Weights:
    """A weights file that exists; `sha256` (hex) is of its bytes and was checked where one is expected."""

    path: Path
    sha256: str


class Model(Protocol):
    """One file per model in this folder; the registry names them."""

    @property
    def info(self) -> ModelInfo: ...

    def find_weights(self, override: Path | None = None, *, expected_sha256: str | None = None) -> Weights:
        """The weights file: `override`, else where this model's weights live.

        `expected_sha256` (hex, or a beginning of it) is of the override; the model's own are always checked.

        Raises:
            ConfigError: there is none, or its hash is wrong; says which file and how to get it.
        """
        ...

    def load(self, weights: Weights) -> torch.nn.Module:
        """The network, eval mode: float32 (n, 3, input_px, input_px) normalised → float32 (n, dim), pooled.

        Raises:
            ConfigError: the file is no weights file, or one of another network.
        """
        ...


class Engine(Protocol):
    """What runs a network. Not thread-safe: one thread calls it."""

    @property
    def name(self) -> str:
        """`torch-cpu-fp32`, …: recorded with every point."""
        ...

    @property
    def info(self) -> ModelInfo: ...

    def embed(self, pixels: Pixels) -> npt.NDArray[np.float32]:
        """(n, size, size, 3) float16 RGB → (n, dim) float32, each row L2-normalised. Blocks.

        A row that is not finite or all zero comes out as it is: the caller refuses it (`vector_invalid`).
        """
        ...
