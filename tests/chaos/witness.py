"""What the broker itself can tell: every outcome, who owns which partition, what is committed."""

from __future__ import annotations

import json
import subprocess
import sys
import threading
import time
from collections import Counter, defaultdict
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from confluent_kafka import Consumer, TopicPartition

from streams.errors import DependencyError
from streams.report.outcomes import Outcome, OutcomeState, decode
from streams.tail import Tail, extent

ROOT = Path(__file__).parents[2]
Place = tuple[str, int, int]
"""Topic, partition, offset: one record."""


class OutcomeLog:
    """Follows a topic of outcomes from its beginning on a thread; survives a broker that is away."""

    def __init__(self, client: Mapping[str, Any], topic: str) -> None:
        self._client, self._topic = client, topic
        self._next = dict(extent(client, topic).first_offset)
        self._lock = threading.Lock()
        self._all: list[Outcome] = []
        self._final: set[str] = set()
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, name="outcomes", daemon=True)
        self._thread.start()
        self.last_seen_at = 0.0
        """When the newest was read (monotonic)."""

    def all(self) -> list[Outcome]:
        with self._lock:
            return list(self._all)

    def __len__(self) -> int:
        return len(self._all)

    def final(self, event_ids: Collection[str]) -> bool:
        """Whether each of these events has come to its end."""
        with self._lock:
            return all(event_id in self._final for event_id in event_ids)

    def by_event(self) -> dict[str, list[Outcome]]:
        """Every event's outcomes, in the order they were written to their partition."""
        found = defaultdict[str, list[Outcome]](list)
        for outcome in self.all():
            if outcome.event_id is not None:
                found[outcome.event_id].append(outcome)
        return found

    def by_place(self) -> dict[Place, list[Outcome]]:
        """Every record's outcomes: more than one is a repetition."""
        found = defaultdict[Place, list[Outcome]](list)
        for outcome in self.all():
            found[outcome.topic, outcome.partition, outcome.offset].append(outcome)
        return found

    def complete(self) -> bool:
        """Whether everything that lies in the topic now was read."""
        there = extent(self._client, self._topic).next_offset
        return all(self._next.get(number, 0) >= end for number, end in there.items())

    def close(self) -> None:
        self._stop.set()
        self._thread.join()

    def _run(self) -> None:
        while not self._stop.is_set():
            try:
                self._follow()
            except DependencyError:  # a broker that is stopped on purpose: read on where it was
                self._stop.wait(0.5)

    def _follow(self) -> None:
        with Tail(self._client, self._topic, start=self._next) as tail:
            while not self._stop.is_set():
                for record in tail.poll(wait_s=0.1):
                    assert record.value is not None
                    outcome = decode(record.value)
                    with self._lock:
                        self._all.append(outcome)
                        if outcome.event_id is not None and outcome.state is not OutcomeState.RETRYING:
                            self._final.add(outcome.event_id)
                    self._next[record.partition] = record.offset + 1
                    self.last_seen_at = time.monotonic()


@dataclass(frozen=True, slots=True)
class Sample:
    """The group at one moment: partitions by how many members hold them, and how many members there are."""

    at: float
    members: int
    owners: Counter[tuple[str, int]]
    committed: dict[tuple[str, int], int]


class GroupWatch:
    """Looks at the group several times a second and remembers whatever must never happen.

    `went_back` are committed offsets that became smaller, `two_owners` partitions that two members held at once.
    """

    def __init__(self, client: Mapping[str, Any], group_id: str, topics: Mapping[str, int]) -> None:
        """`topics` are those that workers read, with their numbers of partitions."""
        self._client, self._group_id, self.topics = client, group_id, topics
        self.went_back: list[str] = []
        self.two_owners: list[str] = []
        self.last: Sample | None = None
        self._stop = threading.Event()
        self._probe: subprocess.Popen[str] | None = None
        self._thread = threading.Thread(target=self._run, name="group", daemon=True)
        self._asker = Consumer({**client, "group.id": group_id, "reconnect.backoff.max.ms": 500})

    def start(self) -> None:
        self._thread.start()

    def close(self) -> None:
        self._stop.set()
        if self._probe is not None:
            self._probe.kill()
        if self._thread.ident is not None:
            self._thread.join()
        self._asker.close()

    def committed(self) -> dict[tuple[str, int], int]:
        """What is committed now.

        Raises:
            KafkaException: the broker does not answer.
        """
        wanted = [TopicPartition(topic, number) for topic, n in self.topics.items() for number in range(n)]
        found = self._asker.committed(wanted, timeout=3)
        return {(part.topic, part.partition): part.offset for part in found if part.offset >= 0}

    def owned_by(self, n_workers: int) -> Callable[[], bool]:
        """Whether these workers and nobody else hold every partition, as of a look taken from now on."""
        asked_at = time.monotonic()

        def owned() -> bool:
            sample = self.last
            return (
                sample is not None
                and sample.at > asked_at
                and sample.members == n_workers * len(self.topics)
                and len(sample.owners) == sum(self.topics.values())
            )

        return owned

    def _run(self) -> None:
        command = [sys.executable, "-m", "tests.chaos.group_probe"]
        command += [self._client["bootstrap.servers"], self._group_id, "0.2"]
        while not self._stop.wait(0.2):  # a probe ends with the first request that fails
            self._probe = subprocess.Popen(
                command, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True
            )
            with self._probe:
                if self._stop.is_set():
                    self._probe.kill()
                assert self._probe.stdout is not None
                for line in self._probe.stdout:
                    self._take(json.loads(line))

    def _take(self, found: dict[str, Any]) -> None:
        at = found["at"]
        owners = Counter((topic, number) for topic, number in found["held"] if topic in self.topics)
        self.two_owners += [f"{place} at {at:.1f}" for place, n in owners.items() if n > 1]
        committed = {(topic, number): offset for topic, number, offset in found["committed"]}
        before = {} if self.last is None else self.last.committed
        self.went_back += [
            f"{place}: {before[place]} → {mark}" for place, mark in committed.items() if mark < before.get(place, 0)
        ]
        self.last = Sample(at, found["members"], owners, committed)
