"""What filters, facets and lists let through, on every index there is."""

from __future__ import annotations

import pytest

from embedder.index.filters import AllOf, AnyOf, Filter, HasTag, Is, Not, Within, matches
from embedder.index.points import Attempt, AttemptState, Note, PutVector, State
from embedder.index.query import Query
from streams.errors import QueryError, Reason
from streams.event import MIN_VERSION
from tests.contract.index_cases import FIELDS, Index, Stand, bury, listed, put, towards, write

DAY_US = 86_400_000_000
TAKEN = ("2024-05-01T00:00:00Z", "2024-05-02T00:00:00+02:00", "2024-05-02", "yesterday", 3, None)
PRICES = (1, 2.5, 3, "4", True, None)

SHAPES: list[Filter] = [
    HasTag(("red",)),
    HasTag(("red", "blue", "never")),
    HasTag(("",)),
    HasTag(("RED",)),
    Is("shop", ("north",)),
    Is("shop", ("north", "a=b")),
    Is("shop", ("a",)),
    Is("sold", (True,)),
    Is("sold", (False, True)),
    Is("sold", ("true",)),
    Is("never", ("x",)),
    Within("price", gte=2.5),
    Within("price", gt=2.5),
    Within("price", lte=2.5),
    Within("price", lt=2.5),
    Within("price", gte=1, lt=3),
    Within("price", gte=3, lte=1),
    Within("taken_at", gte=1_714_521_600_000_000, lt=1_714_521_600_000_001),
    Within("taken_at", gt=1_714_521_600_000_000),
    Within("taken_at", lt=1e300),
    Within("created_at", gte=MIN_VERSION + 2 * DAY_US),
    Within("created_at", lt=MIN_VERSION + 2 * DAY_US + 1),
    Within("indexed_at", gte=MIN_VERSION),
    Within("indexed_at", gt=MIN_VERSION),
    Within("width_px", lt=102.5),
    Within("width_px", gt=102.5),
    Within("width_px", gte=102.5),
    Within("width_px", lte=102.5),
    Within("height_px", gte=-1e300, lte=1e300),
    Not(HasTag(("red",))),
    Not(Within("price", lt=3)),
    Not(Is("shop", ("north",))),
    Not(Not(HasTag(("blue",)))),
    AllOf((HasTag(("red",)), Is("sold", (True,)))),
    AllOf((HasTag(("red",)), Within("price", gte=1), Not(Is("shop", ("a=b",))))),
    AllOf((HasTag(("red",)), HasTag(("blue",)))),
    AnyOf((HasTag(("red",)), Within("price", gte=3))),
    AnyOf((AllOf((HasTag(("red",)), HasTag(("blue",)))), Not(AnyOf((Is("sold", (True,)), Within("price", lt=99)))))),
]


