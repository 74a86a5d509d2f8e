"""The table of docs/semantics.md through the whole worker on a real Kafka, with retries, dead letters and replays."""

from __future__ import annotations

import random
from collections import defaultdict, deque

import pytest

from embedder.index.points import State
from streams.errors import Reason, RetryableError
from streams.event import MIN_VERSION, ImageEvent, created, deleted
from streams.report.dead_records import DeadRecord
from streams.topics import Lane, TopicNames, create, specs
from tests.conftest import Broker
from tests.kafka_rig import KafkaRig, RunningOnKafka
from tests.oracle import Ended, Note, settled
from tests.waiting import wait_until
from tests.worker_rig import BUCKET

TENANTS = ("acme", "globex")
IMAGES = ("i0", "i1", "i2")
N_EVENTS = 50
MANY_TRIES = 12


@pytest.fixture
def rig(kafka: Broker, unique: str) -> KafkaRig:
    client = {"bootstrap.servers": kafka.bootstrap}
    names = TopicNames(prefix=f"{unique}.")
    create(client, specs(names, partitions=2))
    return KafkaRig(client, names)


def _announce(rig: KafkaRig, rng: random.Random, n: int) -> Ended:
    """A random event as it has to end: some pictures are none, some objects fail for longer than tries in place."""
    tenant, image = rng.choice(TENANTS), rng.choice(IMAGES)
    version = MIN_VERSION + rng.randrange(1, 8)
    kind = rng.random()
    if kind < 0.2:
        return Ended(deleted(tenant, image, version=version))
    bad = kind < 0.4
    location = rig.put(tenant, f"{n}.jpg", b"bad" if bad else rng.choice([b"one", b"two", b"three"]))
    if 0.4 <= kind < 0.6:
        late = RetryableError(Reason.IMAGE_MISSING, "not yet")
        rig.objects.faults[BUCKET, location.key] = deque([late] * rng.randrange(1, MANY_TRIES))
    event = created(tenant, image, location, version=version)
    assert location.etag is not None
    return Ended(event, "failed" if bad else None, frozenset() if bad else frozenset({location.etag}))


def _check(rig: KafkaRig, ends: list[Ended], *, tenant: str, image: str) -> None:
    expected = settled(ends)
    point = rig.exact.get(tenant, image)
    if point is None:
        assert not ends
        return
    assert (point.state.value, point.version) == (expected.state, expected.version)
    if point.state is State.INDEXED:
        assert point.etag in expected.etags
    note = None if point.attempt is None else Note(point.attempt.version, point.attempt.state.value)
    assert (note in expected.notes) if expected.notes else note is None


def _check_all(rig: KafkaRig, ends: list[Ended]) -> None:
    by_image: defaultdict[tuple[str, str], list[Ended]] = defaultdict(list)
    for end in ends:
        by_image[end.event.tenant_id, end.event.image_id].append(end)
    for tenant in TENANTS:
        for image in IMAGES:
            _check(rig, by_image[tenant, image], tenant=tenant, image=image)


def _replay(rig: KafkaRig) -> None:
    """What `lookalike dead replay --all` sends."""
    letters = [DeadRecord.of(record) for record in rig.dead()]
    rig.send(*((one.record.key, one.record.value, one.replay_headers()) for one in letters), lane=Lane.BULK)


def _die_amid(running: RunningOnKafka, rig: KafkaRig, n_outcomes: int) -> None:
    wait_until(lambda: rig.metrics.finished.total >= n_outcomes or rig.lag() == 0)
    running.die()


@pytest.mark.parametrize("seed", range(3))
def test_any_history_ends_as_the_table_says_on_kafka(rig: KafkaRig, seed: int) -> None:
    """Shuffled, repeated events with failing objects, over workers that die, then replayed: the one allowed end."""
    rng = random.Random(seed)
    ends = [_announce(rig, rng, n) for n in range(N_EVENTS)]
    told: list[ImageEvent] = [end.event for end in ends for _ in range(rng.choice([1, 1, 2]))]
    rng.shuffle(told)
    rig.publish(*told)
    for _ in range(2):
        with rig.work() as running:
            _die_amid(running, rig, rig.metrics.finished.total + rng.randrange(5, N_EVENTS))
    with rig.work() as running:
        running.settle()
        _check_all(rig, ends)
        _replay(rig)
        rig.publish(*rng.sample(told, 20), lane=Lane.BULK)
        running.settle()
    _check_all(rig, ends)
    reported = {outcome.event_id for outcome in rig.outcomes()}
    assert reported == {end.event.event_id for end in ends}
    bad = {end.event.event_id for end in ends if end.failure is not None}
    failed = {outcome.event_id for outcome in rig.outcomes() if outcome.state.value == "failed"}
    dead = {DeadRecord.of(record).event_id for record in rig.dead()}
    assert failed <= dead <= bad
