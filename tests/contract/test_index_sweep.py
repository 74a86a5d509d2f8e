"""Forgetting deletes: the same on every engine, in process and behind the socket."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from embedder.index.points import Attempt, AttemptState, Bury, Note, State, Write
from embedder.stages.sweep import TombstoneSweeper
from streams.event import MIN_VERSION, now_us
from tests.contract.index_cases import STANDS, Stand, put, standing

OLD_US = MIN_VERSION + 1_000
NEW_US = MIN_VERSION + 2_000
DURABLE_S = 30.0


@pytest.fixture(scope="module", params=STANDS)
def stand(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stand]:
    with standing(request.param, tmp_path_factory.mktemp("index")) as found:
        yield found


def _write(stand: Stand, tenant: str, *writes: Write) -> None:
    stand.index.write(tenant, writes).result(DURABLE_S)


def _bury(stand: Stand, tenant: str, image: str, at_us: int) -> None:
    _write(stand, tenant, Bury(image, MIN_VERSION + 5, at_us))


def test_old_tombstones_go_and_nothing_else_does(stand: Stand) -> None:
    """A tombstone made before the moment is gone, as if the image had never been; newer ones and pictures stay."""
    tenant, other = stand.tenant(), stand.tenant()
    _bury(stand, tenant, "old", OLD_US)
    _bury(stand, other, "old", OLD_US)
    _bury(stand, tenant, "new", NEW_US)
    _write(stand, tenant, put("picture", version=MIN_VERSION + 1))
    assert stand.index.sweep(NEW_US, limit=100) == 2
    points = stand.index.read(tenant, ["old", "new", "picture"])
    assert [point.state if point else None for point in points] == [None, State.DELETED, State.INDEXED]
    assert stand.index.read(other, ["old"]) == [None]
    assert stand.index.sweep(NEW_US, limit=100) == 0


def test_tombstone_with_a_note_becomes_empty(stand: Stand) -> None:
    """What is known of a newer try outlives the delete before it."""
    tenant = stand.tenant()
    attempt = Attempt(MIN_VERSION + 9, AttemptState.FAILED, tries=1, at_us=1)
    _bury(stand, tenant, "noted", OLD_US)
    _write(stand, tenant, Note("noted", attempt))
    stand.index.sweep(NEW_US, limit=100)
    (point,) = stand.index.read(tenant, ["noted"])
    assert point is not None
    assert (point.state, point.version, point.attempt) == (State.EMPTY, 0, attempt)
    assert stand.index.count(tenant)[State.DELETED] == 0


def test_image_comes_back_after_its_tombstone_was_swept(stand: Stand) -> None:
    """A swept image is like a new one: a create of any version is applied."""
    tenant = stand.tenant()
    _bury(stand, tenant, "back", OLD_US)
    stand.index.sweep(NEW_US, limit=100)
    _write(stand, tenant, put("back", version=MIN_VERSION + 1))
    (point,) = stand.index.read(tenant, ["back"])
    assert point is not None
    assert point.state is State.INDEXED


def test_sweeper_keeps_what_must_still_be_remembered(stand: Stand) -> None:
    """It forgets by age, in calls of a bounded size, and nothing at all where retention is unlimited."""
    tenant = stand.tenant()
    stand.index.sweep(now_us(), limit=100)  # what other tests left
    for n in range(5):
        _bury(stand, tenant, f"old{n}", now_us() - 20_000_000)
    _bury(stand, tenant, "young", now_us())
    told: list[int] = []
    assert TombstoneSweeper(stand.index, life_s=None, swept=told.append).sweep() == 0
    assert TombstoneSweeper(stand.index, life_s=10.0, swept=told.append).sweep() == 5
    assert sum(told) == 5
    assert stand.index.count(tenant)[State.DELETED] == 1
