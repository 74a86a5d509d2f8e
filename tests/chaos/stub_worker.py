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

import numpy as np
import numpy.typing as npt

from embedder import vision
from embedder.models import registry
from embedder.models.engines import OpenedEngine
from embedder.models.gate import Verdict
from embedder.models.hash_engine import HashEngine
from embedder.models.protocol import ModelInfo, Pixels, Weights
from embedder.stages.decode import DecodePool

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

    def find_weights(self, override: Path | None = None, *, expected_sha256: str | None = None) -> Weights:
        return Weights(Path(os.devnull), "0" * 64)

    def load(self, weights: Weights) -> object:
        raise NotImplementedError("there is no network here")


class CostlyEngine:
    """The vectors of the hash engine, each at the price the cost file states when its batch begins."""

    def __init__(self) -> None:
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
    verdict = Verdict(MODEL, cosine_min=1.0, least=1.0, images_per_s=0.0, measured_at="")
    opened = OpenedEngine(CostlyEngine(), verdict, max_batch=4)
    vision.Vision.open_engine = lambda _self: opened  # type: ignore[method-assign,assignment]
    registry.MODELS = {MODEL: StubNetwork}  # type: ignore[dict-item]


def main() -> int:
    """The command line, after the network was taken out."""
    _without_torch()
    if os.environ.get(DECODER) == "rowdy":
        vision.DecodePool = partial(DecodePool, script=_ROWDY_CHILD)  # type: ignore[attr-defined,assignment]
    from lookalike.__main__ import main as command_line

    return command_line()


if __name__ == "__main__":
    sys.exit(main())
