"""What a search finds and how it is scored, on every index there is."""

from __future__ import annotations

import numpy as np
import pytest

from embedder.index.points import Attempt, AttemptState, Note, Refresh
from embedder.index.protocol import Hits
from embedder.index.query import MAX_EXAMPLES, Query, like
from streams.errors import QueryError, Reason
from streams.event import MIN_VERSION
from tests.contract.index_cases import Index, Stand, bury, found, put, towards, write
from tests.script import VECTOR_DIM


def names(hits: Hits) -> list[str]:
    """The images, best first."""
    return [hit.image_id for hit in hits.hits]


class TestSearch:
    """What a search finds, and how it is scored."""

    def test_the_score_is_the_cosine_best_first(self, index: Index, tenant: str) -> None:
        """Hits come by falling cosine, from 1 for the same direction to -1 for the opposite one."""
        write(index, tenant, put("same", towards(1)), put("near", towards(0.8, 0.6)), put("far", towards(-1)))
        hits = index.search(tenant, like(towards(1), limit=10)).hits
        assert [hit.image_id for hit in hits] == ["same", "near", "far"]
        assert [hit.score for hit in hits] == pytest.approx([1.0, 0.8, -1.0], abs=1e-6)
        assert all(-1.0 <= hit.score <= 1.0 for hit in hits)

    @pytest.mark.parametrize("length", [1e-10, 3.0, 1e10])
    def test_the_length_of_a_vector_does_not_count(self, index: Index, tenant: str, length: float) -> None:
        """Only the direction is compared, of what is stored and of what is asked."""
        write(index, tenant, put("a", towards(0.6 * length, 0.8 * length)))
        assert found(index, tenant, towards(length))["a"] == pytest.approx(0.6, abs=1e-6)

    def test_ten_thousandths_are_told_apart(self, index: Index, tenant: str) -> None:
        """Scores are those of the stored floats, whatever the engine keeps besides them."""
        rng = np.random.default_rng(7)
        vectors = rng.normal(size=(60, VECTOR_DIM)).astype(np.float32)
        write(index, tenant, *(put(f"i{n}", vector) for n, vector in enumerate(vectors)))
        query = rng.normal(size=VECTOR_DIM).astype(np.float32)
        cosines = vectors @ query / np.linalg.norm(vectors, axis=1) / np.linalg.norm(query)
        best = np.argsort(-cosines)[:10]
        hits = index.search(tenant, like(query, limit=10)).hits
        assert [hit.image_id for hit in hits] == [f"i{n}" for n in best]
        assert [hit.score for hit in hits] == pytest.approx(cosines[best], abs=1e-5)

    def test_equal_scores_come_by_name(self, index: Index, tenant: str) -> None:
        """Pictures that are equally alike have one stable order."""
        write(index, tenant, *(put(name) for name in "dacb"))
        assert list(found(index, tenant, towards(1))) == ["a", "b", "c", "d"]

    def test_limit_cuts_after_the_best(self, index: Index, tenant: str) -> None:
        """No more than asked for, and those are the best; a limit above what is there gives all."""
        write(index, tenant, *(put(f"i{n}", towards(10 - n, n)) for n in range(6)))
        assert list(found(index, tenant, towards(1), limit=2)) == ["i0", "i1"]
        assert len(found(index, tenant, towards(1), limit=10_000)) == 6
        assert names(index.search(tenant, like("i0", limit=2))) == ["i1", "i2"]

    @pytest.mark.parametrize("limit", [0, -1])
    def test_a_limit_below_one_is_refused(self, index: Index, tenant: str, limit: int) -> None:
        """Asking for nothing is the caller's mistake, told in the same way everywhere."""
        write(index, tenant, put("a"))
        for ask in (
            lambda: index.search(tenant, like(towards(1), limit=limit)),
            lambda: index.search(tenant, like("a", limit=limit)),
            lambda: index.facet(tenant, "tags", limit=limit),
            lambda: index.list(tenant, limit=limit),
        ):
            with pytest.raises(ValueError, match="limit"):
                ask()

    def test_a_named_example_is_no_hit(self, index: Index, tenant: str) -> None:
        """Also where others have the very same vector; a limit counts the others only."""
        write(index, tenant, *(put(name) for name in "abc"))
        for name in "abc":
            others = [other for other in "abc" if other != name]
            assert names(index.search(tenant, like(name, limit=2))) == others

    def test_a_lonely_image_is_similar_to_nothing(self, index: Index, tenant: str) -> None:
        """No others: no hits, which is another answer than an image without a vector."""
        write(index, tenant, put("a"))
        assert index.search(tenant, like("a", limit=3)).hits == ()

    def test_what_has_no_vector_is_never_a_hit(self, index: Index, tenant: str) -> None:
        """Tombstones and empty points are in no search, and nothing is similar to them."""
        write(index, tenant, put("a"), put("b"), Note("c", Attempt(MIN_VERSION + 1, AttemptState.PENDING)))
        write(index, tenant, bury("b"), bury("d"))
        assert found(index, tenant, towards(1)).keys() == {"a"}
        for name, status in (("b", 409), ("c", 409), ("d", 409), ("never", 404)):
            with pytest.raises(QueryError) as refused:
                index.search(tenant, like(name, limit=5))
            assert refused.value.status == status
            assert name in refused.value.message

    def test_a_picture_that_comes_back_is_found_as_it_is_now(self, index: Index, tenant: str) -> None:
        """Deleted and created again: found by the new vector alone, also where others were written between."""
        write(index, tenant, put("a", towards(1)), put("b", towards(0, 0, 1)))
        write(index, tenant, bury("a"), put("c", towards(0, 0, 0, 1)))
        write(index, tenant, put("a", towards(0, 1), version=3))
        assert found(index, tenant, towards(0, 1))["a"] == pytest.approx(1.0)
        assert found(index, tenant, towards(1))["a"] == pytest.approx(0.0, abs=1e-6)
        assert len(found(index, tenant, towards(1))) == 3

    def test_a_refresh_and_a_note_keep_the_vector(self, index: Index, tenant: str) -> None:
        """What changes nothing of the picture leaves it searchable as it was."""
        one = put("a", towards(0.6, 0.8))
        write(index, tenant, one)
        write(index, tenant, Refresh("a", MIN_VERSION + 2, one.location, "a", ("x",)))
        write(index, tenant, Note("a", Attempt(MIN_VERSION + 3, AttemptState.FAILED, Reason.IMAGE_MISSING)))
        assert found(index, tenant, towards(1))["a"] == pytest.approx(0.6, abs=1e-6)

    def test_pages_follow_each_other(self, index: Index, tenant: str) -> None:
        """An offset leaves out the best: pages together are the list, and behind its end is nothing."""
        write(index, tenant, *(put(f"i{n:02}", towards(20 - n, n)) for n in range(12)))
        pages = [index.search(tenant, Query((towards(1),), limit=5, offset=at)) for at in (0, 5, 10, 15)]
        assert [names(page) for page in pages] == [
            [f"i{n:02}" for n in range(start, min(start + 5, 12))] for start in (0, 5, 10, 15)
        ]
        after_itself = index.search(tenant, Query(("i00",), limit=5, offset=5))
        assert names(after_itself) == [f"i{n:02}" for n in range(6, 11)]

    def test_a_threshold_cuts_what_is_less_alike(self, index: Index, tenant: str) -> None:
        """Only hits of at least that cosine, however many are asked for."""
        write(index, tenant, put("a", towards(1)), put("b", towards(0.8, 0.6)), put("c", towards(0, 1)))
        assert names(index.search(tenant, Query((towards(1),), score_threshold=0.7))) == ["a", "b"]
        assert names(index.search(tenant, Query((towards(1),), score_threshold=0.7, offset=1))) == ["b"]
        assert names(index.search(tenant, Query((towards(-1),), score_threshold=0.7))) == []

    def test_a_hit_brings_its_point_where_that_is_asked_for(self, index: Index, tenant: str) -> None:
        """The same point that `get` gives; nothing where it was not asked for."""
        write(index, tenant, put("a", tags=("x",), attributes={"colour": "red", "price": 3}))
        (with_point,) = index.search(tenant, Query((towards(1),), with_points=True)).hits
        assert with_point.point == index.get(tenant, "a") is not None
        (without,) = index.search(tenant, like(towards(1))).hits
        assert without.point is None


