"""The worker with everything real, against a bare loop on the same pictures and the same core.

The worker and its decode children are pinned to the first core; broker and index process run beside
them, unpinned, and do not count. Rounds alternate (worker, bare loop, worker, …) within one run, so that
whatever else the machine does falls on both.
"""

from __future__ import annotations

import json
import os
import statistics
import subprocess
import sys
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Self

from embedder.objects.folder import FolderStore
from embedder.process_environment import PROCESS_ENVIRONMENT
from lookalike.bench.proc import cpu_s, rss_mb, thread_cpu_s
from lookalike.following import OutcomeFollower
from lookalike.local.processes import OwnProcess
from streams.event import Location, created, encode
from streams.producer import KafkaProducer
from streams.report.outcomes import Outcome, OutcomeState
from streams.topics import Lane, TopicNames, create, specs

BUCKET = "pictures"
TENANT = "bench"
MODEL = "efficientnet_lite0"
PARTITIONS = 4
WARM_UP = 8


@dataclass
class RealRun:
    """What one run gave: CPU seconds per picture of each round, outcomes under load, single events when idle."""

    worker_cpu_s: list[float] = field(default_factory=list)
    thread_cpu_s: dict[str, float] = field(default_factory=dict)
    bare_cpu_s: list[float] = field(default_factory=list)
    outcomes: list[Outcome] = field(default_factory=list)
    seconds: float = 0.0
    idle_freshness_s: list[float] = field(default_factory=list)
    rss_start_mb: float = 0.0
    rss_end_mb: float = 0.0

    @property
    def bare_ratio(self) -> float:
        """CPU per picture of the worker against the bare loop: the ratio of the rounds' medians."""
        return statistics.median(self.worker_cpu_s) / statistics.median(self.bare_cpu_s)


def run_real(
    bootstrap: str, folder: Path, pictures: Sequence[Path], *, prefix: str, rounds: int, n_idle: int
) -> RealRun:
    """`rounds` rounds over all `pictures`, then `n_idle` single events, each after the one before is done."""
    names = TopicNames(prefix)
    client: dict[str, str | int] = {"bootstrap.servers": bootstrap, "log_level": 0}
    create(client, specs(names, partitions=PARTITIONS))
    found = RealRun()
    with ExitStack() as stack:
        stack.enter_context(index_process(folder))
        worker = stack.enter_context(_worker(bootstrap, folder, prefix))
        bare = stack.enter_context(BareLoop())
        feed = stack.enter_context(Feed(client, names, folder / "objects", pictures))
        feed.send(range(WARM_UP))
        bare.run(pictures[:WARM_UP])
        found.rss_start_mb = rss_mb(worker)
        threads = thread_cpu_s(worker, main="embed", below="decode")
        for _ in range(rounds):
            before = cpu_s(worker)
            outcomes = feed.send(range(len(pictures)))
            found.worker_cpu_s.append((cpu_s(worker) - before) / len(pictures))
            found.outcomes += outcomes
            found.seconds += span_s(outcomes)
            found.bare_cpu_s.append(bare.run(pictures))
        found.thread_cpu_s = less(thread_cpu_s(worker, main="embed", below="decode"), threads)
        for n in range(n_idle):
            (outcome,) = feed.send([n % len(pictures)])
            assert outcome.freshness_s is not None
            found.idle_freshness_s.append(outcome.freshness_s)
        found.rss_end_mb = rss_mb(worker)
    return found


def less(now: dict[str, float], before: dict[str, float]) -> dict[str, float]:
    """What was spent between two readings."""
    return {name: seconds - before.get(name, 0.0) for name, seconds in now.items()}


def span_s(outcomes: Sequence[Outcome]) -> float:
    """From the first event in a worker's hands to the last outcome."""
    start = min(one.at_us / 1e6 - sum(one.stage_s.values()) for one in outcomes)
    return max(one.at_us for one in outcomes) / 1e6 - start


