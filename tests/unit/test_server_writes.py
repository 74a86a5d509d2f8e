"""What the server's adapter decides, and what it does when others write at the same moment."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Sequence

import numpy as np
import pytest
from qdrant_client import QdrantClient, grpc, models

from embedder.index.payload import INTEGERS, KEYWORDS, REVISION
from embedder.index.points import Attempt, AttemptState, Note, State, Written
from embedder.index.qdrant_server.conditions import conditions
from embedder.index.qdrant_server.index import ServerIndex
from embedder.index.qdrant_server.schema import MAX_BATCH, VECTOR, check, described, indexes, strict_mode, vector_params
from embedder.index.qdrant_server.transport import ClientTransport, Stored, dense
from embedder.index.qdrant_server.writes import write_all
from embedder.index.query import like
from streams.errors import ConfigError, DependencyError, Reason
from streams.event import MIN_VERSION
from tests.contract.index_cases import FIELDS, SPEC, bury, put, towards


class Racing(ClientTransport):
    """Lets somebody else write between the look and the write."""

    def __init__(self, client: QdrantClient) -> None:
        super().__init__(client, SPEC.name)
        self.meanwhile: list[Callable[[], object]] = []
        self.n_upserts = 0

    def upsert(self, points: Sequence[Stored]) -> None:
        self.n_upserts += 1
        if self.meanwhile:
            self.meanwhile.pop(0)()
        super().upsert(points)

    def overwrite(self, points: Sequence[Stored]) -> None:
        if self.meanwhile:
            self.meanwhile.pop(0)()
        super().overwrite(points)


@pytest.fixture
def racing() -> Racing:
    client = QdrantClient(":memory:")
    client.create_collection(SPEC.name, vectors_config={VECTOR: vector_params(SPEC.dim)})
    return Racing(client)


@pytest.fixture
def index(racing: Racing) -> ServerIndex:
    return ServerIndex(racing._client, ClientTransport(racing._client, SPEC.name), SPEC)


@pytest.mark.parametrize("dim", [1, 31, 32, 4096, 65_536])
def test_a_vector_is_its_message(dim: int) -> None:
    """Made from bytes, it is what the library makes of the floats, at each length of the length."""
    vector = np.random.default_rng(dim).standard_normal(dim).astype(np.float32)
    assert dense(vector) == grpc.DenseVector(data=vector.tolist())
    assert dense(vector[::-1]) == grpc.DenseVector(data=vector[::-1].tolist())


def test_a_newer_picture_written_meanwhile_stays(racing: Racing, index: ServerIndex) -> None:
    """Both saw nothing stored; the older one comes second and is told that it was superseded."""
    racing.meanwhile = [lambda: index.write("acme", [put("a", towards(0, 1), version=9)]).result()]
    assert write_all(racing, "acme", [put("a", towards(1), version=3)], FIELDS) == [Written.SUPERSEDED]
    point = index.get("acme", "a")
    assert point is not None
    assert point.version == MIN_VERSION + 9
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        assert index.search("acme", like(towards(0, 1))).hits[0].score == pytest.approx(1.0)


def test_an_older_picture_written_meanwhile_is_replaced(racing: Racing, index: ServerIndex) -> None:
    """The first try finds another revision and changes nothing; the second one decides on what is there now."""
    racing.meanwhile = [lambda: index.write("acme", [put("a", version=3)]).result()]
    assert write_all(racing, "acme", [put("a", version=9), put("b")], FIELDS) == [Written.APPLIED] * 2
    assert racing.n_upserts == 2
    point = index.get("acme", "a")
    assert point is not None
    assert point.version == MIN_VERSION + 9


def test_a_note_written_meanwhile_is_not_lost(racing: Racing, index: ServerIndex) -> None:
    """A picture of an older version keeps the note about a newer try, whoever wrote it when."""
    note = Note("a", Attempt(MIN_VERSION + 9, AttemptState.FAILED, Reason.IMAGE_MISSING, tries=2))
    index.write("acme", [put("a", version=1)]).result()
    racing.meanwhile = [lambda: index.write("acme", [note]).result()]
    assert write_all(racing, "acme", [put("a", version=3, etag="b")], FIELDS) == [Written.APPLIED]
    point = index.get("acme", "a")
    assert point is not None
    assert (point.version, point.attempt) == (MIN_VERSION + 3, note.attempt)


def test_a_tombstone_written_meanwhile_is_not_undone_by_a_note(racing: Racing, index: ServerIndex) -> None:
    """A note decided on an indexed picture finds it deleted: it is written beside the tombstone or not at all."""
    index.write("acme", [put("a", version=1)]).result()
    racing.meanwhile = [lambda: index.write("acme", [bury("a", version=5)]).result()]
    old = Note("a", Attempt(MIN_VERSION + 3, AttemptState.RETRYING))
    assert write_all(racing, "acme", [old], FIELDS) == [Written.SUPERSEDED]
    point = index.get("acme", "a")
    assert point is not None
    assert (point.state, point.attempt) == (State.DELETED, None)


def test_a_fight_without_an_end_is_given_up(racing: Racing, index: ServerIndex) -> None:
    """Twenty rounds lost to others are an index that is unwell; nothing was written."""
    racing.meanwhile = [
        lambda n=n: index.write("acme", [put("a", version=n, etag=f"e{n}")]).result()  # type: ignore[misc]
        for n in range(1, 30)
    ]
    with pytest.raises(DependencyError):
        write_all(racing, "acme", [put("a", version=99)], FIELDS)


def test_another_tenants_point_is_never_taken(racing: Racing, index: ServerIndex) -> None:
    """Even where a point lies under the id of ours, what is another tenant's is neither read nor replaced."""
    index.write("acme", [put("a", towards(1))]).result()
    (record,) = racing._client.scroll(SPEC.name, with_payload=True)[0]
    racing._client.set_payload(SPEC.name, {"tenant_id": "other"}, points=[record.id], wait=True)
    assert index.read("acme", ["a"]) == [None]
    with pytest.raises(DependencyError):
        index.write("acme", [put("a", towards(0, 1), version=9)]).result()
    (after,) = racing._client.scroll(SPEC.name, with_payload=True)[0]
    assert after.payload is not None
    assert (after.payload["tenant_id"], after.payload["version"]) == ("other", MIN_VERSION + 1)