class TestExamples:
    """Several positive and negative examples, by id and as vectors."""

    def test_examples_are_averaged_and_negative_ones_repel(self, index: Index, tenant: str) -> None:
        """The score is the cosine to p + (p - n): p the mean of the positive examples, n of the negative ones."""
        rng = np.random.default_rng(3)
        vectors = rng.normal(size=(30, VECTOR_DIM)).astype(np.float32)
        write(index, tenant, *(put(f"i{n}", vector) for n, vector in enumerate(vectors)))
        unit = vectors / np.linalg.norm(vectors, axis=1, keepdims=True)
        wanted = 2 * (unit[0] + unit[1] + unit[2]) / 3 - (unit[3] + unit[4]) / 2
        query = Query(("i0", vectors[1] * 7, "i2"), ("i3", vectors[4] / 9), limit=30)
        scores = {hit.image_id: hit.score for hit in index.search(tenant, query).hits}
        expected = unit @ (wanted / np.linalg.norm(wanted))
        assert scores.keys() == {f"i{n}" for n in range(30) if n not in (0, 2, 3)}, "named examples are no hits"
        assert [scores[name] for name in scores] == pytest.approx(
            [expected[int(name[1:])] for name in scores], abs=1e-5
        )
        assert sorted(scores.values(), reverse=True) == list(scores.values())

    def test_examples_that_cancel_each_other_are_refused(self, index: Index, tenant: str) -> None:
        """What is wanted and not wanted at once has no direction."""
        write(index, tenant, put("a"))
        for query in (
            Query((towards(1), towards(-1))),
            Query((towards(1),), (towards(1), towards(1))),
            Query(("a",), (towards(2),)),
        ):
            if len(query.positive) == 1:
                assert index.search(tenant, query) is not None  # p + (p - p) is p
                continue
            with pytest.raises(QueryError) as refused:
                index.search(tenant, query)
            assert refused.value.code == "examples_cancel"

    @pytest.mark.parametrize(
        ("query", "field"),
        [
            (Query(()), "positive"),
            (Query((), ("a",)), "positive"),
            (Query(("a",) * (MAX_EXAMPLES + 1)), "positive"),
            (Query(("a",), offset=10_000), "offset"),
            (Query(("a",), score_threshold=1.1), "score_threshold"),
            (Query(("a",), score_threshold=float("nan")), "score_threshold"),
        ],
        ids=["nothing", "only negative", "too many", "too far", "no cosine", "nan"],
    )
    def test_what_cannot_be_asked_names_the_part(self, index: Index, tenant: str, query: Query, field: str) -> None:
        """A question that no engine should get is refused with the field that is wrong."""
        write(index, tenant, put("a"))
        with pytest.raises(QueryError) as refused:
            index.search(tenant, query)
        assert (refused.value.status, refused.value.field) == (422, field)

    def test_another_tenants_examples_are_not_found(self, stand: Stand, index: Index) -> None:
        """Its images are refused as positive and as negative examples, exactly as images nobody has."""
        ours, theirs = stand.tenant(), stand.tenant()
        write(index, ours, put("mine"))
        write(index, theirs, put("secret"))

        def refusal(query: Query) -> tuple[int, str, str | None, str]:
            with pytest.raises(QueryError) as refused:
                index.search(ours, query)
            error = refused.value
            return error.status, error.code, error.field, error.message.replace("secret", "nobody")

        assert refusal(like("secret")) == refusal(like("nobody"))
        assert refusal(Query(("mine",), ("secret",))) == refusal(Query(("mine",), ("nobody",)))
        assert refusal(like("secret"))[:2] == (404, "image_not_found")


