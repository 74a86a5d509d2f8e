"""One installation for one scenario: topics, bucket, index, workers, producers, and who watches them."""

from __future__ import annotations

import signal
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass, field, replace
from pathlib import Path
from types import TracebackType
from typing import Self

from confluent_kafka import KafkaException

from embedder.index.points import State
from embedder.process_environment import PROCESS_ENVIRONMENT
from streams.event import now_us
from streams.report.outcomes import Outcome
from streams.tail import extent
from streams.topics import Lane, TopicNames, create, specs
from tests.chaos import readback
from tests.chaos.broker import ChaosKafka
from tests.chaos.feed import Feed
from tests.chaos.fleet import Fleet, IndexProcess, WorkerProcess
from tests.chaos.readback import Fault
from tests.chaos.row import Row
from tests.chaos.stub_worker import DECODER, MODEL
from tests.chaos.witness import GroupWatch, OutcomeLog, Place
from tests.waiting import wait_until

PARTITIONS = 6
TENANTS = ["acme", "bolt", "core"]
SETTLE_S = 150.0
"""Until everything has an outcome and is committed, after the last fault."""


@dataclass(frozen=True, slots=True)
class Setup:
    """What a scenario needs other than usual; `env` are settings of every worker."""

    n_workers: int = 3
    cost_ms: float = 10.0
    partitions: int = PARTITIONS
    tenants: tuple[str, ...] = tuple(TENANTS)
    engine: str = "edge"
    rowdy: bool = False
    bootstrap: str | None = None
    index_socket: Path | None = None
    env: Mapping[str, str] = field(default_factory=dict)


