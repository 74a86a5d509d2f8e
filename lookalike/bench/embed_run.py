"""`bench embed` from beginning to end: pictures, weights, speed, two processes, fidelity, the floor."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

from lookalike.bench import embed_pictures
from lookalike.bench.embed import (
    DEFAULT,
    MODEL,
    REAL_MODEL,
    BenchPath,
    Setup,
    measure,
    measure_two,
    paths,
    rows,
)
from lookalike.bench.embed_fidelity import Examined, Fidelity, compare
from lookalike.bench.embed_floor import child_overhead, floor, seeded_weights
from lookalike.bench.embed_gpu import measure_gpu
from lookalike.bench.proc import device

COLUMNS = ("name", "images_per_s_per_core", "spread", "ratio_to_seed", "cosine_min", "cosine_mean", "recall_at_10",
           "b0_cosine_min", "rss_mb", "start_s")  # fmt: skip


def run_embed(
    folder: Path, *, n_pictures: int, n_timed: int, rounds: int, tell: Callable[[str], None]
) -> dict[str, Any]:
    """Everything, in a scratch folder."""
    tell(f"making {n_pictures} JPEG, {n_pictures // 2} PNG and WebP of 2.5 megapixels")
    pictures = embed_pictures.make(folder / "pictures", n=n_pictures)
    setup = Setup(pictures, seeded_weights(folder / "b0.pth"), folder / "cache")
    wanted = paths(_engines())
    combinations = [(path.engine, path.preprocessing) for path in wanted if path.engine != "seed"]
    tell("fidelity")  # first: it exports the networks, so that the paths start as a second start does
    real = _fidelity(setup, REAL_MODEL, None, combinations)
    seeded = _fidelity(setup, MODEL, setup.weights, combinations)
    tell(f"{rounds} rounds of {len(wanted)} paths")
    n = {kind: n_timed if kind == "jpeg" else n_timed // 2 for kind in pictures}
    found = measure(setup, wanted, rounds=rounds, n=n)
    table = rows(wanted, found, real, seeded)
    ours = [path for path in wanted if path.engine != "seed"]
    fastest = max(ours, key=lambda path: found[path.name].rate("jpeg"))
    tell("two processes, and the floor")
    return {"rows": table, **_beside(setup, ours, fastest, found[fastest.name].rate("jpeg"), rounds, n_timed)}


def _beside(
    setup: Setup, ours: list[BenchPath], fastest: BenchPath, rate: float, rounds: int, n: int
) -> dict[str, Any]:
    default = next(path for path in ours if (path.engine, path.preprocessing) == DEFAULT)
    jpegs = [path.read_bytes() for path in setup.pictures["jpeg"][:n]]
    bottom = floor(jpegs)
    gpu = measure_gpu(jpegs, weights=setup.weights)
    return {
        "two_process_ratio": _rounded(measure_two(setup, default, rounds=rounds, n=n)),
        "two_process_ratio_fastest": _rounded(measure_two(setup, fastest, rounds=rounds, n=2 * n)),
        **bottom,
        "fastest": fastest.name,
        "share_of_floor": round(rate / bottom["floor_images_per_s"], 3),
        "decode_child_overhead": round(child_overhead(jpegs), 4),
        **({} if gpu is None else {"gpu": gpu}),
        "device": device(),
    }


def _engines() -> list[str]:
    """Those that are installed; the GPU has its own part."""
    from embedder.models.engines import ENGINES, missing_packages

    return [word for word in ENGINES if not word.endswith("cuda") and not missing_packages(word)]


def _fidelity(
    setup: Setup, name: str, weights: Path | None, combinations: list[tuple[str, str]]
) -> dict[str, Mapping[tuple[str, str], Fidelity]]:
    examined = Examined(name, weights, setup.cache)
    return {
        kind: compare(examined, [path.read_bytes() for path in files], combinations)
        for kind, files in setup.pictures.items()
    }


def _rounded(value: float | None) -> float | None:
    return None if value is None else round(value, 3)


def shown(figures: Mapping[str, Any]) -> Iterator[tuple[object, ...]]:
    """What a person reads: the rows, then what stands beside them."""
    yield COLUMNS
    for row in figures["rows"]:
        yield tuple(_cell(row[column]) for column in COLUMNS)
    for name, value in figures.items():
        if name != "rows":
            yield (name, value, *[""] * (len(COLUMNS) - 2))


def _cell(value: object) -> object:
    if isinstance(value, list):
        return f"{value[0]}-{value[1]}"
    return "–" if value is None else value
