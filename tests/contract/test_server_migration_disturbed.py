"""A migration on a Qdrant server beside writers and other operators: nothing is lost, or nothing is changed."""

from __future__ import annotations

import itertools
from collections.abc import Callable
from dataclasses import replace

import pytest
from qdrant_client import models

from embedder.index.points import Attempt, AttemptState, Note, State, Written
from embedder.index.qdrant_server.index import ServerIndex
from embedder.index.qdrant_server.migrate import migrate
from embedder.index.qdrant_server.schema import make
from embedder.index.query import like
from streams.errors import ConfigError, DependencyError
from streams.event import MIN_VERSION
from tests.contract.index_cases import bury, put, towards, write
from tests.contract.migration_cases import (
    FIELDS,
    N_POINTS,
    KilledError,
    Steps,
    everything,
    filled,
    new,
    revisions,
    run,
)
from tests.watched_qdrant import Rig


def test_writes_during_the_copy_are_caught_up(rigged: Rig) -> None:
    """New pictures, newer ones, deletes, and a tenant that was removed: the copy is what the old one is at the end."""
    index = filled(rigged)
    late: list[Callable[[], object]] = [
        lambda: write(index, "acme", put("i0", towards(9, 5), version=7), put("late", towards(2, 7)), bury("i5")),
        lambda: index.delete_tenant("bell"),
        lambda: write(index, "acme", put("later")),
    ]

    def meanwhile(step: str) -> None:
        if step == "upsert" and late:
            late.pop(0)()

    done = run(rigged.server(Steps(act=meanwhile)))
    assert not late
    after = rigged.server().current()
    assert after.count("bell") == dict.fromkeys(State, 0)
    assert done.points == len(everything(after)["acme"]) == N_POINTS // 2 + 2
    assert after.search("acme", like(towards(9, 5))).hits[0].image_id == "i0"
    newer = after.get("acme", "i0")
    assert newer is not None
    assert newer.version == MIN_VERSION + 7
    buried = after.get("acme", "i5")
    assert buried is not None
    assert buried.state is State.DELETED


def test_vectors_that_change_after_they_were_copied_change_in_the_copy(rigged: Rig) -> None:
    """One is buried and has none any more, one becomes another, one comes."""
    index = filled(rigged)
    buried: list[str] = []

    def meanwhile(step: str) -> None:
        if step == "update_collection" and not buried:  # all are copied: it is the fence that comes
            buried.append("i0")
            write(index, "acme", bury("i0"), put("i1", towards(3, 9), version=7, etag="b"), put("late", towards(4, 9)))

    run(rigged.server(Steps(act=meanwhile)))
    after = rigged.server().current()
    assert "i0" not in {hit.image_id for hit in after.search("acme", like(towards(1, 1), limit=100)).hits}
    assert after.search("acme", like(towards(3, 9))).hits[0].image_id == "i1"
    assert after.search("acme", like(towards(4, 9))).hits[0].image_id == "late"
    numbers = revisions(rigged, after.name)
    assert sum(has_vector for _, has_vector in numbers.values()) == 9 + 9


def test_a_writer_that_never_stops_is_refused_and_nothing_is_changed(rigged: Rig) -> None:
    """The two never become equal: one line that says what to stop, and only the old collection is there."""
    index = filled(rigged)
    numbers = itertools.count(1)

    def always(step: str) -> None:
        if step == "scroll":
            write(index, "acme", put("busy", version=next(numbers)))

    with pytest.raises(ConfigError, match="stop the workers"):
        run(rigged.server(Steps(act=always, reads=True)))
    assert rigged.names() == [rigged.spec.name]
    assert rigged.server().current().spec() == rigged.spec
    assert write(index, "acme", put("after")) == [Written.APPLIED]
    assert run(rigged.server()).points == N_POINTS + 2


def test_behind_the_fence_a_write_is_refused_and_not_lost(rigged: Rig) -> None:
    """A worker that runs against the rule waits: its write is an outage to it, whole points and notes alike."""
    index = filled(rigged)
    told: list[str] = []

    def behind(step: str) -> None:
        if step == "update_collection_aliases":
            for one in (put("i0", version=9), Note("i1", Attempt(MIN_VERSION + 9, AttemptState.RETRYING))):
                with pytest.raises(DependencyError):
                    write(index, "acme", one)
                told.append("refused")

    run(rigged.server(Steps(act=behind)))
    assert told == ["refused"] * 2
    after = rigged.server().ensure(new(rigged))
    assert write(after, "acme", put("i0", version=9)) == [Written.APPLIED]


