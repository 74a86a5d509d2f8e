"""`lookalike index migrate` on a Qdrant server: whatever ends it, the old collection is in use or the new one is."""

from __future__ import annotations

import itertools
import warnings
from collections.abc import Callable, Iterator
from dataclasses import replace

import pytest
from qdrant_client import models

from embedder.index.fields import parse_fields
from embedder.index.filters import Is, Within
from embedder.index.payload import REVISION
from embedder.index.points import Attempt, AttemptState, Note, Point, State, Written
from embedder.index.protocol import CollectionSpec
from embedder.index.qdrant_server import pair
from embedder.index.qdrant_server.client import ALIAS_AGE_S, ServerClient
from embedder.index.qdrant_server.connect import Server
from embedder.index.qdrant_server.index import ServerIndex
from embedder.index.qdrant_server.migrate import Migrated, migrate
from embedder.index.query import Query, like
from streams.errors import ConfigError, DependencyError, Reason
from streams.event import MIN_VERSION
from tests.contract.index_cases import bury, put, towards, write
from tests.script import VECTOR_DIM
from tests.watched_qdrant import READS, STANDS, Rig, rig

OLD = CollectionSpec("hash", "migrated-v1", VECTOR_DIM)
FIELDS = parse_fields(["price:number", "taken_at:time"])
TENANTS = ("acme", "bell")
N_POINTS = 2 * 13


class KilledError(BaseException):
    """As kill -9: nothing that comes after it has any effect."""


class Steps:
    """Told of each step of a migration; does something before one of them, or kills it there for good."""

    def __init__(
        self,
        *,
        kill_at: int | None = None,
        kill_before: str | None = None,
        act: Callable[[str], None] | None = None,
        reads: bool = False,
    ) -> None:
        self.seen: list[str] = []
        self._kill_at = kill_at
        self._kill_before = kill_before
        self._act = act
        self._reads = reads

    def __call__(self, step: str) -> None:
        if step in READS and not self._reads:
            return
        self.seen.append(step)
        if step == self._kill_before:
            self._kill_at = 0
        if self._kill_at is not None and len(self.seen) > self._kill_at:
            raise KilledError
        if self._act is not None:
            self._act(step)


