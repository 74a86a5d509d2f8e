"""A worker process in which only the network is a stub: ``python -m tests.chaos.stub_worker worker``.

Everything else is the command line's own composition root, so what is killed here is what runs in
production. CHAOS_COST_FILE names a file with the milliseconds a picture costs, read before every
batch; CHAOS_DECODER=rowdy takes decode children that some pictures hang or crash.
"""

from __future__ import annotations

import os
import sys
import time
from functools import partial
from pathlib import Path
from types import ModuleType

import numpy as np
import numpy.typing as npt

from embedder.models import registry
from embedder.models.hash_engine import HashEngine
from embedder.models.protocol import ModelInfo, Pixels, Weights
from embedder.stages import decode

COST_FILE = "CHAOS_COST_FILE"
DECODER = "CHAOS_DECODER"
MODEL = "stub"
DIM = 64
_ROWDY_CHILD = Path(__file__).with_name("rowdy_child.py")


class StubNetwork:
    """A model without weights."""

    @property
    def info(self) -> ModelInfo:
        return ModelInfo(MODEL, DIM, 32, "bilinear", (0.0, 0.0, 0.0), (1.0, 1.0, 1.0), "Apache-2.0")

    def find_weights(self, override: Path | None = None) -> Weights:
        return Weights(Path(os.devnull), "0" * 64)

    def load(self, weights: Weights) -> object:
        raise NotImplementedError("there is no network here")


class CostlyEngine:
    """The vectors of the hash engine, each at the price the cost file states when its batch begins."""

    def __init__(self, network: object, weights: Weights) -> None:
        self._hash = HashEngine(dim=DIM, input_px=32)
        self._cost = Path(os.environ[COST_FILE])

    @property
    def name(self) -> str:
        return MODEL

    @property
    def info(self) -> ModelInfo:
        return self._hash.info

    def embed(self, pixels: Pixels) -> npt.NDArray[np.float32]:
        time.sleep(len(pixels) * float(self._cost.read_text()) / 1000)  # what a network would take
        return self._hash.embed(pixels)


def _without_torch() -> None:
    """Loading torch takes seconds of CPU a start, and there are dozens of starts."""
    stub = ModuleType("embedder.models.torch_engine")
    stub.TorchEngine = CostlyEngine  # type: ignore[attr-defined]
    sys.modules[stub.__name__] = stub
    registry.MODELS = {MODEL: StubNetwork}  # type: ignore[dict-item]


def main() -> int:
    """The command line, after the network was taken out."""
    _without_torch()
    if os.environ.get(DECODER) == "rowdy":
        decode.DecodePool = partial(decode.DecodePool, script=_ROWDY_CHILD)  # type: ignore[assignment,misc]
    from lookalike.__main__ import main as command_line

    return command_line()


if __name__ == "__main__":
    sys.exit(main())
