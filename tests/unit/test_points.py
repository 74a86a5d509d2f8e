"""The pure functions of embedder.index.points against the table of the design, and each rule by name."""

from __future__ import annotations

from dataclasses import dataclass, field

import pytest
from hypothesis import given, settings
from msgspec.structs import replace

from embedder.index.points import (
    Attempt,
    AttemptState,
    Bury,
    Change,
    Note,
    Point,
    PutVector,
    Refresh,
    State,
    Step,
    Write,
    Written,
    apply,
    plan,
    point_id,
)
from streams.errors import Reason
from streams.event import MIN_VERSION, Location, created
from tests.interleavings import World, play
from tests.oracle import Oracle
from tests.races import RACES
from tests.script import ETAGS, Action, Advance, Announce, Delete, Store, scripts, vector_of
from tests.table import ROWS, Case, check

TENANT = "acme"


@dataclass
class MemoryIndex:
    """The functions under test on a dict: what every real index does around them."""

    points: dict[str, Point] = field(default_factory=dict)
    vectors: dict[str, str] = field(default_factory=dict)

    def read(self, image_id: str) -> Point | None:
        return self.points.get(image_id)

    def write(self, write: Write) -> Written:
        change = apply(TENANT, self.points.get(write.image_id), write)
        if not change.changed:
            assert change.point == self.points.get(write.image_id), "unchanged, so the point is as it was"
            assert change.vector is None, "unchanged, so the vector is as it was"
            return change.written
        assert change.point is not None
        assert change.point != self.points.get(write.image_id), "changed, so there is something to write"
        self.points[write.image_id] = change.point
        if change.vector is True:
            assert isinstance(write, PutVector)
            self.vectors[write.image_id] = ETAGS[int(write.vector.argmax())]
        elif change.vector is False:
            self.vectors.pop(write.image_id, None)
        return change.written

    def picture(self, image_id: str) -> str | None:
        return self.vectors.get(image_id)


@pytest.mark.parametrize("case", ROWS + RACES, ids=lambda case: case.fact)
def test_table(case: Case) -> None:
    """Each row of the table, and each race that the design names, as its words say it."""
    check(case, TENANT, MemoryIndex())


_PICTURE = PutVector(
    image_id="i0",
    version=MIN_VERSION,
    vector=vector_of("a"),
    location=Location("pictures", "k0", "a", size_bytes=9, content_type="image/png"),
    etag="a",
    sha256="a" * 64,
    indexed_at_us=5,
    created_at_us=4,
    engine="torch-cpu-fp32",
    tags=("x", "y"),
    attributes={"shop": "north"},
    width_px=640,
    height_px=480,
)


@settings(max_examples=600, derandomize=True, database=None, deadline=None)
@given(script=scripts())
def test_any_interleaving_ends_as_the_table_says(script: list[Action]) -> None:
    """Whatever order events, failures, repeats and the API's notes meet in, what is stored is what the table says."""
    play(TENANT, MemoryIndex(), script)


@settings(max_examples=150, derandomize=True, database=None, deadline=None)
@given(script=scripts())
def test_events_that_never_meet_end_as_the_oracle_says_of_each_alone(script: list[Action]) -> None:
    """One event after another gives the oracle's outcomes, failures included."""
    world, alone = World(TENANT, MemoryIndex()), Oracle()
    failures = [action.failure for action in script if isinstance(action, Advance)] or [None]
    for number, action in enumerate(action for action in script if isinstance(action, Announce | Delete | Store)):
        world.act(action)
        failure = failures[number % len(failures)]
        world.drain(failure=failure)
        if not isinstance(action, Store):
            flight = world.flights[-1]
            location = flight.event.location
            there_etag = None if location is None else world.objects[location.key]
            assert alone.apply_event(flight.event, there_etag=there_etag, failure=failure) == flight.outcome
            assert alone.row(TENANT, flight.event.image_id) == world.truth.row(TENANT, flight.event.image_id)


