"""The bench of embedding: its rows, its fidelity and its pictures, without its minutes."""

from __future__ import annotations

import io
import os
from contextlib import closing
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from embedder.vision import Vision
from embedder.vision_options import VisionOptions
from lookalike.bench.embed import BenchPath, Measured, paths, rows
from lookalike.bench.embed_fidelity import Examined, Fidelity, compare, fidelity
from lookalike.bench.embed_path import own_way
from lookalike.bench.embed_pictures import generated, make
from lookalike.bench.embed_plot import plot
from lookalike.bench.embed_run import COLUMNS, shown
from lookalike.bench.proc import on_cpu_s
from tests.pictures import encoded, photo

FIELDS = {
    "name", "engine", "preprocessing", "format", "images_per_s_per_core", "spread", "ratio_to_seed", "cosine_min",
    "cosine_mean", "recall_at_10", "b0_cosine_min", "rss_mb", "start_s",
}  # fmt: skip


def _figures() -> dict[str, object]:
    wanted = paths(["torch", "openvino"])
    rates = {"jpeg": [10.0, 30.0, 20.0], "png": [5.0], "webp": [6.0]}
    found = {path.name: Measured(rates, rss_mb=100.4, start_s=1.234) for path in wanted}
    found["seed"] = Measured({"jpeg": [4.0, 5.0, 6.0], "png": [5.0], "webp": [3.0]})
    costs = {("openvino", "scaled"): Fidelity(0.99, 0.995, 0.9)}
    seeded = {("openvino", "scaled"): Fidelity(0.98, 0.99, 0.8)}
    formats = ("jpeg", "png", "webp")
    return {"rows": rows(wanted, found, dict.fromkeys(formats, costs), dict.fromkeys(formats, seeded)), "device": "x"}


def test_rows_are_engine_by_preprocessing_by_format() -> None:
    """Names are unique; the seed's way comes twice; what users get without options is `default`, JPEG first."""
    table = _figures()["rows"]
    assert isinstance(table, list)
    names = [row["name"] for row in table]
    assert len(set(names)) == len(names) == 3 * (2 + 2 * 3)
    assert {"default", "default-png", "default-webp", "seed", "seed-malloc", "openvino-scaled-turbo"} <= set(names)
    assert all(set(row) == FIELDS for row in table)
    [row] = [row for row in table if row["name"] == "openvino-scaled"]
    assert (row["images_per_s_per_core"], row["spread"], row["ratio_to_seed"]) == (20.0, [10.0, 30.0], 4.0)
    assert (row["cosine_min"], row["recall_at_10"], row["b0_cosine_min"]) == (0.99, 0.9, 0.98)
    [default] = [row for row in table if row["name"] == "default"]
    assert (default["engine"], default["preprocessing"], default["format"]) == ("torch", "full", "jpeg")


def test_the_seed_runs_as_it_would_without_us() -> None:
    """One thread and malloc's own defaults, whatever this process was started with; once with ours."""
    plain, tuned = paths([])
    assert {name for name in plain.environment if name.startswith("MALLOC_")} == set()
    assert plain.environment["OMP_NUM_THREADS"] == "1"
    assert "MALLOC_TOP_PAD_" in tuned.environment
    assert BenchPath("x", "torch", "full").environment == tuned.environment


def test_the_table_has_every_row(tmp_path: Path) -> None:
    """And the plot is a picture."""
    figures = _figures()
    lines = list(shown(figures))
    assert lines[0] == COLUMNS
    assert len(lines) == 1 + 24 + 1
    pytest.importorskip("matplotlib", reason="the plots extra is not installed")
    assert plot(figures, tmp_path / "plot.png")
    with Image.open(tmp_path / "plot.png") as picture:
        assert picture.format == "PNG"


def test_recall_is_of_the_references_nearest() -> None:
    """The same vectors: 1; a mirror image of the order: less; cosine is the least over all."""
    random = np.random.default_rng(0)
    wanted = random.standard_normal((30, 16)).astype(np.float32)
    wanted /= np.linalg.norm(wanted, axis=1, keepdims=True)
    same = fidelity(wanted, wanted)
    assert (round(same.cosine_min, 5), round(same.cosine_mean, 5), same.recall_at_10) == (1, 1, 1)
    other = wanted.copy()
    other[3] = wanted[4]
    moved = fidelity(other, wanted)
    assert moved.cosine_min == pytest.approx(float(wanted[3] @ wanted[4]), abs=1e-5)
    assert moved.recall_at_10 < 1


def test_the_default_path_is_the_references_meaning(tmp_path: Path) -> None:
    """Bytes and weights rounded as the product does it, against float32 throughout: real weights, .999 and more."""
    pictures = [encoded(photo(1101, 950, seed=seed), "JPEG", quality=90) for seed in range(3)]
    examined = Examined("efficientnet_lite0", None, tmp_path)
    found = compare(examined, pictures, [("torch", "full"), ("torch", "scaled")])
    assert found["torch", "full"].cosine_min > 0.999
    assert 0.99 < found["torch", "scaled"].cosine_min < found["torch", "full"].cosine_min


def test_a_path_embeds_what_it_is_given(tmp_path: Path) -> None:
    """Through the worker's decoder process and engine; in batches of what the engine takes, which is one."""
    from embedder.models.registry import model

    config = {
        "path": "torch",
        "preprocessing": "scaled",
        "model": "efficientnet_lite0",
        "weights": str(model("efficientnet_lite0").find_weights().path),
        "cache": str(tmp_path),
    }
    with closing(Vision(VisionOptions("efficientnet_lite0", preprocessing="scaled")).open_decoder(1)) as pool:
        batches = own_way(config, pool)([encoded(photo(seed=seed), "JPEG") for seed in range(5)])
    assert isinstance(batches, list)
    assert [len(batch) for batch in batches] == [1, 1, 1, 1, 1]


def test_pictures_come_in_three_formats(tmp_path: Path) -> None:
    """Photographs and generated ones from the first on, of 2.5 megapixels."""
    found = make(tmp_path, n=8)
    assert {kind: len(files) for kind, files in found.items()} == {"jpeg": 8, "png": 4, "webp": 4}
    for kind, files in found.items():
        with Image.open(files[0]) as picture:
            assert picture.format == kind.upper()
            assert 2_400_000 < picture.width * picture.height < 2_600_000


def test_generated_pictures_are_the_same_again() -> None:
    """By their seed; and not the same as the next."""
    assert generated(1).tobytes() == generated(1).tobytes()
    assert generated(1).tobytes() != generated(2).tobytes()


def test_cpu_time_counts_what_is_below() -> None:
    """It grows while this process computes."""
    before = on_cpu_s([os.getpid()])
    Image.open(io.BytesIO(encoded(photo(2000, 1500), "JPEG"))).load()
    assert on_cpu_s([os.getpid()]) > before