def pictures() -> list[PutVector]:
    """36 pictures in which tags, attributes, times and sizes meet in every way, each value's absence included."""
    tags: tuple[tuple[str, ...], ...] = (("red",), ("blue", "red"), ("",), ())
    shops = ("north", "a=b", None)
    made = []
    for n in range(36):
        attributes = {
            "shop": shops[n % 3],
            "sold": (True, False, None, "true")[n % 4],
            "price": PRICES[n % 6],
            "taken_at": TAKEN[(n // 2) % 6],
        }
        made.append(
            put(
                f"i{n:02}",
                towards(40 - n, n + 1),
                tags=tags[n % 4 if n % 5 else 0],
                attributes={name: value for name, value in attributes.items() if value is not None},
                size_px=(100 + n, 300 - n),
                created_at_us=MIN_VERSION + (n % 5) * DAY_US,
            )
        )
    return made


@pytest.fixture(scope="module")
def filled(stand: Stand) -> str:
    """A tenant with those pictures, tombstones and notes; another one has the same pictures under other names."""
    tenant, other = stand.tenant(), stand.tenant()
    write(stand.index, tenant, *pictures(), bury("gone"), Note("new", Attempt(MIN_VERSION, AttemptState.PENDING)))
    write(stand.index, other, *(put(f"other{n}", tags=("red", "blue")) for n in range(3)))
    return tenant


def allowed(index: Index, tenant_id: str, condition: Filter) -> list[str]:
    """Every point that the condition lets through, by what it means."""
    points = index.list(tenant_id, limit=1000).points
    return sorted(point.image_id for point in points if matches(condition, point, FIELDS))


class TestFilters:
    """Each shape of filter against what it means."""

    @pytest.mark.parametrize("condition", SHAPES, ids=str)
    def test_a_search_finds_exactly_what_the_filter_allows(self, index: Index, filled: str, condition: Filter) -> None:
        """The hits are the indexed pictures for which the condition holds, in the order they have without it."""
        everything = [hit.image_id for hit in index.search(filled, Query((towards(1),), limit=100)).hits]
        expected = set(allowed(index, filled, condition))
        query = Query((towards(1),), filter=condition, limit=100)
        assert [hit.image_id for hit in index.search(filled, query).hits] == [
            image_id for image_id in everything if image_id in expected
        ]

    @pytest.mark.parametrize("condition", SHAPES, ids=str)
    def test_a_list_holds_exactly_what_the_filter_allows(self, index: Index, filled: str, condition: Filter) -> None:
        """Page by page, tombstones and empty points included where no state is asked for."""
        expected = allowed(index, filled, condition)
        names: list[str] = []
        cursor: str | None = None
        while True:
            page = index.list(filled, limit=5, cursor=cursor, filter=condition)
            names += [point.image_id for point in page.points]
            cursor = page.next_cursor
            if cursor is None:
                break
        assert sorted(names) == expected
        indexed = index.list(filled, limit=1000, states=(State.INDEXED,), filter=condition).points
        assert sorted(point.image_id for point in indexed) == [name for name in expected if name.startswith("i")]

    def test_examples_and_filters_and_pages_meet(self, index: Index, filled: str) -> None:
        """Named examples, a filter, a threshold and an offset narrow the same search together."""
        condition = HasTag(("red",))
        whole = index.search(filled, Query(("i00", "i01"), ("i35",), condition, limit=100)).hits
        names = [hit.image_id for hit in whole]
        assert len(names) > 10
        assert {"i00", "i01", "i35"}.isdisjoint(names)
        assert set(names) <= set(allowed(index, filled, condition))
        lowest = (whole[5].score + whole[6].score) / 2
        part = index.search(filled, Query(("i00", "i01"), ("i35",), condition, lowest, limit=4, offset=3)).hits
        assert [hit.image_id for hit in part] == names[3:6]

    @pytest.mark.parametrize(
        ("condition", "code"),
        [
            (Within("undeclared", gte=1), "field_undeclared"),
            (Within("state", gte=1), "field_undeclared"),
            (Not(AllOf((HasTag(("red",)), Within("version", gte=1)))), "field_undeclared"),
            (Is("price", ("3",)), "field_type"),
            (Is("created_at", ("3",)), "field_type"),
            (Not(Not(Not(Not(Not(Not(HasTag(("red",)))))))), "filter_too_large"),
            (HasTag(tuple(f"t{n}" for n in range(128))), "filter_too_large"),
        ],
        ids=["undeclared", "state", "nested", "number", "time", "deep", "large"],
    )
    def test_a_filter_that_may_not_be_asked_is_refused(
        self, index: Index, filled: str, condition: Filter, code: str
    ) -> None:
        """In a search, in a list, in a facet: the same error, and no engine gets to see it."""
        for ask in (
            lambda: index.search(filled, Query((towards(1),), filter=condition)),
            lambda: index.list(filled, limit=1, filter=condition),
            lambda: index.facet(filled, "tags", filter=condition),
        ):
            with pytest.raises(QueryError) as refused:
                ask()
            assert (refused.value.status, refused.value.code, refused.value.field) == (422, code, "filter")


class TestFacets:
    """How often each value occurs."""

    def test_tags_are_counted_most_frequent_first(self, index: Index, tenant: str) -> None:
        """Indexed pictures only; equal counts by name; a limit cuts after the most frequent."""
        write(index, tenant, *(put(f"i{n}", tags=("all", f"half{n % 2}", f"of{n}")) for n in range(4)), bury("i3"))
        facet = index.facet(tenant, "tags")
        assert [(one.value, one.count) for one in facet.values] == [
            ("all", 3),
            ("half0", 2),
            ("half1", 1),
            ("of0", 1),
            ("of1", 1),
            ("of2", 1),
        ]
        assert facet.complete
        assert [one.value for one in index.facet(tenant, "tags", limit=2).values] == ["all", "half0"]

    def test_an_attributes_words_and_bools_are_counted(self, index: Index, tenant: str) -> None:
        """Of one attribute, whatever the others hold, also where its name begins as another one's."""
        write(
            index,
            tenant,
            put("a", attributes={"col": "x", "colour": "red", "sold": True, "n": 3}),
            put("b", attributes={"col": "x", "colour": "red=ish", "sold": False}),
            put("c", attributes={"colour": "red", "sold": True}),
        )
        for name, counts in {
            "colour": [("red", 2), ("red=ish", 1)],
            "col": [("x", 2)],
            "sold": [("true", 2), ("false", 1)],
            "n": [],
            "never": [],
        }.items():
            facet = index.facet(tenant, name)
            assert [(one.value, one.count) for one in facet.values] == counts
            assert facet.complete

    def test_a_filter_narrows_what_is_counted(self, index: Index, filled: str) -> None:
        """The counts are those of the pictures the filter allows."""
        condition = Within("width_px", lt=110)
        red = set(allowed(index, filled, AllOf((condition, HasTag(("red",))))))
        counts = {one.value: one.count for one in index.facet(filled, "tags", filter=condition).values}
        assert counts["red"] == len(red)

    def test_the_frequent_are_found_among_many_rare_ones(self, index: Index, tenant: str) -> None:
        """A value that many share is counted whole though another attribute is different in every picture."""
        write(
            index,
            tenant,
            *(put(f"i{n}", attributes={"sku": f"s{n}", "colour": ("red", "blue")[n % 2]}) for n in range(600)),
        )
        facet = index.facet(tenant, "colour")
        assert [(one.value, one.count) for one in facet.values] == [("blue", 300), ("red", 300)]
        some = index.facet(tenant, "sku", limit=3)
        assert [one.count for one in some.values] == [1, 1, 1]

    @pytest.mark.parametrize("field", ["price", "created_at", "width_px", "a=b", ""])
    def test_what_has_no_facet_is_refused(self, index: Index, tenant: str, field: str) -> None:
        """Numbers and times have ranges; what is no name has neither."""
        with pytest.raises(QueryError) as refused:
            index.facet(tenant, field)
        assert (refused.value.status, refused.value.code, refused.value.field) == (422, "field_type", "field")


class TestDroppedTenants:
    """What deleting a tenant's points leaves."""

    def test_nothing_is_left_and_no_other_tenant_moves(self, stand: Stand, index: Index) -> None:
        """Searchable pictures, tombstones and notes go, are counted, and are nowhere any more."""
        ours, theirs = stand.tenant(), stand.tenant()
        for tenant_id in (ours, theirs):
            write(index, tenant_id, *(put(f"i{n}", tags=("x",)) for n in range(5)), bury("gone"))
            write(index, tenant_id, Note("new", Attempt(MIN_VERSION, AttemptState.FAILED, Reason.IMAGE_MISSING)))
        before = index.tenant_stats(theirs), listed(index, theirs, limit=100)
        assert index.tenant_stats(ours).points == {State.INDEXED: 5, State.DELETED: 1, State.EMPTY: 1}
        assert index.tenant_stats(ours).attempts == {"failed": 1}
        assert index.delete_tenant(ours) == 7
        assert index.delete_tenant(ours) == 0
        assert set(index.count(ours).values()) == {0}
        assert index.list(ours, limit=100).points == ()
        assert index.read(ours, ["i0", "gone", "new"]) == [None] * 3
        assert index.search(ours, Query((towards(1),))).hits == ()
        assert index.facet(ours, "tags").values == ()
        assert (index.tenant_stats(theirs), listed(index, theirs, limit=100)) == before

    def test_a_dropped_tenant_may_come_back(self, index: Index, tenant: str) -> None:
        """What is written after the drop is there, also after the index was opened again, and only that."""
        write(index, tenant, put("a", version=9), put("b"))
        index.delete_tenant(tenant)
        for n in range(70):  # enough for a stand that opens its files again every so often
            write(index, tenant, put("a", version=n + 1, etag=f"e{n}"))
        assert listed(index, tenant, limit=10) == [["a"]]
        assert [hit.image_id for hit in index.search(tenant, Query((towards(1),))).hits] == ["a"]