def test_the_id_of_a_point_never_changes() -> None:
    """An image keeps its point for ever: these ids are in collections on disk; no two of a tenant's names share one."""
    assert str(point_id("acme", "i0")) == "7e1a8104-f1e1-5e31-ab4a-2624b130f27f"
    assert (
        len({point_id(tenant_id, image_id) for tenant_id in ("a", "b", "a-b") for image_id in ("a", "b", "b-a")}) == 9
    )


def test_everything_said_of_a_picture_is_stored_with_it() -> None:
    """Each field of a write that makes an image searchable arrives in its point."""
    point = apply(TENANT, None, _PICTURE).point
    assert point is not None
    assert point.tenant_id == TENANT
    for name in _PICTURE.__struct_fields__:
        if name not in {"vector", "replaces_etag"}:
            assert getattr(point, name) == getattr(_PICTURE, name), name


def test_a_refresh_leaves_what_belongs_to_the_vector() -> None:
    """Version, tags and attributes are the newer event's; everything else is still the picture's."""
    stored = apply(TENANT, None, _PICTURE).point
    assert stored is not None
    refresh = Refresh("i0", _PICTURE.version + 1, _PICTURE.location, "a", ("new",), {"colour": "red"})
    point = apply(TENANT, stored, refresh).point
    assert point == replace(stored, version=refresh.version, tags=("new",), attributes={"colour": "red"})


def test_a_tombstone_says_nothing_of_the_picture() -> None:
    """What was known of the picture goes with its vector; when it went is kept."""
    stored = apply(TENANT, None, _PICTURE).point
    buried = apply(TENANT, stored, Bury("i0", _PICTURE.version, at_us=7))
    assert buried.vector is False
    assert buried.point == Point(TENANT, "i0", _PICTURE.version, State.DELETED, indexed_at_us=7)


def test_the_same_bytes_under_another_etag_are_stored_under_it() -> None:
    """A rechecked object that was only uploaded again is known by its new ETag, so it is not asked for again."""
    stored = apply(TENANT, None, _PICTURE).point
    again = replace(_PICTURE, etag="b", replaces_etag="a")
    point = apply(TENANT, stored, again).point
    assert point is not None
    assert (point.etag, point.sha256) == ("b", _PICTURE.sha256)


def test_a_note_tells_reason_and_tries() -> None:
    """The newest try of a version is what is told of it."""
    first = Attempt(MIN_VERSION, AttemptState.RETRYING, Reason.IMAGE_MISSING, tries=1, at_us=1)
    second = replace(first, tries=2, at_us=2)
    noted = apply(TENANT, apply(TENANT, None, Note("i0", first)).point, Note("i0", second)).point
    assert noted == Point(TENANT, "i0", 0, State.EMPTY, attempt=second)


def test_a_picture_from_another_place_does_not_count_as_stored() -> None:
    """The same ETag in another bucket or under another key is fetched; without an ETag nothing is known."""
    stored = apply(TENANT, None, _PICTURE).point
    place = _PICTURE.location
    for location, step in [
        (place, Step.REFRESH),
        (replace(place, etag=None), Step.EMBED),
        (replace(place, etag="b"), Step.EMBED),
        (replace(place, key="other"), Step.EMBED),
        (replace(place, bucket="other"), Step.EMBED),
    ]:
        assert plan(created(TENANT, "i0", location, version=_PICTURE.version + 1), stored) is step, location


def test_a_refresh_holds_only_for_the_place_that_was_read() -> None:
    """A picture that was replaced by one from elsewhere with the same ETag is not refreshed."""
    stored = apply(TENANT, None, _PICTURE).point
    for location in (replace(_PICTURE.location, key="other"), replace(_PICTURE.location, bucket="other")):
        refresh = Refresh("i0", _PICTURE.version + 1, location, "a")
        assert apply(TENANT, stored, refresh) == Change(Written.SUPERSEDED, stored)
