"""``bench search``: a collection is built, its process started anew, and asked in every shape, alone and under load.

Index figures are taken at the process's socket (one client, hop included), HTTP figures by a process of
its own through a real API. Truth is numpy over the rows that the filter allows.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import Future
from contextlib import closing, contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from msgspec.structs import replace

from embedder.index.filters import Filter, matches
from embedder.index.points import apply
from embedder.index.policy import SCAN_UP_TO
from embedder.index.protocol import Receipt
from embedder.index.query import Query
from embedder.index.service.client import IndexClient
from lookalike.bench.clustered import FIELDS, HALF, SHAPES, TENTH, TINY, TWENTIETH, Clustered
from lookalike.bench.figures import percentile
from lookalike.bench.load import Job, Result
from lookalike.bench.peers import run_peers
from lookalike.bench.proc import descendants, device, rss_mb
from lookalike.bench.search_place import Place, build, read_ahead
from lookalike.local.processes import OwnProcess, free_ports
from lookalike.output import note

TOP = 10
READY_S = 120.0
LOAD_S = 10.0
OPEN_RATE = 50.0
WRITE_BATCH = 16


@dataclass(frozen=True, slots=True)
class Shape:
    """One kind of question: whose, narrowed how; `api` is its filter in the API's language."""

    tenant: str
    filter: Filter | None = None
    api: Mapping[str, Any] | None = None
    score_threshold: float | None = None
    negative: bool = False


QUESTIONS: Mapping[str, Shape] = {
    "one_tenant": Shape(TENTH),
    "one_tenant_tiny": Shape(TINY),
    "one_tenant_twentieth": Shape(TWENTIETH),
    "one_tenant_half": Shape(HALF),
    "tenant_and_tag": Shape(HALF, SHAPES["tag"], {"tags": ["topic-3"]}),
    "tenant_and_attribute": Shape(HALF, SHAPES["attribute"], {"attribute": "colour", "in": ["red"]}),
    "tenant_and_time": Shape(
        HALF, SHAPES["time"], {"range": "taken_at", "gte": "2024-01-13T22:13:20Z", "lt": "2024-03-13T22:13:20Z"}
    ),
    "tenant_and_not": Shape(HALF, SHAPES["not"], {"not": {"attribute": "colour", "in": ["red"]}}),
    "tenant_rare_tag": Shape(HALF, SHAPES["rare_tag"], {"tags": ["rare"]}),
    "tenant_threshold": Shape(TENTH, score_threshold=0.6),
    "positive_negative": Shape(TENTH, negative=True),
    "small_tenant_and_attribute": Shape(TENTH, SHAPES["attribute"], {"attribute": "colour", "in": ["red"]}),
}


@contextmanager
def serving(place: Place) -> Iterator[tuple[IndexClient, int]]:
    """The index process, started on what was built, and its process id."""
    command = [sys.executable, "-m", "lookalike", "index", "serve", "--data", str(place.index)]
    process = OwnProcess([*command, "--socket", str(place.socket)], log=place.folder / "index.log")
    try:
        with closing(IndexClient(place.socket, timeout_s=60.0)) as client:
            _wait(lambda: client.ping() == process.pid)
            yield client, process.pid
    finally:
        process.stop(30.0)


@contextmanager
def answering(place: Place) -> Iterator[int]:
    """A real API on that index; its port. It has no broker and no pictures: it is asked nothing that needs them."""
    (port, nobody) = free_ports(2)
    (place.folder / "objects").mkdir(exist_ok=True)
    environment = {
        **os.environ,
        "LOOKALIKE_INDEX_SOCKET": str(place.socket),
        "LOOKALIKE_OBJECTS_DIR": str(place.folder / "objects"),
        "LOOKALIKE_KAFKA_BOOTSTRAP": f"127.0.0.1:{nobody}",
    }
    command = [sys.executable, "-m", "lookalike", "api", "--port", str(port)]
    process = OwnProcess(command, log=place.folder / "api.log", env=environment)
    try:
        probe = [_get(f"/v1/tenants/{TINY}/images?limit=1")]
        _wait(lambda: bool(load(Job(port, probe, 0.1)).latencies_ms))
        yield port
    finally:
        process.stop(30.0)


