"""Optimising aside: a clone takes the shard's place while searches and writes go on."""

from __future__ import annotations

import asyncio
import hashlib
import os
import random
import signal
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import msgspec
import pytest

from embedder.index.apart.engine import EngineApart
from embedder.index.codec import encode
from embedder.index.edge.clone import UNCHANGING, clone
from embedder.index.edge.shard import EdgeIndex
from embedder.index.exact import ExactIndex
from embedder.index.points import Attempt, AttemptState, Note, Write
from embedder.index.protocol import CollectionSpec
from embedder.index.query import Query, like
from lookalike.bench.clustered import FIELDS, HALF, SHAPES, TENTH, TINY, Clustered
from streams.errors import DependencyError
from streams.event import MIN_VERSION
from tests.contract.index_cases import bury
from tests.page_cache import forgets, in_memory
from tests.settling import settle
from tests.waiting import wait_until

DIM = 1280
"""Sizes count here: a segment gets a graph above 20,000 KB."""
DATA = Clustered(5_000, DIM)
SPEC = CollectionSpec("clustered", "none", DIM, FIELDS)
TENANTS = (HALF, TENTH, TINY)


class Both:
    """The index on trial and the truth, which get the same writes."""

    def __init__(self, home: Path) -> None:
        self.home = home
        self.edge = EngineApart(SPEC, home)
        self.exact = ExactIndex(SPEC)
        self._vectors = DATA.vectors()

    def fill(self) -> None:
        for tenant_id, rows in DATA.batches(256):
            self.write(tenant_id, [DATA.put(row, self._vectors[row]) for row in rows])

    def write(self, tenant_id: str, writes: list[Write]) -> None:
        assert self.edge.write_now(tenant_id, writes) == self.exact.write_now(tenant_id, writes)

    def change(self, rng: random.Random) -> None:
        """New pictures, newer ones, deletes, notes, and now and then a tenant that goes and comes back."""
        tenant_id = rng.choice(TENANTS)
        rows = rng.sample(DATA.tenants[tenant_id], 5)
        version = rng.randrange(1, 10)
        self.write(tenant_id, [DATA.put(row, self._vectors[-1 - row], version=version) for row in rows[:3]])
        self.write(tenant_id, [bury(f"i{rows[3]}", version=version)])
        self.write(tenant_id, [Note(f"i{rows[4]}", Attempt(MIN_VERSION + 20, AttemptState.FAILED))])
        if rng.random() < 0.05:
            assert self.edge.delete_tenant(TINY) == self.exact.delete_tenant(TINY)

    def check(self) -> None:
        """Every point and every answer is the same, and the engine's own count is right."""
        assert self.edge.forward("points", encode(False)) == self.edge.forward("points", encode(True))
        for tenant_id in TENANTS:
            ours = {point.image_id: point for point in self.edge.list(tenant_id, limit=10_000).points}
            theirs = {point.image_id: point for point in self.exact.list(tenant_id, limit=10_000).points}
            assert ours == theirs
            for vector in DATA.queries(5):
                for condition in (None, SHAPES["attribute"]):
                    query = Query((vector,), filter=condition)
                    found = {hit.image_id for hit in self.edge.search(tenant_id, query).hits}
                    wanted = {hit.image_id for hit in self.exact.search(tenant_id, query).hits}
                    assert len(found & wanted) >= len(wanted) - 1


@pytest.fixture
def both(tmp_path: Path) -> Iterator[Both]:
    both = Both(tmp_path)
    both.fill()
    yield both
    both.edge.close()


def test_nothing_is_lost_while_a_copy_is_optimised(both: Both, tmp_path: Path) -> None:
    """Writes of every kind at every stage: the copy that takes over has them all, also when it is opened again."""
    rng = random.Random(3)
    both.edge.optimise_soon()
    both.edge.maintain(idle_s=0.0)
    n_changes = 0

    def meanwhile() -> None:
        nonlocal n_changes
        if not both.edge.held():  # the server lets writes wait then
            n_changes += 1
            both.change(rng)
        assert both.edge.search(HALF, like(DATA.queries(1)[0])).hits

    with pytest.raises(ValueError, match="str"):
        both.edge.forward("delete_tenant", encode(None))  # what is refused is nothing that the copy could miss
    settle(both.edge, meanwhile)
    assert n_changes > 5, "it was done before anything could happen"
    both.check()
    wait_until(lambda: not (tmp_path / "shard").exists())
    assert [path.name for path in tmp_path.glob("shard*")] == ["shard-1"]
    assert all(in_memory(path) for path in tmp_path.rglob("matrix.dat")), "the first to ask would wait for the disk"
    both.edge.close()
    with closing(EdgeIndex(SPEC, tmp_path)) as opened:
        assert opened._shard.info().indexed_vectors_count >= 5_000 - 20 * n_changes, "the graph was built"
    both.edge = EngineApart(SPEC, tmp_path)
    both.check()


