"""The bare loop: read, decode, embed, one after the other in one process. What the worker's cost is held against.

Run as ``python -m lookalike.bench.bare MODEL``; it reads one JSON list of paths per line from stdin
and answers each with one JSON line ``{"cpu_s", "pictures"}``. It is started with the same environment
and on the same core as the worker.
"""

from __future__ import annotations

import json
import sys
import time
from pathlib import Path

import numpy as np

from embedder.models.registry import model
from embedder.models.torch_engine import TorchEngine
from embedder.stages.decode_child import decode_picture


def main() -> int:
    network = model(sys.argv[1])
    engine = TorchEngine(network, network.find_weights())
    info = engine.info
    for line in sys.stdin:
        paths = [Path(path) for path in json.loads(line)]
        started = time.process_time()
        for path in paths:
            bicubic = info.resample == "bicubic"
            pixels, *_ = decode_picture(path.read_bytes(), input_px=info.input_px, bicubic=bicubic)
            engine.embed(pixels[np.newaxis])
        print(json.dumps({"cpu_s": time.process_time() - started, "pictures": len(paths)}), flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())