class TestBatches:
    """Several questions in one call."""

    def test_a_batch_answers_each_as_alone_and_in_order(self, index: Index, tenant: str) -> None:
        """Whatever is mixed in one batch, each answer is the one its question gets by itself."""
        write(index, tenant, *(put(f"i{n}", towards(6 - n, n), tags=("odd",) if n % 2 else ()) for n in range(6)))
        queries = [like("i3", limit=2), like(towards(1), limit=3), Query(("i0",), ("i5",), with_points=True)]
        assert list(index.search_batch(tenant, queries)) == [index.search(tenant, query) for query in queries]
        assert list(index.search_batch(tenant, [])) == []

    def test_a_wrong_question_spoils_no_other(self, stand: Stand, index: Index, tenant: str) -> None:
        """Its error stands in its place: unknown image, unusable vector, no limit, another tenant's image."""
        theirs = stand.tenant()
        write(index, tenant, put("a"), put("b"))
        write(index, theirs, put("secret"))
        bad = [
            like("never"),
            like(np.zeros(VECTOR_DIM, np.float32)),
            like(np.ones(VECTOR_DIM + 1, np.float32)),
            like("a", limit=0),
            like("secret"),
            Query(()),
        ]
        mixed = [question for wrong in bad for question in (like("a"), wrong)]
        answers = index.search_batch(tenant, mixed)
        assert all(isinstance(answer, Hits) and names(answer) == ["b"] for answer in answers[::2])
        assert [getattr(answer, "code", None) for answer in answers[1::2]] == [
            "image_not_found",
            "vector_invalid",
            "vector_invalid",
            "query_invalid",
            "image_not_found",
            "query_invalid",
        ]
