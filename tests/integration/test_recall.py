"""The recall gate: every shape of query that the API allows, on Qdrant Edge, against the exact index.

100,000 clustered vectors (128 floats, so that it takes a minute; the bench has 1280), one tenant with
half of them, one with a tenth, one with a twentieth, hundreds of tiny ones; attributes follow from the
clusters, so that a filter cuts whole regions out of a graph, which is where recall is lost.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import closing
from dataclasses import dataclass

import numpy as np
import pytest

from embedder.index.edge.shard import EdgeIndex
from embedder.index.exact import ExactIndex
from embedder.index.filters import Filter, Not
from embedder.index.points import Vector
from embedder.index.protocol import CollectionSpec, Hits
from embedder.index.query import Query
from lookalike.bench.clustered import FIELDS, HALF, SHAPES, TENTH, TINY, TWENTIETH, Clustered

N_POINTS, DIM = 100_000, 128
N_QUERIES = 20
ENOUGH = 0.97
DATA = Clustered(N_POINTS, DIM)
SPEC = CollectionSpec("clustered", "none", DIM, FIELDS)
pytestmark = pytest.mark.timeout(900)
"""The build counts as part of the first test, and takes its time beside others."""
TENANTS = (HALF, TENTH, TWENTIETH, TINY, "tiny-199")


@dataclass(frozen=True)
class Pair:
    """The same points in both indexes; the one on trial was optimised and opened again."""

    edge: EdgeIndex
    exact: ExactIndex
    queries: list[Vector]


@pytest.fixture(scope="module")
def pair(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Pair]:
    home = tmp_path_factory.mktemp("edge")
    vectors, exact = DATA.vectors(), ExactIndex(SPEC)
    with closing(EdgeIndex(SPEC, home)) as index:
        for tenant_id, rows in DATA.batches(256):
            writes = [DATA.put(row, vectors[row]) for row in rows]
            index.write_now(tenant_id, writes)
            exact.write_now(tenant_id, writes)
        index.optimise()
    with closing(EdgeIndex(SPEC, home)) as index:
        info = index._shard.info()
        assert info.indexed_vectors_count >= 0.95 * N_POINTS, "the graphs were not built"
        yield Pair(index, exact, list(DATA.queries(N_QUERIES)))


def recall(pair: Pair, tenant_id: str, queries: list[Query]) -> tuple[float, set[bool]]:
    """The share of the true best that was found, and whether the answers called themselves exact."""
    found, wanted, exact = 0, 0, set()
    for query in queries:
        truth, answer = pair.exact.search(tenant_id, query), pair.edge.search(tenant_id, query)
        found += len(names(truth) & names(answer))
        wanted += len(truth.hits)
        exact.add(answer.exact)
    return found / wanted if wanted else 1.0, exact


def names(hits: Hits) -> set[str]:
    return {hit.image_id for hit in hits.hits}


@pytest.mark.parametrize("tenant_id", TENANTS)
@pytest.mark.parametrize("shape", [None, *SHAPES])
def test_a_filter_loses_no_neighbours(pair: Pair, tenant_id: str, shape: str | None) -> None:
    """Each shape alone, in tenants of every size."""
    condition: Filter | None = None if shape is None else SHAPES[shape]
    share, exact = recall(pair, tenant_id, [Query((one,), filter=condition) for one in pair.queries])
    assert share >= ENOUGH
    if exact == {True}:
        assert share == 1.0, "an answer that calls itself exact is"


@pytest.mark.parametrize("tenant_id", TENANTS)
@pytest.mark.parametrize("shape", SHAPES)
def test_the_opposite_of_a_filter_loses_none_either(pair: Pair, tenant_id: str, shape: str) -> None:
    """What a filter leaves out, found by its negation: sets from next to nothing to nearly all."""
    share, _ = recall(pair, tenant_id, [Query((one,), filter=Not(SHAPES[shape])) for one in pair.queries])
    assert share >= ENOUGH


@pytest.mark.parametrize("tenant_id", TENANTS)
@pytest.mark.parametrize("shape", [None, "attribute", "not", "time"])
def test_examples_thresholds_and_pages_lose_none(pair: Pair, tenant_id: str, shape: str | None) -> None:
    """Named examples, negative ones, a threshold and a second page, with and without a filter."""
    condition = None if shape is None else SHAPES[shape]
    rows = DATA.tenants[tenant_id]
    rng = np.random.default_rng(11)
    queries = []
    for one in pair.queries:
        first, second, third = (f"i{row}" for row in rng.choice(rows, 3, replace=False))
        queries += [
            Query((first,), filter=condition),
            Query((first, one, second), (third,), condition),
            Query((one,), filter=condition, score_threshold=0.4, limit=20),
            Query((one,), filter=condition, limit=10, offset=10),
        ]
    share, _ = recall(pair, tenant_id, queries)
    assert share >= ENOUGH


def test_the_graph_is_walked_where_it_is_right(pair: Pair) -> None:
    """A whole large tenant is not compared row by row: the gate is about the graph, not about a scan."""
    _, exact = recall(pair, HALF, [Query((one,)) for one in pair.queries])
    assert exact == {False}