def test_questions_under_way_are_answered_across_a_takeover(both: Both) -> None:
    """Each once, by whichever process it was handed to; of the old one nothing is awaited any more."""
    before = both.edge._holder

    async def ask_throughout() -> list[object]:
        answers: list[object] = []
        both.edge.optimise_soon()
        both.edge.maintain(idle_s=0.0)
        n = 0
        while both.edge.busy() or both.edge._holder is before:
            both.edge.soon("count", msgspec.Raw(encode(HALF)), answers.append)
            n += 1
            both.edge.maintain(idle_s=0.0)
            await asyncio.sleep(0.002)
        both.edge.catch_up()
        assert len(answers) == n
        return answers

    answers = asyncio.run(asyncio.wait_for(ask_throughout(), 240))
    assert {bytes(one) for one in answers if isinstance(one, msgspec.Raw)} == {encode(both.exact.count(HALF))}
    assert not any(isinstance(one, Exception) for one in answers)
    assert before._line._loop is None


def test_questions_under_way_are_told_of_a_holder_that_is_killed(both: Both) -> None:
    async def ask() -> list[object]:
        answers: list[object] = []
        os.kill(both.edge._holder._process.pid, signal.SIGSTOP)
        for _ in range(3):
            both.edge.soon("count", msgspec.Raw(encode(HALF)), answers.append)
        os.kill(both.edge._holder._process.pid, signal.SIGKILL)
        while len(answers) < 3:
            await asyncio.sleep(0.002)
        return answers

    answers = asyncio.run(asyncio.wait_for(ask(), 60))
    assert [type(one) for one in answers] == [DependencyError] * 3
    with pytest.raises(DependencyError):
        both.edge.close()
    both.edge = EngineApart(SPEC, both.home)
    both.check()


def test_a_second_process_that_dies_costs_nothing(both: Both, tmp_path: Path) -> None:
    """The shard goes on as it is, what was half made is removed, and the next try succeeds."""
    both.edge.optimise_soon()
    both.edge.maintain(idle_s=0.0)
    aside = both.edge._upkeep._aside
    assert aside is not None
    os.kill(aside.pid, signal.SIGKILL)
    settle(both.edge)
    assert both.edge.waiting() > 0
    both.edge._upkeep.wait_cleared()
    assert [path.name for path in tmp_path.glob("shard*")] == ["shard"]
    both.check()
    both.edge.optimise_soon()
    both.edge.maintain(idle_s=0.0)
    settle(both.edge)
    assert both.edge.waiting() == 0
    both.check()


def test_an_index_that_is_closed_meanwhile_keeps_its_shard(both: Both, tmp_path: Path) -> None:
    """What was under way is given up, and nothing of it is left."""
    both.edge.optimise_soon()
    both.edge.maintain(idle_s=0.0)
    both.change(random.Random(1))
    both.edge.close()
    assert [path.name for path in tmp_path.glob("shard*")] == ["shard"]
    both.edge = EngineApart(SPEC, tmp_path)
    both.check()


def test_after_a_start_files_are_read_before_anybody_asks(both: Both, tmp_path: Path) -> None:
    """The engine closes a shard and drops its pages: each first question would wait for the disk."""
    both.edge.close()
    segment = next(path for path in (tmp_path / "shard" / "segments").iterdir() if path.is_dir())
    unread = segment / "beside.dat"  # the engine reads some of its own files by itself
    unread.write_bytes(bytes(4 << 20))
    if not forgets(unread):
        pytest.skip("this file system never lets go of pages")
    both.edge = EngineApart(SPEC, tmp_path)
    wait_until(lambda: in_memory(unread))


def test_what_a_clone_shares_never_changes(both: Both, tmp_path: Path) -> None:
    """Writes to a clone leave the linked files as they were: undocumented, and the ground everything stands on."""
    both.edge.close()
    with closing(EdgeIndex(SPEC, tmp_path)) as index:
        index.optimise()
    both.edge = EngineApart(SPEC, tmp_path)
    copy = tmp_path / "elsewhere" / "shard"
    clone(tmp_path / "shard", copy)
    shared = [path for pattern in UNCHANGING for path in (tmp_path / "shard").rglob(pattern)]
    assert any(path.name == "matrix.dat" for path in shared)
    assert all(path.stat().st_nlink == 2 for path in shared)
    before = {path: hashlib.sha256(path.read_bytes()).digest() for path in shared}
    with closing(EdgeIndex(SPEC, copy.parent)) as other:
        for tenant_id in (HALF, TENTH):
            rows = list(DATA.tenants[tenant_id])[:200]
            other.write_now(tenant_id, [DATA.put(row, DATA.queries(1)[0], version=5) for row in rows[:100]])
            other.write_now(tenant_id, [bury(f"i{row}", version=9) for row in rows[100:]])
        other.delete_tenant(TINY)
        other.optimise()
    assert {path: hashlib.sha256(path.read_bytes()).digest() for path in shared} == before
    both.check()
