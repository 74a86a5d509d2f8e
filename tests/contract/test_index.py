"""What every index must do, on every index there is: in this process, opened again, and behind the socket."""

from __future__ import annotations

from dataclasses import replace
from itertools import zip_longest

import numpy as np
import pytest
from hypothesis import Phase, given, settings

from embedder.index.points import (
    Attempt,
    AttemptState,
    Note,
    Point,
    Refresh,
    State,
    Vector,
    Write,
    Written,
    apply,
)
from embedder.index.query import like
from streams.errors import EventError, QueryError, Reason
from streams.event import MIN_VERSION, Attribute
from tests.contract.index_cases import SPEC, Index, Stand, bury, found, listed, put, towards, write
from tests.interleavings import World
from tests.played_index import PlayedIndex
from tests.races import RACES
from tests.script import VECTOR_DIM, Action, scripts
from tests.table import ROWS, Case, check

DURABLE_S = 30.0
N_SCRIPTS = 40
FAILED_NOTE = Attempt(MIN_VERSION, AttemptState.FAILED)


@pytest.fixture(scope="module")
def random_scripts() -> list[list[Action]]:
    """The same scripts for every index, long enough to meet every race; what fails here is shrunk in test_points."""
    found: list[list[Action]] = []

    @settings(max_examples=N_SCRIPTS, derandomize=True, database=None, deadline=None, phases=[Phase.generate])
    @given(scripts())
    def collect(script: list[Action]) -> None:
        found.append(script)

    collect()
    return found


class TestTable:
    """The table of docs/semantics.md."""

    def test_each_row_and_race(self, stand: Stand) -> None:
        """What each row of the table and each race that the design names says in words is what is stored."""

        def run(case: Case) -> None:
            tenant_id = stand.tenant()
            try:
                check(case, tenant_id, PlayedIndex(tenant_id, writer=stand.index, searcher=stand.index))
            except BaseException as exc:
                exc.add_note(case.fact)
                raise

        stand.each(run, ROWS + RACES)

    def test_any_interleaving_of_two_tenants(self, stand: Stand, random_scripts: list[list[Action]]) -> None:
        """Whatever order events of the same image ids in two tenants come in, each tenant's end is the oracle's."""

        def run(number: int) -> None:
            worlds = []
            for _ in range(2):
                tenant_id = stand.tenant()
                worlds.append(World(tenant_id, PlayedIndex(tenant_id, writer=stand.index, searcher=stand.index)))
            for pair in zip_longest(random_scripts[number], random_scripts[number + 1]):
                for world, other, action in zip(worlds, reversed(worlds), pair, strict=True):
                    if action is not None:
                        world.act(action)
                        other._check_rows()  # of what the other tenant holds nothing has moved
            for world in worlds:
                world.drain()
                world.check_settled()

        stand.each(run, range(0, len(random_scripts) - 1, 2))


