"""Bytes in, vector out: engine × preprocessing × format against the seed's way, each path in its own process.

All paths are started before anything is timed, wait pinned to the first core, and take turns: in each round
every path embeds the same files, so that whatever else the machine does falls on all of them. A rate is per
second of CPU (network and decoder process together): on its one core a path never waits for anything else.
"""

from __future__ import annotations

import json
import os
import statistics
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Self

from embedder.process_environment import PROCESS_ENVIRONMENT
from lookalike.bench.embed_fidelity import Fidelity

MODEL = "efficientnet_b0"
REAL_MODEL = "efficientnet_lite0"
PREPROCESSINGS = ("full", "scaled", "scaled-turbo")
DEFAULT = ("torch", "full")
CHILD = "lookalike.bench.embed_path"


@dataclass(frozen=True, slots=True)
class BenchPath:
    """One way from bytes to vector. `preprocessing` is "" for the seed's, which has its own."""

    name: str
    engine: str
    preprocessing: str
    malloc: bool = True

    @property
    def environment(self) -> dict[str, str]:
        """Variables of malloc and OpenMP only as this path is meant to have them."""
        plain = {name: value for name, value in os.environ.items() if name not in PROCESS_ENVIRONMENT}
        return {**plain, **(PROCESS_ENVIRONMENT if self.malloc else {"OMP_NUM_THREADS": "1"})}


def paths(engines: Sequence[str]) -> list[BenchPath]:
    """The seed's way twice, then every engine with every preprocessing; what users get without options is `default`."""
    found = [BenchPath("seed", "seed", "", malloc=False), BenchPath("seed-malloc", "seed", "")]
    pairs = [(engine, word) for engine in engines for word in PREPROCESSINGS]
    return found + [BenchPath("default" if pair == DEFAULT else "-".join(pair), *pair) for pair in pairs]


@dataclass
class Measured:
    """What one path gave: images per second of CPU of each round by format, memory, seconds until it was ready."""

    rates: dict[str, list[float]] = field(default_factory=dict)
    rss_mb: float = 0.0
    start_s: float = 0.0

    def rate(self, kind: str) -> float:
        return statistics.median(self.rates[kind])


class Running:
    """A path's process, pinned to one core with the decoder below it."""

    def __init__(self, path: BenchPath, *, core: int, weights: Path, cache: Path, warm_up: Path) -> None:
        config = {
            "path": path.engine,
            "preprocessing": path.preprocessing,
            "model": MODEL,
            "weights": str(weights),
            "cache": str(cache),
            "warm_up": str(warm_up),
        }
        started = time.perf_counter()
        self._process = subprocess.Popen(
            ["taskset", "-c", str(core), sys.executable, "-W", "ignore", "-m", CHILD, json.dumps(config)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            env=path.environment,
            text=True,
        )
        self._answer()
        self.start_s = time.perf_counter() - started

    def begin(self, pictures: Sequence[Path]) -> None:
        """Hand it the files; it starts at once."""
        assert self._process.stdin is not None
        self._process.stdin.write(json.dumps([str(one) for one in pictures]) + "\n")
        self._process.stdin.flush()

    def result(self) -> dict[str, float]:
        return self._answer()

    def run(self, pictures: Sequence[Path]) -> dict[str, float]:
        self.begin(pictures)
        return self.result()

    def _answer(self) -> dict[str, float]:
        assert self._process.stdout is not None
        line = self._process.stdout.readline()
        if not line:
            raise RuntimeError(f"a path's process ended with {self._process.wait()}: its stderr says why")
        answer: dict[str, float] = json.loads(line)
        return answer

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._process.communicate(timeout=60)


@dataclass(frozen=True, slots=True)
class Setup:
    """Files that every path works with."""

    pictures: Mapping[str, Sequence[Path]]
    weights: Path
    cache: Path


def measure(setup: Setup, wanted: Sequence[BenchPath], *, rounds: int, n: Mapping[str, int]) -> dict[str, Measured]:
    """`rounds` rounds over the first `n` files of each format, by the path's name."""
    core = min(os.sched_getaffinity(0))
    found = {path.name: Measured() for path in wanted}
    with ExitStack() as stack:
        running = {}
        for path in wanted:
            running[path.name] = one = stack.enter_context(_started(setup, path, core))
            found[path.name].start_s = one.start_s
        for _ in range(rounds):
            for kind, pictures in setup.pictures.items():
                for name, one in running.items():
                    answer = one.run(pictures[: n[kind]])
                    found[name].rates.setdefault(kind, []).append(answer["images"] / answer["cpu_s"])
                    found[name].rss_mb = max(found[name].rss_mb, answer["rss_mb"])
    return found


def measure_two(setup: Setup, path: BenchPath, *, rounds: int, n: int) -> float | None:
    """Two processes on two cores against one, alternating: the ratio of the medians. None on one core."""
    cores = sorted(os.sched_getaffinity(0))[:2]
    if len(cores) < 2:
        return None
    pictures = setup.pictures["jpeg"][:n]
    single, double = [], []
    with _started(setup, path, cores[0]) as first, _started(setup, path, cores[1]) as second:
        for _ in range(rounds):
            answer = first.run(pictures)
            single.append(answer["images"] / answer["seconds"])
            both = (first, second)
            for one in both:
                one.begin(pictures)
            answers = [one.result() for one in both]
            double.append(sum(a["images"] for a in answers) / max(a["seconds"] for a in answers))
    return statistics.median(double) / statistics.median(single)


@contextmanager
def _started(setup: Setup, path: BenchPath, core: int) -> Iterator[Running]:
    warm_up = setup.pictures["jpeg"][0]
    with Running(path, core=core, weights=setup.weights, cache=setup.cache, warm_up=warm_up) as running:
        yield running


def rows(
    wanted: Sequence[BenchPath],
    found: Mapping[str, Measured],
    real: Mapping[str, Mapping[tuple[str, str], Fidelity]],
    seeded: Mapping[str, Mapping[tuple[str, str], Fidelity]],
) -> list[dict[str, Any]]:
    """One row a path and format, JPEG first; fidelity by format, with real weights and with seeded ones."""
    return [
        _row(
            path,
            kind,
            found,
            real[kind].get((path.engine, path.preprocessing)),
            seeded[kind].get((path.engine, path.preprocessing)),
        )
        for kind in real
        for path in wanted
    ]


def _row(
    path: BenchPath, kind: str, found: Mapping[str, Measured], real: Fidelity | None, seeded: Fidelity | None
) -> dict[str, Any]:
    measured = found[path.name]
    rates = measured.rates[kind]
    return {
        "name": path.name if kind == "jpeg" else f"{path.name}-{kind}",
        "engine": "img2vec" if path.engine == "seed" else path.engine,
        "preprocessing": path.preprocessing or "img2vec",
        "format": kind,
        "images_per_s_per_core": round(measured.rate(kind), 2),
        "spread": [round(min(rates), 2), round(max(rates), 2)],
        "ratio_to_seed": round(measured.rate(kind) / found["seed"].rate(kind), 3),
        "cosine_min": None if real is None else round(real.cosine_min, 5),
        "cosine_mean": None if real is None else round(real.cosine_mean, 5),
        "recall_at_10": None if real is None else round(real.recall_at_10, 4),
        "b0_cosine_min": None if seeded is None else round(seeded.cosine_min, 5),
        "rss_mb": round(measured.rss_mb),
        "start_s": round(measured.start_s, 2),
    }
