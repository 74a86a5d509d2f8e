"""A migration on a Qdrant server, killed at each of its steps: the old collection is in use, or the new one."""

from __future__ import annotations

import itertools
import warnings
from dataclasses import replace

import pytest

from embedder.index.points import Attempt, AttemptState, Note, Point, Written
from embedder.index.qdrant_server import pair
from embedder.index.qdrant_server.index import ServerIndex
from embedder.index.qdrant_server.migrate import Migrated
from streams.errors import ConfigError, DependencyError
from streams.event import MIN_VERSION
from tests.contract.index_cases import put, write
from tests.contract.migration_cases import (
    N_POINTS,
    OLD,
    KilledError,
    Steps,
    everything,
    filled,
    new,
    run,
)
from tests.watched_qdrant import STANDS, Rig, rig


def _is_whole(rigged: Rig, before: dict[str, tuple[Point, ...]]) -> ServerIndex:
    """Searches are answered with everything, `index status` shows one collection, and one kind of worker can start."""
    api = rigged.server().current()
    assert everything(api) == before
    (listed,) = rigged.server().collections()
    assert (listed.name, listed.current, listed.points) == (api.name, True, N_POINTS)
    for name in rigged.names():
        if name != api.name:
            with pytest.raises(ConfigError, match="no collection"):
                rigged.server().switch(name)
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
        with rig(name, OLD) as rigged:
            before = everything(filled(rigged))
            try:
                run(rigged.server(Steps(kill_at=kill_at)))
            except KilledError:
                api = _is_whole(rigged, before)
                in_use.append(2 if api.name.endswith("~2") else 1)
                _goes_on(rigged, then, before, api)
            else:
                break
    assert in_use == sorted(in_use)
    assert set(in_use) == {1, 2}
    assert len(in_use) > 20


def _goes_on(rigged: Rig, then: str, before: dict[str, tuple[Point, ...]], api: ServerIndex) -> None:
    spec = api.spec()
    if then == "a worker":
        refused = rigged.spec if spec == new(rigged) else new(rigged)
        with pytest.raises(ConfigError, match="index migrate"):
            rigged.server().ensure(refused)
        worker = rigged.server().ensure(spec)
        assert worker.name == api.name
        assert write(worker, "acme", put("i0", version=0)) == [Written.SUPERSEDED]
        noted = Note("i1", Attempt(MIN_VERSION + 9, AttemptState.RETRYING))
        assert write(worker, "acme", put("late"), noted) == [Written.APPLIED] * 2
        assert write(worker, "acme", Note("late", noted.attempt)) == [Written.APPLIED]
        assert api.get("acme", "late") is not None
        assert [one for one in rigged.names() if one < api.name] == []
        return
    if then == "another collection":  # and back: what is in use must not be taken for a copy
        other = replace(rigged.spec, preprocessing_id="migrated-v2")
        try:
            rigged.server().ensure(other)
            rigged.server().switch(other.name)
            assert rigged.server().ensure(spec).name == api.name
            assert {one.name for one in rigged.server().collections()} == {api.name, other.name}
            rigged.server().switch(api.name)
        finally:
            rigged.client.delete_collection(other.name)
    done = run(rigged.server())
    assert rigged.names() == [done.collection]
    assert everything(rigged.server().current()) == before
    worker = rigged.server().ensure(new(rigged))
    assert write(worker, "acme", put("late")) == [Written.APPLIED]


def test_what_was_replaced_does_not_come_back_when_its_successor_is_dropped(rigged: Rig) -> None:
    """Killed before the old one is removed; then another collection is asked, and the new one dropped."""
    filled(rigged)
    with pytest.raises(KilledError):
        run(rigged.server(Steps(kill_before="delete_collection")))
    assert rigged.names() == [rigged.spec.name, f"{rigged.spec.name}~2"]
    other = replace(rigged.spec, preprocessing_id="migrated-v2")
    try:
        rigged.server().ensure(other)
        rigged.server().switch(other.name)
        rigged.server().drop(f"{rigged.spec.name}~2")
        assert rigged.names() == []
    finally:
        rigged.client.delete_collection(other.name)


def test_a_leftover_copy_is_removed_before_the_next_one_is_made(rigged: Rig) -> None:
    """Three at once might not fit on the disk."""
    filled(rigged)
    with pytest.raises(KilledError):
        run(rigged.server(Steps(kill_before="update_collection")))
    assert len(rigged.names()) == 2
    there: list[list[str]] = []

    def looks(step: str) -> None:
        if step == "create_collection":
            there.append(rigged.names())

    run(rigged.server(Steps(act=looks)))
    assert there == [[rigged.spec.name]]


def test_dropping_a_leftover_copy_keeps_what_is_in_use(rigged: Rig) -> None:
    """A copy is newer by its number only."""
    before = everything(filled(rigged))
    with pytest.raises(KilledError):
        run(rigged.server(Steps(kill_before="update_collection")))
    rigged.server().drop(f"{rigged.spec.name}~2")
    assert rigged.names() == [rigged.spec.name]
    assert everything(rigged.server().current()) == before


def test_two_migrations_at_once_end_with_one_collection(rigged: Rig) -> None:
    """The second one removes the first one's copy; the first says so and changes nothing."""
    before = everything(filled(rigged))
    second: list[Migrated] = []

    def begins(step: str) -> None:
        if step == "update_collection" and not second:
            second.append(run(rigged.server()))

    with pytest.raises(
        (ConfigError, DependencyError, ValueError)
    ):  # the imitation's word for a missing one is ValueError
        run(rigged.server(Steps(act=begins)))
    assert second
    assert rigged.server().aliased() == second[0].collection
    assert everything(rigged.server().current()) == before
    assert rigged.names() == [second[0].collection]


def test_an_answer_that_is_lost_when_the_alias_is_moved_loses_nothing(rigged: Rig) -> None:
    """The server has moved it and could not say so: the copy is in use, and is not taken away as one cut short."""
    before = everything(filled(rigged))
    server = rigged.server()
    moved = server.point_alias

    def lost(name: str) -> None:
        moved(name)
        raise DependencyError("index", "no answer")

    server.point_alias = lost  # type: ignore[method-assign]
    with pytest.raises(DependencyError, match="no answer"):
        run(server)
    assert everything(rigged.server().current()) == before
    assert rigged.server().ensure(new(rigged)).name == f"{rigged.spec.name}~2"
    assert rigged.names() == [f"{rigged.spec.name}~2"]


def test_a_copy_that_somebody_removes_at_the_last_moment_does_not_cost_the_old_one(rigged: Rig) -> None:
    """The alias goes with it; the old collection is whole, can be written to, and a worker gives it the alias."""
    before = everything(filled(rigged))
    server = rigged.server()
    moved = server.point_alias

    def removed(name: str) -> None:
        moved(name)
        rigged.client.delete_collection(name)

    server.point_alias = removed  # type: ignore[method-assign]
    with pytest.raises(ConfigError, match="another migration"):
        run(server)
    index = rigged.server().ensure(rigged.spec)
    assert everything(rigged.server().current()) == before
    assert write(index, "acme", put("after")) == [Written.APPLIED]
