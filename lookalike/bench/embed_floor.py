"""What this machine could do at best, and the seeded network that the paths run."""

from __future__ import annotations

import io
import os
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from lookalike.bench.proc import descendants, on_cpu_s

B0_GFLOP = 0.769
"""Of EfficientNet-b0's features at 224 × 224: pointwise .678, depthwise .069, stem .022."""


def seeded_weights(path: Path) -> Path:
    """A weights file of b0 from a fixed seed: its speed is that of trained weights, and nothing is fetched.

    BatchNorm is calibrated on generated pictures; without that activations fade until they are denormal.
    """
    import torch
    from torchvision.models import efficientnet_b0

    from embedder.models.gate import gate_pictures

    torch.set_num_threads(1)
    torch.manual_seed(0)
    network = efficientnet_b0(weights=None).train()
    for module in network.modules():
        if isinstance(module, torch.nn.BatchNorm2d):
            module.momentum = None  # the plain mean over everything it sees
    pixels = torch.from_numpy(gate_pictures(224)).permute(0, 3, 1, 2).float()
    with torch.no_grad():
        network((pixels / 255 - 0.45) / 0.225)
    torch.save(network.state_dict(), path)
    return path


def floor(jpegs: Sequence[bytes]) -> dict[str, float]:
    """Matmul peaks of one core in GFLOP/s, ms a picture of entropy decoding, and images/s if nothing else were done.

    A JPEG read at 1/8 costs its Huffman decoding and one value a block: no decoder can do less.
    """
    peaks = {"fp32": _peak("float32"), "bf16": _peak("bfloat16")}
    entropy_s = min(_entropy_s(jpegs) for _ in range(3))
    best = max(peaks.values())
    return {
        "peak_fp32_gflops": round(peaks["fp32"]),
        "peak_bf16_gflops": round(peaks["bf16"]),
        "jpeg_entropy_ms": round(entropy_s * 1e3, 2),
        "floor_images_per_s": round(1 / (entropy_s + B0_GFLOP / best), 1),
        "floor_fp32_images_per_s": round(1 / (entropy_s + B0_GFLOP / peaks["fp32"]), 1),
    }


def _peak(kind: str, *, size: int = 1024) -> float:
    import torch

    torch.set_num_threads(1)
    a, b = (torch.randn(size, size).to(getattr(torch, kind)) for _ in range(2))

    def multiply() -> Any:
        with torch.inference_mode():
            return torch.mm(a, b)

    multiply()
    return 2 * size**3 / min(_seconds(multiply) for _ in range(10)) / 1e9


def _entropy_s(jpegs: Sequence[bytes]) -> float:
    from PIL import Image

    def read() -> None:
        for data in jpegs:
            picture = Image.open(io.BytesIO(data))
            picture.draft(None, (picture.width // 8, picture.height // 8))
            picture.load()

    return _seconds(read) / len(jpegs)


def child_overhead(jpegs: Sequence[bytes], *, rounds: int = 5) -> float:
    """What the decoder's own process costs, as a share of decoding in this one: CPU of both sides, median."""
    from embedder.stages.decode import DecodePool, DecodeRules
    from embedder.stages.decode_child import decode_picture

    def inside(data: bytes) -> object:
        return decode_picture(data, input_px=224, bicubic=False)[0].tobytes()

    allowed = os.sched_getaffinity(0)
    os.sched_setaffinity(0, {min(allowed)})
    pool = DecodePool(1, DecodeRules(input_px=224, resample="bilinear"))
    try:
        pool.decode(jpegs[0])
        family = descendants(os.getpid())
        ratios = [_cpu_s(pool.decode, jpegs, family) / _cpu_s(inside, jpegs, family) for _ in range(rounds)]
        return sorted(ratios)[len(ratios) // 2] - 1
    finally:
        pool.close()
        os.sched_setaffinity(0, allowed)


def _cpu_s(decode: Callable[[bytes], object], jpegs: Sequence[bytes], family: Sequence[int]) -> float:
    before = on_cpu_s(family)
    for data in jpegs:
        decode(data)
    return on_cpu_s(family) - before


def _seconds(work: Callable[[], object]) -> float:
    """CPU seconds of this process: what else runs here does not count."""
    started = time.process_time()
    work()
    return time.process_time() - started