class Feed:
    """Announces pictures and waits for their outcomes. Without an ETag each announcement is embedded anew."""

    def __init__(
        self, client: dict[str, str | int], names: TopicNames, objects: Path, pictures: Sequence[Path]
    ) -> None:
        self._names = names
        self._producer = KafkaProducer(client)
        self._outcomes = OutcomeFollower(client, names.outcomes)
        store = FolderStore(objects)
        self._locations = []
        for n, picture in enumerate(pictures):
            key = f"{TENANT}/{n}{picture.suffix}"
            store.put(BUCKET, key, picture.read_bytes())
            self._locations.append(Location(BUCKET, key))

    def send(self, numbers: Sequence[int] | range) -> list[Outcome]:
        """The outcomes of these pictures, all of which must be indexed."""
        events = [created(TENANT, f"i{n}", self._locations[n]) for n in numbers]
        for event in events:
            key, value, headers = encode(event)
            topic = self._names.lane(Lane.LIVE)
            self._producer.send(topic, key=key, value=value, headers=headers, on_ack=lambda _error: None)
        outcomes = list(self._outcomes.wait([event.event_id for event in events]).values())
        failed = [one for one in outcomes if one.state is not OutcomeState.INDEXED]
        if failed or len(outcomes) < len(events):
            raise RuntimeError(f"of {len(events)} pictures {len(outcomes)} have an outcome, {failed[:1]} failed")
        return outcomes

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._outcomes.close()
        self._producer.close()


class BareLoop:
    """The other side of the ratio, on the worker's core and with its environment."""

    def __enter__(self) -> Self:
        self._process = subprocess.Popen(
            [sys.executable, "-m", "lookalike.bench.bare", MODEL],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            env={**os.environ, **PROCESS_ENVIRONMENT},
            text=True,
        )
        os.sched_setaffinity(self._process.pid, {_core()})
        return self

    def run(self, pictures: Sequence[Path]) -> float:
        """CPU seconds per picture."""
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.write(json.dumps([str(picture) for picture in pictures]) + "\n")
        self._process.stdin.flush()
        answer: dict[str, Any] = json.loads(self._process.stdout.readline())
        return float(answer["cpu_s"]) / int(answer["pictures"])

    def __exit__(self, *_: object) -> None:
        self._process.communicate(timeout=60)


@contextmanager
def index_process(folder: Path, *, engine: str = "edge") -> Iterator[None]:
    """The index process of a data folder, as `up` runs it."""
    command = [sys.executable, "-m", "lookalike", "index", "serve", "--engine", engine]
    command += ["--data", str(folder / "index")]
    with _running([*command, "--socket", str(folder / "index.sock")], folder / "index.log", dict(os.environ)):
        yield


@contextmanager
def _worker(bootstrap: str, folder: Path, prefix: str) -> Iterator[int]:
    """A worker on the first core; its children inherit that. Gives its process id."""
    (folder / "objects").mkdir(exist_ok=True)
    env = {
        **os.environ,
        **PROCESS_ENVIRONMENT,
        "LOOKALIKE_KAFKA_BOOTSTRAP": bootstrap,
        "LOOKALIKE_KAFKA_TOPIC_PREFIX": prefix,
        "LOOKALIKE_KAFKA_GROUP_ID": f"{prefix}bench",
        "LOOKALIKE_KAFKA_PARTITIONS": str(PARTITIONS),
        "LOOKALIKE_INDEX_SOCKET": str(folder / "index.sock"),
        "LOOKALIKE_OBJECTS_DIR": str(folder / "objects"),
        "LOOKALIKE_MODEL": MODEL,
        "LOOKALIKE_DECODE_CHILDREN": "1",
    }
    command = ["taskset", "-c", str(_core()), sys.executable, "-m", "lookalike", "worker"]
    command += ["--allow-single-broker"]
    with _running(command, folder / "worker.log", env) as process:
        yield process.pid


@contextmanager
def _running(command: list[str], log: Path, env: dict[str, str]) -> Iterator[OwnProcess]:
    process = OwnProcess(command, log=log, env=env)
    try:
        yield process
    finally:
        process.stop(20.0)


def _core() -> int:
    return min(os.sched_getaffinity(0))
