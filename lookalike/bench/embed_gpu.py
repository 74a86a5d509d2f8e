"""The GPU's part of `bench embed`: batch sweep, images/s from bytes, share of the pure forward pass.

Not run on the machine this was written on, which has no GPU.
"""

from __future__ import annotations

import os
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np

BATCHES = (32, 64, 128, 256)
SECONDS = 3.0


def measure_gpu(jpegs: Sequence[bytes], *, weights: Path, preprocessing: str = "scaled-turbo") -> dict[str, Any] | None:
    """None where torch sees no GPU. One decoder process a core feeds it."""
    import torch

    if not torch.cuda.is_available():
        return None
    from embedder.models.cuda_engine import CudaEngine
    from embedder.models.registry import model

    network = model("efficientnet_b0")
    found = network.find_weights(weights)
    sweep = {}
    for batch in BATCHES:
        engine = CudaEngine(network, found, max_batch=batch)
        pixels = np.random.default_rng(0).integers(0, 255, (batch, 224, 224, 3), dtype=np.uint8).astype(np.float16)
        engine.embed(pixels)
        started, n = time.perf_counter(), 0
        while time.perf_counter() - started < SECONDS:
            engine.embed(pixels)
            n += batch
        sweep[str(batch)] = round(n / (time.perf_counter() - started), 1)
    best = max(sweep.values())
    from_bytes = _from_bytes(jpegs, CudaEngine(network, found), preprocessing)
    return {
        "gpu": torch.cuda.get_device_name(),
        "images_per_s_by_batch": sweep,
        "images_per_s_from_bytes": round(from_bytes, 1),
        "share_of_forward": round(from_bytes / best, 3),
    }


def _from_bytes(jpegs: Sequence[bytes], engine: Any, preprocessing: str, *, batch: int = 64) -> float:
    from embedder.stages.decode import DecodePool, DecodeRules

    cores = len(os.sched_getaffinity(0))
    pool = DecodePool(cores, DecodeRules(input_px=224, resample="bilinear", preprocessing=preprocessing))
    try:
        with ThreadPoolExecutor(cores) as threads:
            started, n = time.perf_counter(), 0
            pending = [threads.submit(pool.decode, jpegs[i % len(jpegs)]) for i in range(2 * batch)]
            while time.perf_counter() - started < SECONDS:
                ready, pending = pending[:batch], pending[batch:]
                pending += [threads.submit(pool.decode, jpegs[i % len(jpegs)]) for i in range(batch)]
                engine.embed(np.stack([one.result().pixels for one in ready]))
                n += batch
            return n / (time.perf_counter() - started)
    finally:
        pool.close()
