"""One path from bytes to vector, in a process of its own: ``python -m lookalike.bench.embed_path JSON``.

`JSON` is ``{"path": "seed"}``, or ``{"path": ENGINE, "preprocessing": WORD}``, with the model's name, its weights
and the cache. One line of stdout says that it is ready; then each line of stdin, a JSON list of files, is
answered by ``{"seconds", "cpu_s", "images", "rss_mb"}``: the files are read before the clocks start.
"""

from __future__ import annotations

import io
import json
import os
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from lookalike.bench.proc import descendants, on_cpu_s, rss_mb

if TYPE_CHECKING:
    from embedder.stages.decode import DecodePool

Path_ = Callable[[Sequence[bytes]], object]


def main() -> int:
    config: dict[str, Any] = json.loads(sys.argv[1])
    pool = None if config["path"] == "seed" else _decoder(config)
    embed = seeds_way(Path(config["weights"])) if pool is None else own_way(config, pool)
    embed([Path(config["warm_up"]).read_bytes()] * 4)
    print(json.dumps({"ready": True}), flush=True)
    family = descendants(os.getpid())  # looking for them costs as much as a picture: once, before the clocks
    for line in sys.stdin:
        pictures = [Path(path).read_bytes() for path in json.loads(line)]
        started, cpu = time.perf_counter(), on_cpu_s(family)
        embed(pictures)
        seconds, spent = time.perf_counter() - started, on_cpu_s(family) - cpu
        resident = sum(map(rss_mb, family))
        print(json.dumps({"seconds": seconds, "cpu_s": spent, "images": len(pictures), "rss_mb": resident}), flush=True)
    return 0


def seeds_way(weights: Path) -> Path_:
    """Pillow and img2vec, one picture at a time; its network gets the bench's weights instead of a download."""
    import torch
    from img2vec_pytorch import Img2Vec, img_to_vec
    from PIL import Image
    from torchvision.models import efficientnet_b0

    def from_file(**_: object) -> torch.nn.Module:
        network: torch.nn.Module = efficientnet_b0(weights=None)
        network.load_state_dict(torch.load(weights, weights_only=True))
        return network

    img_to_vec.efficientnet_b0 = from_file
    seed = Img2Vec(model="efficientnet_b0")

    def run(pictures: Sequence[bytes]) -> list[Any]:
        return [seed.get_vec(Image.open(io.BytesIO(data))) for data in pictures]

    return run


def _decoder(config: dict[str, Any]) -> DecodePool:
    from embedder.models.registry import model
    from embedder.stages.decode import DecodePool, DecodeRules

    info = model(config["model"]).info
    return DecodePool(1, DecodeRules(info.input_px, info.resample, preprocessing=config["preprocessing"]))


def own_way(config: dict[str, Any], pool: DecodePool) -> Path_:
    """The worker's decoder process and engine, without the gate: it is measured here, not decided."""
    from embedder.models.cache import ModelCache
    from embedder.models.engines import ENGINES
    from embedder.models.registry import model

    network = model(config["model"])
    weights = network.find_weights(Path(config["weights"]))
    kind = ENGINES[config["path"]]
    engine = kind.build(network, weights, ModelCache(Path(config["cache"])))

    def run(pictures: Sequence[bytes]) -> list[Any]:
        found = []
        for at in range(0, len(pictures), kind.max_batch):
            pixels = [pool.decode(data).pixels for data in pictures[at : at + kind.max_batch]]
            found.append(engine.embed(np.stack(pixels)))
        return found

    return run


if __name__ == "__main__":
    sys.exit(main())
