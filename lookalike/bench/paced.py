"""Freshness while events come steadily: at a part of what the worker can do, and beside a flood of another tenant."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from collections.abc import Mapping
from contextlib import closing
from pathlib import Path

from embedder.index.exact import ExactIndex
from lookalike.bench.real import index_process, span_s
from lookalike.bench.set_cost import SPEC, SetCostEngine, running
from lookalike.bench.stub import PARTITIONS, FreeEngine
from lookalike.following import PATIENCE_S
from lookalike.local.processes import OwnProcess
from streams.errors import DependencyError
from streams.group import GroupWatch
from streams.report.outcomes import Outcome, OutcomeState, decode
from streams.tail import Tail, extent
from streams.topics import Lane, TopicNames, create, specs

Client = dict[str, str | int]


def prepare(bootstrap: str, prefix: str) -> tuple[Client, TopicNames]:
    """Topics of its own for one measurement."""
    client: Client = {"bootstrap.servers": bootstrap, "log_level": 0}
    names = TopicNames(prefix)
    create(client, specs(names, partitions=PARTITIONS))
    return client, names


class OutcomesOf:
    """The last outcomes of one tenant's events, or of everybody's, from when this was made."""

    def __init__(self, client: Client, names: TopicNames, tenant_id: str | None = None) -> None:
        self._tail = Tail(client, names.outcomes, start=extent(client, names.outcomes).next_offset)
        self._tenant_id = tenant_id

    def take(self, n: int) -> list[Outcome]:
        """Wait for so many. Raises DependencyError where none comes for minutes."""
        found: list[Outcome] = []
        moved_at = time.monotonic()
        while len(found) < n:
            for record in self._tail.poll(wait_s=0.5):
                outcome = decode(record.value or b"")
                if self._tenant_id in (None, outcome.tenant_id) and outcome.state is not OutcomeState.RETRYING:
                    found.append(outcome)
                    moved_at = time.monotonic()
            if time.monotonic() - moved_at > PATIENCE_S:
                raise DependencyError("broker", f"only {len(found)} of {n} outcomes came")
        return found

    def close(self) -> None:
        self._tail.close()


def feed(bootstrap: str, names: TopicNames, seconds: float, rates: Mapping[str, float]) -> subprocess.Popen[str]:
    """A feeder in a process of its own; its output is how many events each tenant sent."""
    asked = [f"{tenant}={rate}" for tenant, rate in rates.items() if rate > 0]
    command = [sys.executable, "-m", "lookalike.bench.feed", bootstrap, names.prefix, str(seconds), *asked]
    return subprocess.Popen(command, stdout=subprocess.PIPE, text=True)


def fed(feeder: subprocess.Popen[str]) -> dict[str, int]:
    """Wait for it. RuntimeError where the broker did not take everything."""
    output, _ = feeder.communicate(timeout=600)
    if feeder.returncode:
        raise RuntimeError(f"the feeder ended with {feeder.returncode}")
    counts: dict[str, int] = json.loads(output)
    return counts


def run_load(bootstrap: str, *, prefix: str, rate: float, seconds: float) -> list[float]:
    """Freshness in seconds of events of 8 tenants that come at `rate` a second, into a worker with a free embedder."""
    client, names = prepare(bootstrap, prefix)
    with (
        running(client, names, ExactIndex(SPEC), FreeEngine(), max_batch=256),
        closing(OutcomesOf(client, names)) as outcomes,
    ):
        _owned(client, names)
        sent = fed(feed(bootstrap, names, seconds, {f"t{n}": rate / 8 for n in range(8)}))
        return _freshness(outcomes.take(sum(sent.values())))


def run_flood(
    bootstrap: str, *, prefix: str, cost_s: float, seconds: float, solo_s: float, times: float = 3.0, part: float = 0.1
) -> tuple[list[float], list[float], float]:
    """B's freshness alone and beside A's flood, in seconds, and how many of A's events were moved to bulk.

    A picture takes `cost_s`, so the worker can do 1 / `cost_s` a second; A sends `times` of that for
    `seconds`, B `part` of it all the while. One picture a batch: a cost per picture gains nothing from more.
    """
    client, names = prepare(bootstrap, prefix)
    capacity = 1 / cost_s
    with (
        running(client, names, ExactIndex(SPEC), SetCostEngine(cost_s, burn=False), max_batch=1) as metrics,
        closing(OutcomesOf(client, names, "b")) as outcomes,
    ):
        _owned(client, names)
        sent = fed(feed(bootstrap, names, solo_s, {"b": part * capacity}))
        solo = _freshness(outcomes.take(sent["b"]))
        flooded = feed(bootstrap, TopicNames(prefix), seconds, {"a": times * capacity, "b": part * capacity})
        sent = fed(flooded)
        beside = _freshness(outcomes.take(sent["b"]))
        return solo, beside, metrics.registry.get_sample_value("lookalike_shunted_total") or 0.0


def run_scale(bootstrap: str, folder: Path, *, prefix: str, n_workers: int, n_events: int, cost_s: float) -> float:
    """Events a second of so many worker processes, each burning `cost_s` of the CPU per picture; index beside them."""
    client, names = prepare(bootstrap, prefix)
    command = [sys.executable, "-m", "lookalike.bench.set_cost", bootstrap, names.prefix, str(folder / "index.sock")]
    rate = 1000.0
    with index_process(folder, engine="exact"), closing(OutcomesOf(client, names)) as outcomes:
        workers = [
            OwnProcess(
                [*command, str(cost_s * 1e3)],
                log=folder / f"worker-{n}.log",
                env={**os.environ, "OMP_NUM_THREADS": "1"},
            )
            for n in range(n_workers)
        ]
        try:
            _owned(client, names, n_members=n_workers)
            sent = fed(feed(bootstrap, names, n_events / rate, {f"t{n}": rate / 8 for n in range(8)}))
            found = outcomes.take(sum(sent.values()))
        finally:
            for worker in workers:
                worker.stop(20.0)
    return len(found) / span_s(found)


def _freshness(outcomes: list[Outcome]) -> list[float]:
    return [one.freshness_s for one in outcomes if one.freshness_s is not None]


def _owned(client: Client, names: TopicNames, *, n_members: int = 1) -> None:
    """Wait until so many members share all partitions of live evenly.

    That all have an owner is not enough: a second worker may still wait for its share, for as long as a heartbeat,
    while the first takes what is fed. Two workers then did 1.4 times one instead of 1.8.
    """
    watch = GroupWatch(client, f"{names.prefix}bench", timeout_s=15.0)
    deadline = time.monotonic() + 60
    while True:
        try:
            shares = watch.shares({names.lane(Lane.LIVE)})
            settled = len(shares) == n_members and sum(shares) == PARTITIONS and shares[-1] - shares[0] <= 1
            if settled and watch.members() >= n_members * len(Lane):
                return
        except DependencyError:  # the group is just being made
            if time.monotonic() > deadline:
                raise
        if time.monotonic() > deadline:
            raise DependencyError("broker", "the workers did not join their group within a minute")
        time.sleep(0.1)