def test_a_worker_that_starts_behind_the_fence_stops_the_migration(rigged: Rig) -> None:
    """Its start lets everybody write again, so what was compared may be different: nothing is changed."""
    filled(rigged)
    started: list[ServerIndex] = []

    def starts(step: str) -> None:
        if steps.seen.count("update_collection") == 1 and step == "scroll" and not started:
            started.append(rigged.server().ensure(rigged.spec))

    steps = Steps(act=starts, reads=True)
    with pytest.raises(ConfigError, match="worker was started"):
        run(rigged.server(steps))
    assert started
    assert rigged.names() == [rigged.spec.name]
    assert write(started[0], "acme", put("after")) == [Written.APPLIED]


def test_a_worker_that_starts_between_the_last_look_and_the_alias_loses_nothing(rigged: Rig) -> None:
    """The alias goes back: what that worker was told is stored is in the old collection."""
    filled(rigged)
    started: list[ServerIndex] = []

    def starts(step: str) -> None:
        if step == "update_collection_aliases" and not started:
            started.append(rigged.server().ensure(rigged.spec))
            assert write(started[0], "acme", put("late")) == [Written.APPLIED]

    with pytest.raises(ConfigError, match="worker was started"):
        run(rigged.server(Steps(act=starts)))
    assert rigged.names() == [rigged.spec.name]
    assert rigged.server().current().get("acme", "late") is not None
    assert write(started[0], "acme", put("later")) == [Written.APPLIED]


def test_a_worker_that_lifts_the_fence_after_the_alias_has_moved_looks_again(rigged: Rig) -> None:
    """It read the alias before: its writes would go to a collection that is about to be removed."""
    filled(rigged)
    with pytest.raises(KilledError):
        run(rigged.server(Steps(kill_before="update_collection_aliases")))
    copy = f"{rigged.spec.name}~2"

    def moves(step: str) -> None:
        if step == "update_collection" and rigged.server().aliased() != copy:
            rigged.server().point_alias(copy)

    with pytest.raises(ConfigError, match="fields"):
        rigged.server(Steps(act=moves)).ensure(rigged.spec)
    assert rigged.server().ensure(new(rigged)).name == copy


def test_a_tenant_that_is_deleted_during_the_last_comparison_does_not_come_back(rigged: Rig) -> None:
    """The fence lets deletes through, and the pages of the old collection were read already."""
    index = filled(rigged)
    scrolls: list[str] = []

    def deletes(step: str) -> None:
        if step == "scroll" and "update_collection" in steps.seen:
            scrolls.append(step)
            if len(scrolls) == 4:  # two pages of each, in turns: the last one of the copy
                index.delete_tenant("bell")

    steps = Steps(act=deletes, reads=True)
    with pytest.raises(ConfigError, match="deleted"):
        run(rigged.server(steps))
    assert rigged.server().current().count("bell") == dict.fromkeys(State, 0)


def test_a_migration_that_began_at_the_same_moment_keeps_its_copy(rigged: Rig) -> None:
    """Both took the same name: the second is refused, and what the first one made is not the second one's to remove."""
    filled(rigged)
    copy = f"{rigged.spec.name}~2"

    def begins(step: str) -> None:
        if step == "create_collection" and copy not in rigged.names():
            make(rigged.client, rigged.spec, copy, copied_for=rigged.server().alias)

    with pytest.raises((DependencyError, ValueError), match="exists"):  # the imitation's word is ValueError
        run(rigged.server(Steps(act=begins)))
    assert copy in rigged.names()


def test_an_alias_that_was_switched_meanwhile_stops_the_migration(rigged: Rig) -> None:
    """What the operator has chosen stays; the old collection can be written to."""
    index = filled(rigged)
    other = replace(rigged.spec, preprocessing_id="migrated-v2")
    rigged.server().ensure(other)

    def switches(step: str) -> None:
        if step == "update_collection":
            rigged.server().switch(other.name)

    try:
        with pytest.raises(ConfigError, match="switched"):
            run(rigged.server(Steps(act=switches)))
        assert rigged.server().aliased() == other.name
        assert rigged.names() == [rigged.spec.name]
        assert write(index, "acme", put("after")) == [Written.APPLIED]
    finally:
        rigged.client.delete_collection(other.name)


def test_a_server_that_does_not_get_ready_in_time_leaves_everything(
    rigged: Rig, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The line names the option; the copy is gone and the old one in use."""
    index = filled(rigged)
    server, ready = rigged.server(), rigged.client.get_collection
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
    assert rigged.names() == [rigged.spec.name]
    assert write(index, "acme", put("after")) == [Written.APPLIED]
