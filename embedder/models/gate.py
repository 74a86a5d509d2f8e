"""The fidelity gate: an engine may write only where its vectors are the reference's, on this very machine.

The reference is torch in float32 with the network as it was loaded: no folding, no other precision. The
gate runs when an engine is first used with a model, takes seconds, and keeps what it found (`ModelCache`).
"""

from __future__ import annotations

import hashlib
import time
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from embedder.models.protocol import Engine, Pixels

VERSION = 2
"""Of the pictures and the rule: another one makes every machine measure again."""
LEAST_COSINE_FP32 = 0.9999
LEAST_COSINE = 0.999
"""Of bfloat16, over every gate picture. Rounding alone keeps .9994 and more with trained weights; int8, which
changes neighbours, stays below .98 (docs/performance.md)."""
N_PICTURES = 12
_SPEED_S = 0.5


@dataclass(frozen=True, slots=True)
class Verdict:
    """What the gate found. `cosine_min` is the least over the gate pictures; `images_per_s` is of the network alone."""

    engine: str
    cosine_min: float
    least: float
    images_per_s: float
    measured_at: str

    @property
    def passed(self) -> bool:
        return self.cosine_min >= self.least

    def as_dict(self) -> dict[str, Any]:
        return asdict(self)


def verdict_of(kept: Mapping[str, Any] | None) -> Verdict | None:
    """What was kept as JSON; None where it is not a verdict."""
    try:
        return None if kept is None else Verdict(**kept)
    except TypeError:
        return None


def examine(engine: Engine, reference: Callable[[Pixels], npt.NDArray[np.float32]], *, max_batch: int) -> Verdict:
    """Hold the engine against the reference, and time it. Blocks for seconds.

    `reference` gives rows of length 1. The pictures go through alone and in batches: an engine may have
    another program for each size.
    """
    pixels = gate_pictures(engine.info.input_px)
    wanted = reference(pixels)
    alone = np.concatenate([engine.embed(one[np.newaxis]) for one in pixels[: N_PICTURES // 2]])
    batches = [engine.embed(pixels[at : at + max_batch]) for at in range(0, N_PICTURES, max_batch)]
    cosines = [float((wanted[: len(alone)] * alone).sum(axis=1).min())]
    cosines.append(float((wanted * np.concatenate(batches)).sum(axis=1).min()))
    least_seen = min(cosines) if np.isfinite(cosines).all() else -1.0
    return Verdict(
        engine=engine.name,
        cosine_min=round(least_seen, 6),
        least=LEAST_COSINE_FP32 if engine.name.endswith("fp32") else LEAST_COSINE,
        images_per_s=round(_speed(engine, pixels[:max_batch]), 1),
        measured_at=datetime.now(UTC).isoformat(timespec="seconds"),
    )


def gate_pictures(side_px: int) -> Pixels:
    """(N_PICTURES, side, side, 3), the same on every machine: smooth ones, ones with hard edges, ones with grain.

    The smooth ones tell most: there a low precision loses what little detail there is.
    """
    y, x = np.mgrid[0:side_px, 0:side_px] / side_px
    pictures = []
    for seed in range(N_PICTURES):
        random = np.random.default_rng(seed)
        waves = [np.sin(x * a + y * b + c) for a, b, c in random.uniform(1, 6 + 3 * seed, (3, 3))]
        values = 127 + random.uniform(20, 110) * np.stack(waves, axis=2)
        if seed % 3 == 1:
            for left, top, width, height in random.integers(0, side_px, (seed, 4)):
                values[top : top + height // 2, left : left + width // 2] = random.uniform(0, 255, 3)
        if seed % 3 == 2:
            values += random.normal(0, 2 * seed, values.shape)
        pictures.append(np.rint(np.clip(values, 0, 255)).astype(np.float16))
    return np.stack(pictures)


def machine_key(*parts: str) -> str:
    """A name for what was measured here: the parts, the processor and what it can do."""
    cpu = ""
    for line in Path("/proc/cpuinfo").read_text().splitlines():
        if line.startswith(("model name", "flags", "Features")):
            cpu += line
        elif not line:
            break  # the first core speaks for all
    return hashlib.sha256("\n".join((str(VERSION), cpu, *parts)).encode()).hexdigest()[:16]


def _speed(engine: Engine, pixels: Pixels) -> float:
    started, n = time.perf_counter(), 0
    while (spent := time.perf_counter() - started) < _SPEED_S:
        engine.embed(pixels)
        n += len(pixels)
    return n / spent