@pytest.fixture(params=STANDS)
def stand(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Iterator[Rig]:
    monkeypatch.setattr(pair, "MAX_BATCH", 5)  # several parts of so few points
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # told once: the imitation is always exact
        with rig(request.param, OLD) as found:
            yield found


def new(stand: Rig) -> CollectionSpec:
    return replace(stand.spec, fields=FIELDS)


def filled(stand: Rig) -> ServerIndex:
    """Two tenants: pictures with and without a vector, a tombstone, notes in each state."""
    index = stand.server().ensure(stand.spec)
    for tenant_id in TENANTS:
        pictures = [
            put(f"i{n}", towards(n + 1, 1), tags=("red",), attributes={"price": n, "colour": f"c{n % 2}"})
            for n in range(10)
        ]
        pictures[3] = put("i3", towards(4, 1), attributes={"price": 3.5, "taken_at": "2024-05-01T12:00:00Z"})
        write(index, tenant_id, *pictures)
        write(
            index,
            tenant_id,
            bury("i7"),
            bury("never", version=5),
            Note("new", Attempt(MIN_VERSION + 9, AttemptState.PENDING)),
            Note("bad", Attempt(MIN_VERSION + 9, AttemptState.FAILED, Reason.IMAGE_MISSING, tries=2)),
            Note("i2", Attempt(MIN_VERSION + 9, AttemptState.RETRYING)),
        )
    return index


def everything(index: ServerIndex) -> dict[str, tuple[Point, ...]]:
    return {tenant_id: index.list(tenant_id, limit=1000).points for tenant_id in TENANTS}


def revisions(stand: Rig, name: str) -> dict[str, tuple[object, bool]]:
    """By id: the revision, and whether there is a vector."""
    records, _ = stand.client.scroll(name, limit=1000, with_payload=[REVISION], with_vectors=True)
    return {str(record.id): ((record.payload or {})[REVISION], bool(record.vector)) for record in records}


def run(server: Server, **options: object) -> Migrated:
    return migrate(server, FIELDS, told=lambda _: None, pause=lambda _: None, **options)  # type: ignore[arg-type]


def test_every_point_is_as_it_was(stand: Rig) -> None:
    """Pictures, points without a vector, tombstones and notes of two tenants, each under its revision."""
    index = filled(stand)
    before, numbers = everything(index), revisions(stand, stand.spec.name)
    done = run(stand.server())
    assert done == Migrated(f"{stand.spec.name}~2", N_POINTS)
    after = stand.server().current()
    assert (after.name, after.spec()) == (done.collection, new(stand))
    assert everything(after) == before
    assert revisions(stand, done.collection) == numbers
    assert stand.names() == [done.collection]
    for n in (0, 3, 9):
        assert after.search("acme", like(towards(n + 1, 1))).hits[0].image_id == f"i{n}"


def test_what_is_declared_now_is_found_in_points_that_were_there(stand: Rig) -> None:
    """Ranges of a number and of a time, with their bounds; filters and facets of words answer as before."""
    filled(stand)
    run(stand.server())
    index = stand.server().current()
    cheap = index.search("acme", Query((towards(1),), filter=Within("price", gte=2, lt=4), limit=100))
    assert {hit.image_id for hit in cheap.hits} == {"i2", "i3"}
    taken = index.search("bell", Query((towards(1),), filter=Within("taken_at", gt=0), limit=100))
    assert {hit.image_id for hit in taken.hits} == {"i3"}
    even = index.search("acme", Query((towards(1),), filter=Is("colour", ("c0",)), limit=100))
    assert {hit.image_id for hit in even.hits} == {"i0", "i2", "i4", "i6", "i8"}
    assert {one.value: one.count for one in index.facet("acme", "colour").values} == {"c0": 5, "c1": 3}
    assert {one.value: one.count for one in index.facet("acme", "tags").values} == {"red": 8}
    assert index.count("acme") == {State.INDEXED: 9, State.DELETED: 2, State.EMPTY: 2}


def test_all_indexes_are_there_before_the_first_point(stand: Rig) -> None:
    """An index that is made later gives no rows on a real server, with a green status."""
    filled(stand)
    steps = Steps()
    run(stand.server(steps))
    made = [n for n, step in enumerate(steps.seen) if step == "create_payload_index"]
    assert max(made) < steps.seen.index("upsert")
    schema = stand.client.get_collection(f"{stand.spec.name}~2").payload_schema
    assert {"declared.price", "declared.taken_at", "tenant_id", REVISION} <= set(schema)


def test_workers_with_the_new_fields_go_on_and_others_are_told(stand: Rig) -> None:
    """What was decided on before the migration is written after it; the old fields end the start with one line."""
    filled(stand)
    done = run(stand.server())
    with pytest.raises(ConfigError, match="index migrate"):
        stand.server().ensure(stand.spec)
    index = stand.server().ensure(new(stand))
    assert index.name == done.collection
    assert write(index, "acme", put("i1", version=9, attributes={"price": 77}), put("i2", version=0), bury("i4")) == [
        Written.APPLIED,
        Written.SUPERSEDED,
        Written.APPLIED,
    ]
    assert write(index, "acme", Note("i5", Attempt(MIN_VERSION + 9, AttemptState.RETRYING))) == [Written.APPLIED]
    found = index.search("acme", Query((towards(1),), filter=Within("price", gte=70)))
    assert [hit.image_id for hit in found.hits] == ["i1"]
    assert index.sweep(MIN_VERSION + 10**9, limit=100) >= 1
    assert index.count("acme")[State.DELETED] == 0


def test_the_same_fields_may_be_asked_for_again(stand: Rig) -> None:
    """It is built anew, under the next number, however often."""
    before = everything(filled(stand))
    assert run(stand.server()).collection == f"{stand.spec.name}~2"
    assert run(stand.server()).collection == f"{stand.spec.name}~3"
    assert everything(stand.server().current()) == before
    assert stand.names() == [f"{stand.spec.name}~3"]


def test_without_a_collection_there_is_nothing_to_migrate(stand: Rig) -> None:
    """One line, as without a server."""
    with pytest.raises(ConfigError, match="no collection"):
        run(stand.server())


def test_the_api_follows_the_alias_and_the_old_one_stays_until_then(stand: Rig) -> None:
    """For a second an API believes the alias it has read: what it asks meanwhile is answered."""
    filled(stand)
    now = [0.0]
    api = ServerClient(stand.server(), clock=lambda: now[0])
    assert api.spec() == stand.spec
    answered: list[int] = []

    def during(step: str) -> None:
        if step == "delete_collection":
            now[0] += ALIAS_AGE_S
        answered.append(api.count("acme")[State.INDEXED])

    run(stand.server(Steps(act=during)))
    assert set(answered) == {9}
    assert api.spec() == new(stand)
    known = stand.server().current()
    assert stand.server().current(known) is known


def test_pauses_are_long_enough_for_whoever_believes_the_alias(stand: Rig) -> None:
    """The last thing before the old one goes is a pause longer than an alias is believed."""
    filled(stand)
    done: list[object] = []
    steps = Steps(act=done.append)
    migrate(stand.server(steps), FIELDS, told=lambda _: None, pause=done.append)
    pause_s = done[done.index("delete_collection") - 2]  # between them: it says that it is no copy any more
    assert isinstance(pause_s, float)
    assert pause_s > ALIAS_AGE_S


def test_writes_during_the_copy_are_caught_up(stand: Rig) -> None:
    """New pictures, newer ones, deletes, and a tenant that was removed: the copy is what the old one is at the end."""
    index = filled(stand)
    late: list[Callable[[], object]] = [
        lambda: write(index, "acme", put("i0", towards(9, 5), version=7), put("late", towards(2, 7)), bury("i5")),
        lambda: index.delete_tenant("bell"),
        lambda: write(index, "acme", put("later")),
    ]

    def meanwhile(step: str) -> None:
        if step == "upsert" and late:
            late.pop(0)()

    done = run(stand.server(Steps(act=meanwhile)))
    assert not late
    after = stand.server().current()
    assert after.count("bell") == dict.fromkeys(State, 0)
    assert done.points == len(everything(after)["acme"]) == N_POINTS // 2 + 2
    assert after.search("acme", like(towards(9, 5))).hits[0].image_id == "i0"
    newer = after.get("acme", "i0")
    assert newer is not None
    assert newer.version == MIN_VERSION + 7
    buried = after.get("acme", "i5")
    assert buried is not None
    assert buried.state is State.DELETED


def test_vectors_that_change_after_they_were_copied_change_in_the_copy(stand: Rig) -> None:
    """One is buried and has none any more, one becomes another, one comes."""
    index = filled(stand)
    buried: list[str] = []

    def meanwhile(step: str) -> None:
        if step == "update_collection" and not buried:  # all are copied: it is the fence that comes
            buried.append("i0")
            write(index, "acme", bury("i0"), put("i1", towards(3, 9), version=7, etag="b"), put("late", towards(4, 9)))

    run(stand.server(Steps(act=meanwhile)))
    after = stand.server().current()
    assert "i0" not in {hit.image_id for hit in after.search("acme", like(towards(1, 1), limit=100)).hits}
    assert after.search("acme", like(towards(3, 9))).hits[0].image_id == "i1"
    assert after.search("acme", like(towards(4, 9))).hits[0].image_id == "late"
    numbers = revisions(stand, after.name)
    assert sum(has_vector for _, has_vector in numbers.values()) == 9 + 9


def test_a_writer_that_never_stops_is_refused_and_nothing_is_changed(stand: Rig) -> None:
    """The two never become equal: one line that says what to stop, and only the old collection is there."""
    index = filled(stand)
    numbers = itertools.count(1)

    def always(step: str) -> None:
        if step == "scroll":
            write(index, "acme", put("busy", version=next(numbers)))

    with pytest.raises(ConfigError, match="stop the workers"):
        run(stand.server(Steps(act=always, reads=True)))
    assert stand.names() == [stand.spec.name]
    assert stand.server().current().spec() == stand.spec
    assert write(index, "acme", put("after")) == [Written.APPLIED]
    assert run(stand.server()).points == N_POINTS + 2


def test_behind_the_fence_a_write_is_refused_and_not_lost(stand: Rig) -> None:
    """A worker that runs against the rule waits: its write is an outage to it, whole points and notes alike."""
    index = filled(stand)
    told: list[str] = []

    def behind(step: str) -> None:
        if step == "update_collection_aliases":
            for one in (put("i0", version=9), Note("i1", Attempt(MIN_VERSION + 9, AttemptState.RETRYING))):
                with pytest.raises(DependencyError):
                    write(index, "acme", one)
                told.append("refused")

    run(stand.server(Steps(act=behind)))
    assert told == ["refused"] * 2
    after = stand.server().ensure(new(stand))
    assert write(after, "acme", put("i0", version=9)) == [Written.APPLIED]


def test_a_worker_that_starts_behind_the_fence_stops_the_migration(stand: Rig) -> None:
    """Its start lets everybody write again, so what was compared may be different: nothing is changed."""
    filled(stand)
    started: list[ServerIndex] = []

    def starts(step: str) -> None:
        if steps.seen.count("update_collection") == 1 and step == "scroll" and not started:
            started.append(stand.server().ensure(stand.spec))

    steps = Steps(act=starts, reads=True)
    with pytest.raises(ConfigError, match="worker was started"):
        run(stand.server(steps))
    assert started
    assert stand.names() == [stand.spec.name]
    assert write(started[0], "acme", put("after")) == [Written.APPLIED]


def test_an_alias_that_was_switched_meanwhile_stops_the_migration(stand: Rig) -> None:
    """What the operator has chosen stays; the old collection can be written to."""
    index = filled(stand)
    other = replace(stand.spec, preprocessing_id="migrated-v2")
    stand.server().ensure(other)

    def switches(step: str) -> None:
        if step == "update_collection":
            stand.server().switch(other.name)

    try:
        with pytest.raises(ConfigError, match="switched"):
            run(stand.server(Steps(act=switches)))
        assert stand.server().aliased() == other.name
        assert stand.names() == [stand.spec.name]
        assert write(index, "acme", put("after")) == [Written.APPLIED]
    finally:
        stand.client.delete_collection(other.name)


def test_a_server_that_does_not_get_ready_in_time_leaves_everything(
    stand: Rig, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The line names the option; the copy is gone and the old one in use."""
    index = filled(stand)
    server, ready = stand.server(), stand.client.get_collection
    monkeypatch.setattr(
        server.client,
        "get_collection",
        lambda name: ready(name).model_copy(update={"status": models.CollectionStatus.YELLOW}),
    )
    now, notes = [0.0], list[str]()

    def pause(seconds: float) -> None:
        now[0] += seconds

    with pytest.raises(DependencyError, match="--timeout"):
        migrate(server, FIELDS, told=notes.append, ready_s=60, clock=lambda: now[0], pause=pause)
    assert 4 <= len(notes) <= 6
    assert stand.names() == [stand.spec.name]
    assert write(index, "acme", put("after")) == [Written.APPLIED]


def _is_whole(stand: Rig, before: dict[str, tuple[Point, ...]]) -> ServerIndex:
    """Searches are answered with everything, `index status` shows one collection, and one kind of worker can start."""
    api = stand.server().current()
    assert everything(api) == before
    (listed,) = stand.server().collections()
    assert (listed.name, listed.current, listed.points) == (api.name, True, N_POINTS)
    for name in stand.names():
        if name != api.name:
            with pytest.raises(ConfigError, match="no collection"):
                stand.server().switch(name)
    return api


@pytest.mark.parametrize("then", ["a worker", "a migration", "another collection"])
@pytest.mark.parametrize("name", STANDS)
def test_a_kill_at_any_step_leaves_the_old_one_or_the_new_one(
    name: str, then: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Before each step in turn: everything is there, and the next start or migration puts the rest in order."""
    monkeypatch.setattr(pair, "MAX_BATCH", 5)
    warnings.simplefilter("ignore")
    in_use: list[int] = []
    for kill_at in itertools.count():
        with rig(name, OLD) as stand:
            before = everything(filled(stand))
            try:
                run(stand.server(Steps(kill_at=kill_at)))
            except KilledError:
                api = _is_whole(stand, before)
                in_use.append(2 if api.name.endswith("~2") else 1)
                _goes_on(stand, then, before, api)
            else:
                break
    assert in_use == sorted(in_use)
    assert set(in_use) == {1, 2}
    assert len(in_use) > 20


def _goes_on(stand: Rig, then: str, before: dict[str, tuple[Point, ...]], api: ServerIndex) -> None:
    spec = api.spec()
    if then == "a worker":
        refused = stand.spec if spec == new(stand) else new(stand)
        with pytest.raises(ConfigError, match="index migrate"):
            stand.server().ensure(refused)
        worker = stand.server().ensure(spec)
        assert worker.name == api.name
        assert write(worker, "acme", put("i0", version=0)) == [Written.SUPERSEDED]
        noted = Note("i1", Attempt(MIN_VERSION + 9, AttemptState.RETRYING))
        assert write(worker, "acme", put("late"), noted) == [Written.APPLIED] * 2
        assert write(worker, "acme", Note("late", noted.attempt)) == [Written.APPLIED]
        assert api.get("acme", "late") is not None
        assert [one for one in stand.names() if one < api.name] == []
        return
    if then == "another collection":  # and back: what is in use must not be taken for a copy
        other = replace(stand.spec, preprocessing_id="migrated-v2")
        try:
            stand.server().ensure(other)
            stand.server().switch(other.name)
            assert stand.server().ensure(spec).name == api.name
            assert {one.name for one in stand.server().collections()} == {api.name, other.name}
            stand.server().switch(api.name)
        finally:
            stand.client.delete_collection(other.name)
    done = run(stand.server())
    assert stand.names() == [done.collection]
    assert everything(stand.server().current()) == before
    worker = stand.server().ensure(new(stand))
    assert write(worker, "acme", put("late")) == [Written.APPLIED]


def test_what_was_replaced_does_not_come_back_when_its_successor_is_dropped(stand: Rig) -> None:
    """Killed before the old one is removed; then another collection is asked, and the new one dropped."""
    filled(stand)
    with pytest.raises(KilledError):
        run(stand.server(Steps(kill_before="delete_collection")))
    assert stand.names() == [stand.spec.name, f"{stand.spec.name}~2"]
    other = replace(stand.spec, preprocessing_id="migrated-v2")
    try:
        stand.server().ensure(other)
        stand.server().switch(other.name)
        stand.server().drop(f"{stand.spec.name}~2")
        assert stand.names() == []
    finally:
        stand.client.delete_collection(other.name)


def test_a_leftover_copy_is_removed_before_the_next_one_is_made(stand: Rig) -> None:
    """Three at once might not fit on the disk."""
    filled(stand)
    with pytest.raises(KilledError):
        run(stand.server(Steps(kill_before="update_collection")))
    assert len(stand.names()) == 2
    there: list[list[str]] = []

    def looks(step: str) -> None:
        if step == "create_collection":
            there.append(stand.names())

    run(stand.server(Steps(act=looks)))
    assert there == [[stand.spec.name]]


def test_dropping_a_leftover_copy_keeps_what_is_in_use(stand: Rig) -> None:
    """A copy is newer by its number only."""
    before = everything(filled(stand))
    with pytest.raises(KilledError):
        run(stand.server(Steps(kill_before="update_collection")))
    stand.server().drop(f"{stand.spec.name}~2")
    assert stand.names() == [stand.spec.name]
    assert everything(stand.server().current()) == before


def test_two_migrations_at_once_end_with_one_collection(stand: Rig) -> None:
    """The second one removes the first one's copy; the first says so and changes nothing."""
    before = everything(filled(stand))
    second: list[Migrated] = []

    def begins(step: str) -> None:
        if step == "update_collection" and not second:
            second.append(run(stand.server()))

    with pytest.raises(
        (ConfigError, DependencyError, ValueError)
    ):  # the imitation's word for a missing one is ValueError
        run(stand.server(Steps(act=begins)))
    assert second
    assert stand.server().aliased() == second[0].collection
    assert everything(stand.server().current()) == before
    assert stand.names() == [second[0].collection]


def test_an_answer_that_is_lost_when_the_alias_is_moved_loses_nothing(stand: Rig) -> None:
    """The server has moved it and could not say so: the copy is in use, and is not taken away as one cut short."""
    before = everything(filled(stand))
    server = stand.server()
    moved = server.point_alias

    def lost(name: str) -> None:
        moved(name)
        raise DependencyError("index", "no answer")

    server.point_alias = lost  # type: ignore[method-assign]
    with pytest.raises(DependencyError, match="no answer"):
        run(server)
    assert everything(stand.server().current()) == before
    assert stand.server().ensure(new(stand)).name == f"{stand.spec.name}~2"
    assert stand.names() == [f"{stand.spec.name}~2"]


def test_a_copy_that_somebody_removes_at_the_last_moment_does_not_cost_the_old_one(stand: Rig) -> None:
    """The alias goes with it; the old collection is whole, can be written to, and a worker gives it the alias."""
    before = everything(filled(stand))
    server = stand.server()
    moved = server.point_alias

    def removed(name: str) -> None:
        moved(name)
        stand.client.delete_collection(name)

    server.point_alias = removed  # type: ignore[method-assign]
    with pytest.raises(ConfigError, match="another migration"):
        run(server)
    index = stand.server().ensure(stand.spec)
    assert everything(stand.server().current()) == before
    assert write(index, "acme", put("after")) == [Written.APPLIED]
