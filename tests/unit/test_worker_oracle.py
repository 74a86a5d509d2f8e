"""The table of docs/semantics.md through the whole worker: random events, workers that die, one allowed end."""

from __future__ import annotations

import random
from collections import defaultdict

import pytest

from embedder.index.points import State
from streams.event import MIN_VERSION, ImageEvent, created, deleted
from tests.oracle import Ended, Note, settled
from tests.waiting import wait_until
from tests.worker_rig import Rig, RunningWorker

TENANTS = ("acme", "globex")
IMAGES = ("i0", "i1", "i2")
N_EVENTS = 60


def _announce(rig: Rig, rng: random.Random, n: int) -> Ended:
    """A random event as it will have to end: every location's bytes are fixed, some are no picture."""
    tenant, image = rng.choice(TENANTS), rng.choice(IMAGES)
    version = MIN_VERSION + rng.randrange(1, 8)
    if rng.random() < 0.2:
        return Ended(deleted(tenant, image, version=version))
    bad = rng.random() < 0.3
    location = rig.put(tenant, f"{n}.jpg", b"bad" if bad else rng.choice([b"one", b"two", b"three"]))
    event = created(tenant, image, location, version=version)
    assert location.etag is not None
    return Ended(event, "failed" if bad else None, frozenset() if bad else frozenset({location.etag}))


def _check(rig: Rig, ends: list[Ended], *, tenant: str, image: str) -> None:
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


@pytest.mark.parametrize("seed", range(12))
def test_any_history_ends_as_the_table_says(seed: int) -> None:
    """Shuffled, repeated events over workers that die at random end in the one state the table allows."""
    rng = random.Random(seed)
    rig = Rig()
    ends = [_announce(rig, rng, n) for n in range(N_EVENTS)]
    told: list[ImageEvent] = [end.event for end in ends for _ in range(rng.choice([1, 1, 2]))]
    rng.shuffle(told)
    for event in told:
        rig.publish(event)
    for _ in range(3):
        with rig.work() as running:
            seen = rng.randrange(N_EVENTS)
            wait_until(lambda seen=seen, running=running: _moved(rig, seen) or _idle(rig, running))  # type: ignore[misc]
            running.source.abandon()
    with rig.work() as running:
        wait_until(lambda: _idle(rig, running))
    by_image: defaultdict[tuple[str, str], list[Ended]] = defaultdict(list)
    for end in ends:
        by_image[end.event.tenant_id, end.event.image_id].append(end)
    for tenant in TENANTS:
        for image in IMAGES:
            _check(rig, by_image[tenant, image], tenant=tenant, image=image)
    _check_reports(rig, ends)


def _moved(rig: Rig, n: int) -> bool:
    return len(rig.outcomes()) >= n


def _idle(rig: Rig, running: RunningWorker) -> bool:
    return rig.log.committed == running.expected_commits()


def _check_reports(rig: Rig, ends: list[Ended]) -> None:
    """Every event has an outcome; only a bad picture ever failed, and each failure has its dead letter."""
    reported = {outcome.event_id for outcome in rig.outcomes()}
    assert reported == {end.event.event_id for end in ends}
    bad = {end.event.event_id for end in ends if end.failure is not None}
    failed = {outcome.event_id for outcome in rig.outcomes() if outcome.state.value == "failed"}
    assert failed <= bad
    dead = {dict(record.headers)["ce_id"].decode() for record in rig.dead()}
    assert failed <= dead <= bad
