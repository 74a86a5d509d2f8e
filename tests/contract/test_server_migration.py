"""`lookalike index migrate` on a Qdrant server: every point is as it was, and what is declared now is found."""

from __future__ import annotations

import pytest

from embedder.index.filters import Is, Within
from embedder.index.payload import REVISION
from embedder.index.points import Attempt, AttemptState, Note, State, Written
from embedder.index.qdrant_server.client import ALIAS_AGE_S, ServerClient
from embedder.index.qdrant_server.migrate import Migrated, migrate
from embedder.index.query import Query, like
from streams.errors import ConfigError
from streams.event import MIN_VERSION
from tests.contract.index_cases import bury, put, towards, write
from tests.contract.migration_cases import FIELDS, N_POINTS, Steps, everything, filled, new, revisions, run
from tests.watched_qdrant import Rig


def test_every_point_is_as_it_was(rigged: Rig) -> None:
    """Pictures, points without a vector, tombstones and notes of two tenants, each under its revision."""
    index = filled(rigged)
    before, numbers = everything(index), revisions(rigged, rigged.spec.name)
    done = run(rigged.server())
    assert done == Migrated(f"{rigged.spec.name}~2", N_POINTS)
    after = rigged.server().current()
    assert (after.name, after.spec()) == (done.collection, new(rigged))
    assert everything(after) == before
    assert revisions(rigged, done.collection) == numbers
    assert rigged.names() == [done.collection]
    for n in (0, 3, 9):
        assert after.search("acme", like(towards(n + 1, 1))).hits[0].image_id == f"i{n}"


def test_what_is_declared_now_is_found_in_points_that_were_there(rigged: Rig) -> None:
    """Ranges of a number and of a time, with their bounds; filters and facets of words answer as before."""
    filled(rigged)
    run(rigged.server())
    index = rigged.server().current()
    cheap = index.search("acme", Query((towards(1),), filter=Within("price", gte=2, lt=4), limit=100))
    assert {hit.image_id for hit in cheap.hits} == {"i2", "i3"}
    taken = index.search("bell", Query((towards(1),), filter=Within("taken_at", gt=0), limit=100))
    assert {hit.image_id for hit in taken.hits} == {"i3"}
    even = index.search("acme", Query((towards(1),), filter=Is("colour", ("c0",)), limit=100))
    assert {hit.image_id for hit in even.hits} == {"i0", "i2", "i4", "i6", "i8"}
    assert {one.value: one.count for one in index.facet("acme", "colour").values} == {"c0": 5, "c1": 3}
    assert {one.value: one.count for one in index.facet("acme", "tags").values} == {"red": 8}
    assert index.count("acme") == {State.INDEXED: 9, State.DELETED: 2, State.EMPTY: 2}


def test_all_indexes_are_there_before_the_first_point(rigged: Rig) -> None:
    """An index that is made later gives no rows on a real server, with a green status."""
    filled(rigged)
    steps = Steps()
    run(rigged.server(steps))
    made = [n for n, step in enumerate(steps.seen) if step == "create_payload_index"]
    assert max(made) < steps.seen.index("upsert")
    schema = rigged.client.get_collection(f"{rigged.spec.name}~2").payload_schema
    assert {"declared.price", "declared.taken_at", "tenant_id", REVISION} <= set(schema)


def test_workers_with_the_new_fields_go_on_and_others_are_told(rigged: Rig) -> None:
    """What was decided on before the migration is written after it; the old fields end the start with one line."""
    filled(rigged)
    done = run(rigged.server())
    with pytest.raises(ConfigError, match="index migrate"):
        rigged.server().ensure(rigged.spec)
    index = rigged.server().ensure(new(rigged))
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


def test_the_same_fields_may_be_asked_for_again(rigged: Rig) -> None:
    """It is built anew, under the next number, however often."""
    before = everything(filled(rigged))
    assert run(rigged.server()).collection == f"{rigged.spec.name}~2"
    assert run(rigged.server()).collection == f"{rigged.spec.name}~3"
    assert everything(rigged.server().current()) == before
    assert rigged.names() == [f"{rigged.spec.name}~3"]


def test_without_a_collection_there_is_nothing_to_migrate(rigged: Rig) -> None:
    """One line, as without a server."""
    with pytest.raises(ConfigError, match="no collection"):
        run(rigged.server())


def test_the_api_follows_the_alias_and_the_old_one_stays_until_then(rigged: Rig) -> None:
    """For a second an API believes the alias it has read: what it asks meanwhile is answered."""
    filled(rigged)
    now = [0.0]
    api = ServerClient(rigged.server(), clock=lambda: now[0])
    assert api.spec() == rigged.spec
    answered: list[int] = []

    def during(step: str) -> None:
        if step == "delete_collection":
            now[0] += ALIAS_AGE_S
        answered.append(api.count("acme")[State.INDEXED])

    run(rigged.server(Steps(act=during)))
    assert set(answered) == {9}
    assert api.spec() == new(rigged)
    known = rigged.server().current()
    assert rigged.server().current(known) is known


def test_pauses_are_long_enough_for_whoever_believes_the_alias(rigged: Rig) -> None:
    """The last thing before the old one goes is a pause longer than an alias is believed."""
    filled(rigged)
    done: list[object] = []
    steps = Steps(act=done.append)
    migrate(rigged.server(steps), FIELDS, told=lambda _: None, pause=done.append)
    pause_s = done[done.index("delete_collection") - 1]
    assert isinstance(pause_s, float)
    assert pause_s > ALIAS_AGE_S