def test_no_filter_is_without_a_tenant() -> None:
    """An empty one would mean all tenants, in a delete as well."""
    with pytest.raises(ValueError, match="tenant"):
        conditions("")
    assert conditions("acme").must


def test_only_the_tenant_builds_graphs_and_every_filter_has_its_index() -> None:
    """What filters, facets and conditional writes ask for is indexed; strict mode would refuse anything else."""
    made = indexes(FIELDS)
    assert set(made) == {"tenant_id", *KEYWORDS, *INTEGERS, REVISION, "declared.price", "declared.taken_at"}
    assert [name for name, one in made.items() if one.enable_hnsw is not False] == ["tenant_id"]
    assert isinstance(made["declared.price"], models.FloatIndexParams)
    assert isinstance(made["declared.taken_at"], models.IntegerIndexParams)
    limits = strict_mode()
    assert limits.unindexed_filtering_retrieve is False
    assert limits.unindexed_filtering_update is False
    assert limits.filter_max_conditions is not None
    assert limits.filter_max_conditions >= 4 * MAX_BATCH, "a full batch of conditions has to pass"


@pytest.mark.parametrize(
    "found",
    [
        None,
        {},
        {**described(SPEC), "lookalike_schema": 0},
        {**described(SPEC), "dim": 7},
        {**described(SPEC), "fields": ["price:number"]},
    ],
)
def test_a_collection_that_is_another_one_is_refused(found: dict[str, object] | None) -> None:
    """Not ours, of another schema, of another size, with other fields: one line, before anything is written."""
    with pytest.raises(ConfigError):
        check(SPEC.name, found, SPEC)
    check(SPEC.name, described(SPEC), SPEC)
