"""What else finds neighbours within a tenant: numpy and faiss, each with one thread, in a process of its own.

``python -m lookalike.bench.peers`` with a job as JSON on stdin; figures on stdout. faiss is the extra `peers`.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from lookalike.bench.figures import percentile

MAX_GRAPH_POINTS = 100_000
"""A graph of faiss over more points takes longer to build than everything else here."""
TOP = 10
Array = npt.NDArray[np.float32]
Search = Callable[[Array], npt.NDArray[np.int64]]


def run_peers(vectors: Path, queries: Array, tenants: Mapping[str, range], scratch: Path) -> list[dict[str, Any]]:
    """Rows of figures; blocks until they are there."""
    np.save(scratch / "queries.npy", queries)
    job = {
        "vectors": str(vectors),
        "queries": str(scratch / "queries.npy"),
        "tenants": {name: [rows.start, rows.stop] for name, rows in tenants.items()},
    }
    command = [sys.executable, "-m", "lookalike.bench.peers"]
    one_thread = {**os.environ, "OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1"}
    done = subprocess.run(command, input=json.dumps(job), capture_output=True, text=True, env=one_thread, check=True)
    return list(json.loads(done.stdout))


def measure(job: Mapping[str, Any]) -> list[dict[str, Any]]:
    """Every peer in every tenant."""
    vectors = np.load(job["vectors"], mmap_mode="r")
    queries = np.load(job["queries"])
    rows = []
    graph = _faiss_graph(vectors) if len(vectors) <= MAX_GRAPH_POINTS else None
    for tenant, (start, stop) in job["tenants"].items():
        own = np.ascontiguousarray(vectors[start:stop])
        asked = queries[: 20 if len(own) > 100_000 else len(queries)]
        truth = [set(np.argsort(-(own @ query))[:TOP].tolist()) for query in asked]
        peers: dict[str, Search | None] = {"numpy": _numpy(own), "faiss flat": _faiss_flat(own)}
        if graph is not None:
            peers["faiss HNSW, filtered"] = _within(graph, start, stop)
        for name, search in peers.items():
            if search is not None:
                rows.append({"peer": name, "tenant": tenant, "points": stop - start, **_figures(search, asked, truth)})
    return rows


def _figures(search: Search, queries: Array, truth: list[set[int]]) -> dict[str, float]:
    took_ms, found = [], 0
    for query, best in zip(queries, truth, strict=True):
        started = time.perf_counter()
        answer = search(query)
        took_ms.append((time.perf_counter() - started) * 1e3)
        found += len(best & set(answer.tolist()))
    return {
        "recall_at_10": round(found / sum(map(len, truth)), 4),
        "p50_ms": round(percentile(took_ms, 0.5), 3),
        "p95_ms": round(percentile(took_ms, 0.95), 3),
    }


def _numpy(own: Array) -> Search:
    def search(query: Array) -> npt.NDArray[np.int64]:
        scores = own @ query
        return np.argpartition(-scores, TOP)[:TOP] if len(own) > TOP else np.arange(len(own))

    return search


def _faiss_flat(own: Array) -> Search | None:
    try:
        import faiss
    except ImportError:
        return None
    flat = faiss.IndexFlatIP(own.shape[1])
    flat.add(own)
    return lambda query: np.asarray(flat.search(query[None], TOP)[1][0], np.int64)


def _faiss_graph(vectors: Array) -> Any:
    """One graph over all tenants, as deep as ours."""
    try:
        import faiss
    except ImportError:
        return None
    graph = faiss.IndexHNSWFlat(vectors.shape[1], 16, faiss.METRIC_INNER_PRODUCT)
    graph.hnsw.efConstruction = 100
    faiss.omp_set_num_threads(os.cpu_count() or 1)
    graph.add(np.ascontiguousarray(vectors))
    faiss.omp_set_num_threads(1)
    return graph


def _within(graph: Any, start: int, stop: int) -> Search:
    import faiss

    made: Any = faiss  # its stubs lack some names
    only = made.SearchParametersHNSW(sel=faiss.IDSelectorRange(start, stop), efSearch=128)
    return lambda query: np.asarray(graph.search(query[None], TOP, params=only)[1][0] - start, np.int64)


if __name__ == "__main__":
    sys.stdout.write(json.dumps(measure(json.load(sys.stdin))) + "\n")