class TestWrites:
    """One call with several writes, and what may not be written."""

    def test_a_batch_is_applied_in_its_order(self, index: Index, tenant: str) -> None:
        """Several writes of one image in one call give what they give one after the other."""
        location = put("a").location
        failed = Attempt(MIN_VERSION + 9, AttemptState.FAILED, Reason.IMAGE_MISSING, tries=2, at_us=7)
        batch: list[Write] = [
            put("a", towards(1)),
            Refresh("a", MIN_VERSION + 2, location, "a", ("new",), {"colour": "red"}),
            Note("a", failed),
            put("b", towards(0, 1)),
            bury("b"),
            put("b", towards(0, 1), version=1),
            bury("c"),
            put("c", towards(0, 0, 1), version=3),
            Note("d", failed),
        ]
        one_by_one: dict[str, Point | None] = {}
        expected = []
        for each in batch:
            change = apply(tenant, one_by_one.get(each.image_id), each)
            one_by_one[each.image_id] = change.point
            expected.append(change.written)
        assert write(index, tenant, *batch) == expected
        assert expected.count(Written.SUPERSEDED) == 1
        assert index.read(tenant, list("abcd")) == list(one_by_one.values())
        assert found(index, tenant, towards(1, 1, 1)).keys() == {"a", "c"}

    def test_the_last_of_several_vectors_is_searched(self, index: Index, tenant: str) -> None:
        """Two pictures of one image in one call: the newer one's vector and version are what is there."""
        write(index, tenant, put("a", towards(1), version=1), put("a", towards(0, 1), version=2, etag="b"))
        assert found(index, tenant, towards(0, 1))["a"] == pytest.approx(1.0)
        assert index.read(tenant, ["a"]) == [apply(tenant, None, put("a", version=2, etag="b")).point]

    def test_writing_again_changes_nothing(self, index: Index, tenant: str) -> None:
        """The same call a second time is reported as before and leaves points, hits and counts as they were."""
        batch: list[Write] = [put("a"), bury("b"), Note("c", Attempt(MIN_VERSION + 1, AttemptState.PENDING, at_us=5))]
        first = write(index, tenant, *batch)
        before = index.read(tenant, list("abc")), found(index, tenant, towards(1)), index.count(tenant)
        assert write(index, tenant, *batch) == first == [Written.APPLIED] * 3
        assert (index.read(tenant, list("abc")), found(index, tenant, towards(1)), index.count(tenant)) == before

    def test_everything_said_of_a_picture_comes_back(self, index: Index, tenant: str) -> None:
        """Every field of a point survives storage with its type: text, numbers, bools, times, awkward names."""
        attributes: dict[str, Attribute] = {
            "n": 2**53 - 1,
            "x": 1.0,
            "y": 0.1,
            "yes": True,
            "no": False,
            "shop": "née = “ü” \U0001f4f7",
        }
        one = put("A.b~c-d_9", tags=("x", "", "ü" * 256), attributes=attributes)
        write(index, tenant, one, Note(one.image_id, Attempt(MIN_VERSION + 5, AttemptState.RETRYING, at_us=3)))
        (point,) = index.read(tenant, [one.image_id])
        assert point is not None
        plain = apply(tenant, None, one).point
        assert plain is not None
        assert point.attempt == Attempt(MIN_VERSION + 5, AttemptState.RETRYING, at_us=3)
        for name in Point.__struct_fields__:
            if name != "attempt":
                assert getattr(point, name) == getattr(plain, name), name
        assert {name: type(value) for name, value in point.attributes.items()} == {
            name: type(value) for name, value in attributes.items()
        }

    @pytest.mark.parametrize(
        "bad",
        [
            np.zeros(VECTOR_DIM, np.float32),
            np.full(VECTOR_DIM, np.nan, np.float32),
            towards(1, np.inf),
            np.ones(VECTOR_DIM - 1, np.float32),
            np.ones(VECTOR_DIM + 1, np.float32),
            np.ones((2, VECTOR_DIM // 2), np.float32),
        ],
        ids=["zero", "nan", "infinite", "short", "long", "two-dimensional"],
    )
    def test_an_unusable_vector_is_refused(self, index: Index, tenant: str, bad: Vector) -> None:
        """What cannot be compared is refused with its reason, and with it everything of its call."""
        with pytest.raises(EventError) as refused:
            write(index, tenant, put("a"), put("b", bad), bury("c"))
        assert refused.value.reason is Reason.VECTOR_INVALID
        assert index.read(tenant, list("abc")) == [None] * 3
        with pytest.raises(EventError) as refused:
            index.search(tenant, like(bad, limit=1))
        assert refused.value.reason is Reason.VECTOR_INVALID

    def test_nothing_is_a_write_too(self, index: Index, tenant: str) -> None:
        """A call without writes, and a read without names, answer with nothing."""
        assert write(index, tenant) == []
        assert index.read(tenant, []) == []

    def test_read_answers_in_order(self, index: Index, tenant: str) -> None:
        """One answer per name asked for, repeated and unknown ones included."""
        write(index, tenant, put("a"), put("b"))
        points = index.read(tenant, ["b", "none", "a", "b"])
        assert [point and point.image_id for point in points] == ["b", None, "a", "b"]


class TestTenants:
    """No tenant sees another, and none can be named by accident."""

    def test_the_same_image_id_in_two_tenants_is_two_points(self, stand: Stand, index: Index) -> None:
        """Written, refreshed and deleted in one tenant, the other's stays as it is."""
        ours, theirs = stand.tenant(), stand.tenant()
        write(index, ours, put("a", towards(1), tags=("ours",)))
        write(index, theirs, put("a", towards(0, 1), version=5, tags=("theirs",)))
        before = index.get(ours, "a")
        write(index, theirs, bury("a", version=9))
        assert index.get(ours, "a") == before
        assert before is not None
        assert before.tags == ("ours",)
        assert found(index, ours, towards(1))["a"] == pytest.approx(1.0)
        assert found(index, theirs, towards(1)) == {}

    def test_nothing_of_another_tenant_comes_through(self, stand: Stand, index: Index) -> None:
        """Its images are in no answer: not read, got, similar, searched, listed, counted."""
        ours, theirs = stand.tenant(), stand.tenant()
        write(
            index,
            theirs,
            *(put(f"i{n}", tags=("theirs",)) for n in range(5)),
            Note("n", Attempt(MIN_VERSION, AttemptState.PENDING)),
        )
        assert index.read(ours, ["i0", "n"]) == [None, None]
        assert index.get(ours, "i0") is None
        with pytest.raises(QueryError):
            index.search(ours, like("i0", limit=5))
        assert index.search(ours, like(towards(1), limit=100)).hits == ()
        assert index.list(ours, limit=100).points == ()
        assert set(index.count(ours).values()) == {0}
        write(index, ours, put("mine", towards(0, 1)))
        assert found(index, ours, towards(1)).keys() == {"mine"}
        assert listed(index, ours, limit=100) == [["mine"]]
        assert index.search(ours, like("mine", limit=100)).hits == ()
        assert index.facet(ours, "tags").values == ()
        assert index.tenant_stats(ours).points == {State.INDEXED: 1, State.DELETED: 0, State.EMPTY: 0}
        assert index.tenant_stats(ours).attempts == {}

    def test_names_that_begin_alike_are_apart(self, stand: Stand, index: Index) -> None:
        """A tenant is matched as a whole, whatever stands in the names on either side."""
        stem = stand.tenant()
        for tenant_id in (stem, f"{stem}-b", f"{stem}_b"):
            write(index, tenant_id, put("b"), put(f"of-{tenant_id}"))
        for tenant_id in (stem, f"{stem}-b", f"{stem}_b"):
            assert found(index, tenant_id, towards(1)).keys() == {"b", f"of-{tenant_id}"}
            assert sorted(listed(index, tenant_id, limit=100)[0]) == ["b", f"of-{tenant_id}"]

    def test_a_cursor_of_another_tenant_leads_to_nothing_of_it(self, stand: Stand, index: Index) -> None:
        """A cursor says where to go on, never in whose list."""
        ours, theirs = stand.tenant(), stand.tenant()
        write(index, ours, *(put(f"o{n}") for n in range(6)))
        write(index, theirs, *(put(f"t{n}") for n in range(6)))
        cursor = index.list(theirs, limit=3).next_cursor
        assert all(point.tenant_id == ours for point in index.list(ours, limit=100, cursor=cursor).points)


class TestLists:
    """Pages, counts and figures."""

    @pytest.mark.parametrize("limit", [1, 3, 7, 100])
    def test_pages_are_complete_and_without_repeats(self, index: Index, tenant: str, limit: int) -> None:
        """Following the cursors gives every image once; no page is longer than asked for, none but the last shorter."""
        names = [f"i{n:02}" for n in range(14)]
        write(index, tenant, *(put(name) for name in names))
        pages = listed(index, tenant, limit=limit)
        assert sorted(name for page in pages for name in page) == names
        assert all(len(page) == limit for page in pages[:-1])
        assert 0 < len(pages[-1]) <= limit

    def test_a_list_goes_on_where_it_was_while_others_are_written(self, index: Index, tenant: str) -> None:
        """What is there throughout is listed exactly once, whatever comes and changes between two pages."""
        names = {f"i{n}" for n in range(10)}
        write(index, tenant, *(put(name) for name in names))
        seen: list[str] = []
        cursor: str | None = None
        for n in range(100):
            page = index.list(tenant, limit=3, cursor=cursor)
            seen += [point.image_id for point in page.points]
            cursor = page.next_cursor
            if cursor is None:
                break
            if n < 3:
                write(index, tenant, put(f"new{n}"), put(f"i{n}", version=2, etag="b"))
        assert sorted(set(seen) & names) == sorted(name for name in seen if name in names) == sorted(names)

    def test_states_choose_what_is_listed(self, index: Index, tenant: str) -> None:
        """Each state alone, two together, and all when none is named; every page carries whole points."""
        write(index, tenant, put("a"), put("b"), bury("c"), Note("d", Attempt(MIN_VERSION, AttemptState.FAILED)))
        assert sorted(listed(index, tenant, limit=9, states=(State.INDEXED,))[0]) == ["a", "b"]
        assert listed(index, tenant, limit=9, states=(State.DELETED,)) == [["c"]]
        assert listed(index, tenant, limit=9, states=(State.EMPTY,)) == [["d"]]
        assert sorted(listed(index, tenant, limit=9, states=(State.DELETED, State.EMPTY))[0]) == ["c", "d"]
        assert sorted(listed(index, tenant, limit=9)[0]) == ["a", "b", "c", "d"]
        for point in index.list(tenant, limit=9).points:
            assert point == index.get(tenant, point.image_id)

    @pytest.mark.parametrize("cursor", ["", "x", "a", "../..", "00000000", "é", "0" * 10_000])
    def test_a_cursor_not_given_out_is_refused(self, index: Index, tenant: str, cursor: str) -> None:
        """What was typed or cut off is the caller's mistake, not an empty page."""
        write(index, tenant, put("a"))
        with pytest.raises(ValueError, match="cursor"):
            index.list(tenant, limit=1, cursor=cursor)

    def test_counts_follow_every_change(self, index: Index, tenant: str) -> None:
        """Every state is counted exactly, none is left out."""
        assert index.count(tenant) == {State.INDEXED: 0, State.DELETED: 0, State.EMPTY: 0}
        write(index, tenant, put("a"), put("b"), Note("c", Attempt(MIN_VERSION, AttemptState.FAILED)))
        assert index.count(tenant) == {State.INDEXED: 2, State.DELETED: 0, State.EMPTY: 1}
        write(index, tenant, bury("a"), put("c"))
        assert index.count(tenant) == {State.INDEXED: 2, State.DELETED: 1, State.EMPTY: 0}

    def test_figures_count_all_tenants(self, stand: Stand, index: Index) -> None:
        """Points by state, attempts by state and tenants grow by what two new tenants write."""
        before = index.stats()
        note = Attempt(MIN_VERSION + 7, AttemptState.FAILED, Reason.IMAGE_MISSING)
        write(index, stand.tenant(), put("a"), bury("b"), Note("a", note))
        write(index, stand.tenant(), put("a"), Note("c", Attempt(MIN_VERSION, AttemptState.PENDING)))
        after = index.stats()
        grown = {state: after.points[state] - before.points[state] for state in State}
        assert grown == {State.INDEXED: 2, State.DELETED: 1, State.EMPTY: 1}
        assert after.attempts.get("failed", 0) - before.attempts.get("failed", 0) == 1
        assert after.attempts.get("pending", 0) - before.attempts.get("pending", 0) == 1
        assert after.tenants - before.tenants == 2
        assert (after.engine, after.collection) == (stand.engine, index.spec().name)

    def test_a_sample_is_a_searchable_picture(self, stand: Stand, index: Index) -> None:
        """Never a tombstone or an empty point; over and over, more than one of them."""
        tenant = stand.tenant()
        write(index, tenant, *(put(f"p{n}") for n in range(20)), bury("gone"), Note("e", FAILED_NOTE))
        found = {sample for _ in range(60) if (sample := index.sample()) is not None}
        assert len(found) > 1
        for tenant_id, image_id in found:
            point = index.get(tenant_id, image_id)
            assert point is not None
            assert point.state is State.INDEXED

    def test_an_exact_question_says_that_it_was(self, index: Index, tenant: str) -> None:
        """The answer is the same where the index is right; it compared every candidate."""
        write(index, tenant, *(put(f"p{n}", vector=towards(1.0, n / 10)) for n in range(8)))
        plain = like("p0", limit=5)
        found = index.search(tenant, replace(plain, exact=True))
        assert found.exact
        assert found.hits == index.search(tenant, plain).hits

    def test_the_collection_says_what_it_holds(self, index: Index) -> None:
        """Model, preprocessing and size as it was made."""
        spec = index.spec()
        assert (spec.dim, spec.preprocessing_id, spec.fields) == (SPEC.dim, SPEC.preprocessing_id, SPEC.fields)
        assert spec.model_id.startswith(SPEC.model_id)
