"""`lookalike bench search` on a few points: every figure that it promises is there, and recall is whole."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

from lookalike.bench.peers import measure
from lookalike.bench.search import QUESTIONS

SHAPES = {
    "one_tenant",
    "one_tenant_tiny",
    "one_tenant_half",
    "tenant_and_tag",
    "tenant_and_attribute",
    "tenant_and_time",
    "tenant_and_not",
    "tenant_rare_tag",
    "tenant_threshold",
    "positive_negative",
}


def test_a_small_run_has_every_figure(tmp_path: Path) -> None:
    """Build, restart, every shape in the index and over a real API, loads, writes and peers, in one object."""
    command = [sys.executable, "-m", "lookalike", "bench", "search", "--points", "2000", "--dims", "16"]
    command += ["--queries", "4", "--seconds", "0.5", "--json", "--keep", str(tmp_path / "kept")]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False, timeout=280)
    assert done.returncode == 0, done.stderr
    figures = json.loads(done.stdout.splitlines()[-1])
    assert figures["points"] == 2000
    assert set(QUESTIONS) >= SHAPES
    alone = [row for row in figures["rows"] if row["clients"] == 1]
    assert {row["shape"] for row in alone} == set(QUESTIONS)
    assert {row["clients"] for row in figures["rows"]} == {1, 8, 32}
    for row in alone:
        assert row["recall_at_10"] >= 0.97
        assert 0 < row["index_p50_ms"] <= row["index_p95_ms"] <= row["index_p99_ms"]
        assert 0 < row["http_p50_ms"] <= row["http_p95_ms"]
    for name in ("build_s", "disk_mb", "read_ahead_mb", "rss_mb", "write_p95_ratio", "write_p95_ratio_500"):
        assert figures[name] > 0, name
    assert {row["peer"] for row in figures["peers"]} >= {"numpy"}
    assert "cores" in figures["device"]
    assert json.loads((tmp_path / "build" / "bench-search.json").read_text()) == figures


def test_peers_are_measured_on_the_same_rows(tmp_path: Path) -> None:
    """numpy and faiss's flat index find everything; a tenant's rows are its own."""
    import numpy as np

    rng = np.random.default_rng(1)
    np.save(tmp_path / "v.npy", rng.normal(size=(600, 16)).astype(np.float32))
    np.save(tmp_path / "q.npy", rng.normal(size=(5, 16)).astype(np.float32))
    rows = measure({"vectors": tmp_path / "v.npy", "queries": tmp_path / "q.npy", "tenants": {"a": [100, 500]}})
    found = {row["peer"]: row["recall_at_10"] for row in rows}
    assert found["numpy"] == 1.0
    assert all(found[name] == 1.0 for name in found if name == "faiss flat")