def load(job: Job) -> Result:
    """Run a job in a process of its own."""
    command = [sys.executable, "-m", "lookalike.bench.load"]
    done = subprocess.run(command, input=json.dumps(asdict(job)), capture_output=True, text=True, check=False)
    if done.returncode != 0:
        raise ConnectionError(done.stderr.strip().rpartition("\n")[2])
    return Result(**json.loads(done.stdout))


class Truth:
    """What the right answers are."""

    def __init__(self, place: Place, data: Clustered) -> None:
        self.vectors: npt.NDArray[np.float32] = np.load(place.vectors, mmap_mode="r")
        self._data = data

    def allowed(self, shape: Shape) -> npt.NDArray[np.int64]:
        """The rows that the tenant and the filter leave."""
        rows = self._data.tenants[shape.tenant]
        if shape.filter is None:
            return np.arange(rows.start, rows.stop)
        return np.array([row for row in rows if self._holds(shape, row)], np.int64)

    def best(
        self, shape: Shape, allowed: npt.NDArray[np.int64], wanted: npt.NDArray[np.float32], without: set[int]
    ) -> list[set[int]]:
        """The best rows for each of the vectors (n, dim) looked for."""
        scores = np.concatenate(
            [wanted @ self.vectors[allowed[start : start + 50_000]].T for start in range(0, len(allowed), 50_000)],
            axis=1,
        )
        if without:
            scores[:, np.isin(allowed, list(without))] = -2
        lowest = -1.0 if shape.score_threshold is None else shape.score_threshold
        order = np.argsort(-scores, axis=1)[:, :TOP]
        return [{int(allowed[n]) for n in best if row[n] >= lowest} for row, best in zip(scores, order, strict=True)]

    def _holds(self, shape: Shape, row: int) -> bool:
        point = apply(shape.tenant, None, self._data.put(row, self.vectors[0])).point
        return point is not None and shape.filter is not None and matches(shape.filter, point, FIELDS)


@dataclass(frozen=True, slots=True)
class Asked:
    """The questions of one shape, and which rows are right for each."""

    name: str
    tenant: str
    n_candidates: int
    queries: list[Query]
    best: list[set[int]]


def questions(place: Place, data: Clustered, *, n_queries: int) -> list[Asked]:
    """Those of every shape. Made before anything is asked: gigabytes are read for the right answers."""
    truth = Truth(place, data)
    vectors = data.queries(n_queries)
    made = []
    for name, shape in QUESTIONS.items():
        allowed = truth.allowed(shape)
        negative = data.tenants[shape.tenant].start if shape.negative else None
        wanted = vectors
        if negative is not None:
            wanted = 2 * vectors - truth.vectors[negative]
            wanted = wanted / np.linalg.norm(wanted, axis=1, keepdims=True)
        best = truth.best(shape, allowed, wanted, set() if negative is None else {negative})
        made.append(
            Asked(name, shape.tenant, len(allowed), [_query(shape, vector, negative) for vector in vectors], best)
        )
    return made