class Site:
    """Leaving the block stops every process, whatever happened."""

    def __init__(
        self, broker: ChaosKafka, folder: Path, logs: Path, *, prefix: str, grace_s: float, setup: Setup
    ) -> None:
        """`grace_s` is how much longer than the session it may take until everything is owned again."""
        self.broker, self.setup = broker, setup
        self._owned_limit_s = broker.session_s + grace_s
        self.client = broker.client
        self.names = TopicNames(prefix)
        self._specs = specs(self.names, partitions=setup.partitions)
        aside = (self.names.dead, self.names.outcomes, self.names.notifications)
        self.read_topics = {spec.name: spec.partitions for spec in self._specs if spec.name not in aside}
        """What workers consume, a consumer each, and how many partitions it has."""
        self.objects = folder / "objects"
        self.objects.mkdir(parents=True)
        logs.mkdir(parents=True, exist_ok=True)
        self.logs = logs
        self.index = IndexProcess(folder / "ix", engine=setup.engine)
        self.fleet = Fleet(logs, self._environment(prefix), cost_ms=setup.cost_ms)
        self.faults: list[Fault] = []
        self.fault_at = 0.0

    def _environment(self, prefix: str) -> dict[str, str]:
        setup = self.setup
        return {
            **PROCESS_ENVIRONMENT,
            "LOOKALIKE_KAFKA_BOOTSTRAP": setup.bootstrap or self.broker.bootstrap,
            "LOOKALIKE_KAFKA_TOPIC_PREFIX": prefix,
            "LOOKALIKE_KAFKA_GROUP_ID": f"{prefix}workers",
            "LOOKALIKE_KAFKA_PARTITIONS": str(setup.partitions),
            "LOOKALIKE_KAFKA_ALLOW_SINGLE_BROKER": "true",
            "LOOKALIKE_KAFKA_RETRY_DELAYS_S": "1,2,3",
            "LOOKALIKE_INDEX_SOCKET": str(setup.index_socket or self.index.socket),
            "LOOKALIKE_OBJECTS_DIR": str(self.objects),
            "LOOKALIKE_MODEL": MODEL,
            "LOOKALIKE_DECODE_CHILDREN": "1",
            DECODER: "rowdy" if setup.rowdy else "real",
            **setup.env,
        }

    def __enter__(self) -> Self:
        create(self.client, self._specs)
        self.feed = Feed(self.client, self.names, self.objects, list(self.setup.tenants))
        self.outcomes = OutcomeLog(self.client, self.names.outcomes)
        self.group = GroupWatch(self.client, f"{self.names.prefix}workers", self.read_topics)
        try:
            self.group.start()
            self.index.start()
            for _ in range(self.setup.n_workers):
                self.fleet.join()
            if self.fleet.running:
                self.until_owned(timeout_s=60)
        except BaseException:
            self._close()
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._close()

    def _close(self) -> None:
        self.fleet.kill_all()
        self.feed.close()
        self.group.close()
        self.outcomes.close()
        self.index.stop()

    def replay(self, lane: Lane, times: int) -> int:
        """Send every record that lies in the lane now again, so many times; returns how many were sent."""
        topic = self.names.lane(lane)
        found = readback.records(self.client, topic) * times
        for record in found:
            self.feed.repeat(topic, record)
        return len(found)

    # ---- faults ------------------------------------------------------------------------------------

    def kill(self, worker: WorkerProcess) -> None:
        """kill -9; what it had finished and not committed is asked of the broker right behind it."""
        in_flight = int(worker.metric("lookalike_in_flight", kind="events") or 0)
        self.fleet.lose(worker)
        self.fault_at = time.monotonic()
        self.faults.append(Fault(worker.name, now_us(), self._committed(), in_flight))

    def hit(self, workers: Sequence[WorkerProcess], action: Callable[[], object]) -> None:
        """Do what may take these workers' partitions from them alive; what may be repeated is asked right around it."""
        in_flight = {worker.name: int(worker.metric("lookalike_in_flight", kind="events") or 0) for worker in workers}
        action()
        self.fault_at, at_us = time.monotonic(), now_us()
        committed = self._committed()
        self.faults += [Fault(name, at_us, committed, n) for name, n in in_flight.items()]

    def count_again(self, workers: Sequence[WorkerProcess]) -> None:
        """Before an outage of the broker ends: without acknowledgements, what they have in flight has grown."""
        in_flight = {worker.name: int(worker.metric("lookalike_in_flight", kind="events") or 0) for worker in workers}
        latest = len(self.faults) - len(workers)
        for at, fault in enumerate(self.faults[latest:], latest):
            self.faults[at] = replace(fault, in_flight=max(fault.in_flight, in_flight[fault.worker]))

    def freeze(self, worker: WorkerProcess) -> None:
        """SIGSTOP."""
        self.hit([worker], lambda: worker.send(signal.SIGSTOP))

    def until_fallen(self, worker: WorkerProcess) -> None:
        """Wait until it ends by itself; what it had in flight until then may be repeated."""
        in_flight = 0

        def fallen() -> bool:
            nonlocal in_flight
            in_flight = max(in_flight, int(worker.metric("lookalike_in_flight", kind="events") or 0))
            return worker.exit_code is not None

        wait_until(fallen)
        self.fleet.running.remove(worker)
        self.fault_at = time.monotonic()
        self.faults.append(Fault(worker.name, now_us(), self._committed(), in_flight))

    def terminate(self, worker: WorkerProcess) -> None:
        """SIGTERM, and wait for its end: nothing may be repeated because of it."""
        self.fault_at = time.monotonic()
        self.fleet.leave(worker)

    def _committed(self) -> dict[tuple[str, int], int]:
        try:
            return self.group.committed()
        except KafkaException:  # the broker is down as well: the last sample is the least that is committed
            return {} if self.group.last is None else dict(self.group.last.committed)

    # ---- waiting -----------------------------------------------------------------------------------

    def until_owned(self, *, timeout_s: float) -> float:
        """Wait until the running workers, and nobody else, own everything; seconds since the last fault."""
        owned = self.group.owned_by(len(self.fleet.running))
        wait_until(lambda: owned() or bool(self.fleet.fallen), timeout_s=timeout_s)
        assert not self.fleet.fallen, f"ended by themselves: {self.fleet.fallen}"
        return time.monotonic() - self.fault_at

    def owned_after_s(self) -> float:
        """As the pass condition wants it; a large number where it never came."""
        try:
            return self.until_owned(timeout_s=self._owned_limit_s + 30)
        except AssertionError:
            return time.monotonic() - self.fault_at

    def until_more(self, n: int, *, timeout_s: float = 60.0) -> float:
        """Wait for `n` more outcomes; seconds it took."""
        started, before = time.monotonic(), len(self.outcomes)
        wait_until(lambda: len(self.outcomes) >= before + n, timeout_s=timeout_s)
        return time.monotonic() - started

    def settle(self, timeout_s: float = SETTLE_S) -> bool:
        """Wait until every event is acknowledged, has an outcome and is committed; False where that never came."""
        try:
            wait_until(self._settled, timeout_s=timeout_s)
        except AssertionError:
            return False
        return True

    def _settled(self) -> bool:
        if self.feed.unacknowledged or self.fleet.fallen:
            return bool(self.fleet.fallen)
        return self.outcomes.final(list(self.feed.sent)) and self.lag() == 0

    def lag(self) -> int:
        """Records of what workers read that are not committed."""
        committed = self._committed()
        ends = {(topic, n): end for topic in self.read_topics for n, end in self._ends(topic).items()}
        return sum(end - committed.get(place, 0) for place, end in ends.items())

    def _ends(self, topic: str) -> Mapping[int, int]:
        return extent(self.client, topic).next_offset

    # ---- the end -----------------------------------------------------------------------------------

    def finish(
        self,
        scenario: str,
        *,
        dead: Mapping[str, int] | None = None,
        owned_after_s: float | None = None,
        resume_s: float | None = None,
        reported: Mapping[str, float | int | str] | None = None,
    ) -> Row:
        """Let it come to rest, stop everything in order, read back what is there, and judge it.

        `dead` are the dead letters that must be there, by reason; `reported` are figures that gate nothing.
        """
        self.feed.stop()
        settled = self.settle()
        fallen = self.fleet.fallen
        self.fleet.leave(*self.fleet.running)
        wait_until(self.outcomes.complete, timeout_s=30)
        places, indexed = self.outcomes.by_place(), self._indexed()
        lost = readback.lost(self.feed.sent, self.outcomes.by_event(), indexed)
        row = Row(
            scenario=scenario,
            events=len(self.feed.sent),
            lost=len(lost),
            repeated=sum(len(told) - 1 for told in places.values()),
            allowed_repeats=readback.allowed_repeats(self.faults, places),
            owned_after_s=None if owned_after_s is None else round(owned_after_s, 1),
            resume_s=None if resume_s is None else round(resume_s, 1),
            exit_s_max=round(max((one.seconds for one in self.fleet.exits), default=0.0), 1),
            reported=dict(reported or {}),
        )
        self._note_repeats(places)
        problems = self._problems(row, lost, indexed, dict(dead or {}))
        problems += [f"{name} ended by itself" for name in fallen]
        row.refuse(*problems, *([] if settled or problems else [f"{self.lag()} records are not committed"]))
        return row

    def _problems(self, row: Row, lost: list[str], indexed: set[readback.Image], dead: dict[str, int]) -> list[str]:
        found = [f"{row.lost} events are lost: {lost[:5]}"] if lost else []
        if row.repeated > row.allowed_repeats:
            found.append(f"{row.repeated} outcomes are repetitions, {row.allowed_repeats} are allowed")
        if row.owned_after_s is not None and row.owned_after_s > self._owned_limit_s:
            found.append(f"not everything was owned {self._owned_limit_s:g} s after the last fault")
        letters = self.dead_letters()
        if letters != dead:
            found.append(f"dead letters are {letters}, must be {dead}")
        found += [f"a commit went back: {what}" for what in self.group.went_back[:3]]
        found += [f"two owners of {what}" for what in self.group.two_owners[:3]]
        found += [f"{one.worker} ended with {one.code}" for one in self.fleet.exits if one.code != 0]
        unasked = readback.unasked(self.feed.sent, indexed)
        return found + ([f"{len(unasked)} points that must not be: {unasked[:5]}"] if unasked else [])

    def points(self) -> dict[readback.Image, State]:
        """Every point, by tenant and image."""
        with closing(self.index.client()) as client:
            return readback.points(client, self.setup.tenants)

    def dead_letters(self) -> dict[str, int]:
        """How many there are, by reason."""
        return readback.dead_letters(self.client, self.names.dead)

    def _indexed(self) -> set[readback.Image]:
        return {image for image, state in self.points().items() if state is State.INDEXED}

    def _note_repeats(self, places: Mapping[Place, list[Outcome]]) -> None:
        """For whoever reads a failure: what was repeated, by whom, and what each fault found."""
        lines = [
            f"{place}: {[(one.worker, one.at_us, one.state.value, dict(one.stage_s)) for one in told]}"
            for place, told in places.items()
            if len(told) > 1
        ]
        (self.logs / "repeats.log").write_text("\n".join([*lines, *map(str, self.faults), ""]))


def tail_of(log: Path, n_lines: int = 60) -> str:
    """The end of a log."""
    return "\n".join(log.read_text(errors="replace").splitlines()[-n_lines:]) if log.exists() else ""