def ask_all(client: IndexClient, asked: Sequence[Asked]) -> Iterator[dict[str, Any]]:
    """The figures of every shape at the index's socket, one client."""
    for one in asked:
        for query in one.queries[: len(one.queries) // 4]:
            client.search(one.tenant, query)  # pages of the file come into memory
        took_ms, found, exact = [], 0, False
        for query, right in zip(one.queries, one.best, strict=True):
            started = time.perf_counter()
            hits = client.search(one.tenant, query)
            took_ms.append((time.perf_counter() - started) * 1e3)
            found += len(right & {int(hit.image_id[1:]) for hit in hits.hits})
            exact = hits.exact
        yield {
            "shape": one.name,
            "candidates": one.n_candidates,
            "policy": "exact" if exact else "scan" if one.n_candidates <= SCAN_UP_TO else "graph",
            "clients": 1,
            "recall_at_10": round(found / max(1, sum(map(len, one.best))), 4),
            "index_p50_ms": round(percentile(took_ms, 0.5), 3),
            "index_p95_ms": round(percentile(took_ms, 0.95), 3),
            "index_p99_ms": round(percentile(took_ms, 0.99), 3),
        }


def over_http(port: int, data: Clustered, shape: Shape, *, clients: int = 1, seconds: float = LOAD_S) -> dict[str, Any]:
    """The same question through the API, closed loop."""
    requests = [_post(shape, vector, data) for vector in data.queries(50)]
    result = load(Job(port, requests, seconds, clients))
    if result.failed or not result.latencies_ms:
        raise RuntimeError(f"{result.failed} of {len(result.latencies_ms)} requests failed: {result.failure}")
    return {
        "http_p50_ms": round(percentile(result.latencies_ms, 0.5), 3),
        "http_p95_ms": round(percentile(result.latencies_ms, 0.95), 3),
        "http_per_s": round(len(result.latencies_ms) / result.seconds, 1),
    }


def by_id(port: int, data: Clustered, tenant: str, *, seconds: float, rate: float | None = None) -> list[float]:
    """Latencies of ``images/{id}/similar``, closed loop with one client or open loop."""
    rows = np.random.default_rng(5).choice(data.tenants[tenant], min(500, len(data.tenants[tenant])), replace=False)
    result = load(Job(port, [_get(f"/v1/tenants/{tenant}/images/i{row}/similar") for row in rows], seconds, rate=rate))
    if result.failed:
        raise RuntimeError(f"{result.failed} requests failed: {result.failure}")
    return result.latencies_ms


@contextmanager
def writing(client: IndexClient, data: Clustered, *, rate: int) -> Iterator[list[int]]:
    """New pictures at so many a second, in calls of 16, meanwhile; gives how many were acknowledged.

    The pauses between calls are random: at equal ones, every search of an open loop would meet a call, or none would.
    """
    stop, acknowledged = threading.Event(), [0]
    vectors = data.queries(400)
    run = time.time_ns()

    def count(receipt: Future[Receipt]) -> None:
        acknowledged[0] += WRITE_BATCH if receipt.exception() is None else 0

    def write() -> None:
        started, n, due_s = time.perf_counter(), 0, 0.0
        pauses = np.random.default_rng(11)
        while not stop.is_set():
            batch = [
                replace(data.put((n + i) % data.n_points, vectors[(n + i) % 400]), image_id=f"new{run}-{n + i}")
                for i in range(WRITE_BATCH)
            ]
            receipt = client.write("middle-0", batch)
            receipt.add_done_callback(count)
            n += WRITE_BATCH
            due_s += pauses.exponential(WRITE_BATCH / rate)
            stop.wait(max(0.0, started + due_s - time.perf_counter()))

    thread = threading.Thread(target=write)
    thread.start()
    try:
        yield acknowledged
    finally:
        stop.set()
        thread.join()


def run_search(folder: Path, *, n_points: int, dim: int, n_queries: int, seconds: float, peers: bool) -> dict[str, Any]:
    """Everything, in one object; `folder` keeps the build for another run."""
    place, data = Place(folder), Clustered(n_points, dim)
    folder.mkdir(parents=True, exist_ok=True)
    built = build(place, data)
    asked = questions(place, data, n_queries=n_queries)
    with serving(place) as (client, pid):
        ahead = read_ahead(place)
        rows = []
        resident: list[float] = []  # exact comparisons bring pages of the originals into memory, which stay there
        for row in ask_all(client, asked):
            note(json.dumps(row))
            rows.append(row)
            resident.append(sum(map(rss_mb, descendants(pid))))
        with answering(place) as port:
            for row in rows:
                row.update(over_http(port, data, QUESTIONS[row["shape"]], seconds=seconds / 2))
            for clients in (8, 32):
                figures = over_http(port, data, QUESTIONS["one_tenant"], clients=clients, seconds=seconds)
                rows.append({"shape": "one_tenant", "policy": rows[0]["policy"], "clients": clients, **figures})
            closed = by_id(port, data, TENTH, seconds=seconds)
            loaded = _while_writing(port, client, data, seconds=2 * seconds)
    return {
        "points": n_points,
        "dims": dim,
        **built,
        **ahead,
        "rss_mb": round(resident[0], 1),
        "rss_after_exact_mb": round(max(resident), 1),
        "rows": rows,
        "similar_http_p50_ms": round(percentile(closed, 0.5), 3),
        "similar_http_p95_ms": round(percentile(closed, 0.95), 3),
        **loaded,
        "peers": _peers(place, data, n_queries) if peers else [],
        "device": device(),
    }


def _while_writing(port: int, client: IndexClient, data: Clustered, *, seconds: float) -> dict[str, float]:
    """Search p95 and p99 in an open loop, alone and beside writes, and the ratios."""
    figures: dict[str, float] = {}
    idle = by_id(port, data, TENTH, seconds=seconds, rate=OPEN_RATE)
    figures["idle_p95_ms"] = round(percentile(idle, 0.95), 3)
    figures["idle_p99_ms"] = round(percentile(idle, 0.99), 3)
    for rate, suffix in ((200, ""), (500, "_500")):
        with writing(client, data, rate=rate) as acknowledged:
            busy = by_id(port, data, TENTH, seconds=seconds, rate=OPEN_RATE)
        figures[f"write_p95_ms{suffix}"] = round(percentile(busy, 0.95), 3)
        figures[f"write_max_ms{suffix}"] = round(max(busy), 3)
        figures[f"write_p95_ratio{suffix}"] = round(percentile(busy, 0.95) / percentile(idle, 0.95), 3)
        figures[f"acknowledged_per_s{suffix}"] = round(acknowledged[0] / seconds, 1)
    return figures


def _peers(place: Place, data: Clustered, n_queries: int) -> list[dict[str, Any]]:
    tenants = {name: data.tenants[name] for name in (TENTH, HALF, TINY)}
    return run_peers(place.vectors, data.queries(n_queries), tenants, place.folder)


def _query(shape: Shape, vector: npt.NDArray[np.float32], negative: int | None) -> Query:
    others = () if negative is None else (f"i{negative}",)
    return Query((vector,), others, shape.filter, shape.score_threshold, limit=TOP)


def _post(shape: Shape, vector: npt.NDArray[np.float32], data: Clustered) -> str:
    body: dict[str, Any] = {"positive": [[round(float(x), 6) for x in vector]], "limit": TOP}
    if shape.api is not None:
        body["filter"] = shape.api
    if shape.score_threshold is not None:
        body["score_threshold"] = shape.score_threshold
    if shape.negative:
        body["negative"] = [f"i{data.tenants[shape.tenant].start}"]
    text = json.dumps(body)
    return (
        f"POST /v1/tenants/{shape.tenant}/search HTTP/1.1\r\nHost: 127.0.0.1:PORT\r\nContent-Type: application/json\r\n"
        f"Content-Length: {len(text)}\r\n\r\n{text}"
    )


def _get(path: str) -> str:
    return f"GET {path} HTTP/1.1\r\nHost: 127.0.0.1:PORT\r\n\r\n"


def _wait(ready: Any) -> None:
    from streams.errors import LookalikeError

    deadline = time.monotonic() + READY_S
    while True:
        try:
            if ready():
                return
        except (OSError, LookalikeError):
            if time.monotonic() > deadline:
                raise
        if time.monotonic() > deadline:
            raise TimeoutError(f"not ready within {READY_S:g} s")
        time.sleep(0.1)
