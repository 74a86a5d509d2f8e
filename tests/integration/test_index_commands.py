"""`lookalike index …` and `lookalike tenant …` on a real index process, and a migration of its folder."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import closing
from dataclasses import replace
from pathlib import Path

import pytest

from embedder.index.fields import parse_fields
from embedder.index.filters import Within
from embedder.index.migrate import finish
from embedder.index.points import Attempt, AttemptState, Note, State
from embedder.index.protocol import CollectionSpec
from embedder.index.query import Query, like
from embedder.objects.folder import FolderStore
from embedder.objects.places import Places
from lookalike.cli import run
from streams.errors import ConfigError
from streams.event import MIN_VERSION
from tests.contract.index_cases import bury, put, towards, write
from tests.index_process import IndexProcess
from tests.script import VECTOR_DIM
from tests.waiting import wait_until
from tests.watched_qdrant import ImitatedClient, ImitatedServer

OLD = CollectionSpec("hash", "test-v1", VECTOR_DIM)
OTHER = CollectionSpec("hash", "test-v2", VECTOR_DIM)


@pytest.fixture(params=["edge", "exact"])
def process(request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[IndexProcess]:
    process = IndexProcess(tmp_path / "data", engine=request.param)
    monkeypatch.setenv("LOOKALIKE_INDEX_SOCKET", str(process.socket))
    with process:
        yield process


def said(capsys: pytest.CaptureFixture[str], *args: str) -> dict[str, object]:
    """What a command printed with --json; its exit code is 0."""
    capsys.readouterr()
    code = run([*args, "--json"])
    out = capsys.readouterr()
    assert code == 0, out.err
    return dict(json.loads(out.out.splitlines()[-1]))


def migrated(data: Path, fields: str) -> subprocess.CompletedProcess[str]:
    """`index migrate` in a process of its own, whose log is its own."""
    command = [sys.executable, "-m", "lookalike", "index", "migrate", "--data", str(data), "--json"]
    environment = {**os.environ, "LOOKALIKE_DECLARED_FIELDS": fields}
    return subprocess.run(command, env=environment, capture_output=True, text=True, check=False, timeout=120)


def test_collections_are_listed_switched_and_dropped(process: IndexProcess, capsys: pytest.CaptureFixture[str]) -> None:
    """The alias moves for everybody in one step; what it means cannot be dropped; what is dropped is gone."""
    with closing(process.client(OLD)) as old, closing(process.client(OTHER)) as other, closing(process.client()) as api:
        write(old, "acme", put("a"))
        write(other, "acme", put("b"), put("c"))
        listed = said(capsys, "index", "status")["collections"]
        assert isinstance(listed, list)
        assert [(one["name"], one["current"], one["points"]) for one in listed] == [
            (OLD.name, True, 1),
            (OTHER.name, False, 2),
        ]
        assert run(["index", "drop", OLD.name, "--yes"]) == 3
        assert "switch" in capsys.readouterr().err
        said(capsys, "index", "switch", OTHER.name)
        assert api.count("acme")[State.INDEXED] == 2
        said(capsys, "index", "drop", OLD.name, "--yes")
        assert not (process.data / "collections" / OLD.name).exists()
        assert run(["index", "switch", OLD.name]) == 3
        assert api.count("acme")[State.INDEXED] == 2


def test_optimize_waits_for_the_end(process: IndexProcess, capsys: pytest.CaptureFixture[str]) -> None:
    """Points that wait for a graph are built in, however few they are."""
    with closing(process.client(OLD)) as index:
        write(index, "acme", *(put(f"i{n}", towards(n + 1, 1)) for n in range(300)))
        figures = said(capsys, "index", "optimize")
        assert figures["collection"] == OLD.name
        assert [one.waiting for one in index.collections()] == [0]
        assert len(index.search("acme", like(towards(1), limit=1000)).hits) == 300


def test_a_tenant_is_counted_and_removed_everywhere(
    process: IndexProcess, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """From every collection, also those no alias means, with uploads and thumbnails; another tenant stays.

    Also after a kill; and pictures that the tenant put into the bucket itself stay.
    """
    monkeypatch.setenv("LOOKALIKE_OBJECTS_DIR", str(tmp_path))
    store, places = FolderStore(tmp_path), Places("pictures", "thumbnails")
    for tenant_id in ("acme", "bell"):
        for n in range(2):
            store.put("pictures", places.upload(tenant_id, "a", MIN_VERSION + n).key, b"x")
            store.put("thumbnails", places.thumbnail(tenant_id, f"i{n}", "etag"), b"x")
            store.put("thumbnails", places.thumbnail(tenant_id, "a", f"etag{n}"), b"x")
        store.put("pictures", f"{tenant_id}/own.jpg", b"x")
    with closing(process.client(OLD)) as old, closing(process.client(OTHER)) as other:
        write(old, "acme", put("a"), bury("b"), Note("c", Attempt(MIN_VERSION, AttemptState.FAILED)))
        write(other, "acme", put("a"))
        write(old, "bell", put("a"))
        stats = said(capsys, "tenant", "stats", "--tenant", "acme")
        assert stats["points"] == {"indexed": 1, "deleted": 1, "empty": 1}
        assert stats["attempts"] == {"failed": 1}
        removed = said(capsys, "tenant", "delete", "--tenant", "acme", "--yes")["removed"]
        assert removed == {"points": 4, "uploads": 2, "thumbnails": 4}
        assert list(store.keys("pictures", "acme/")) == ["acme/own.jpg"]
        assert list(store.keys("thumbnails", "acme/")) == []
        assert (len(list(store.keys("pictures", "bell/"))), len(list(store.keys("thumbnails", "bell/")))) == (3, 4)
    process.kill()
    process.start()
    with closing(process.client(OLD)) as old, closing(process.client(OTHER)) as other:
        assert sum(old.count("acme").values()) == sum(other.count("acme").values()) == 0
        assert old.count("bell")[State.INDEXED] == 1


def test_migrating_declares_fields_of_points_that_are_there(process: IndexProcess) -> None:
    """Every point stays as it was, tombstones and notes included, and ranges of the new field are answered."""
    new = replace(OLD, fields=parse_fields(["price:number"]))
    note = Note("new", Attempt(MIN_VERSION + 9, AttemptState.PENDING))
    with closing(process.client(OLD)) as index:
        for tenant_id in ("acme", "bell"):
            write(index, tenant_id, *(put(f"i{n}", towards(n + 1, 1), attributes={"price": n}) for n in range(300)))
            write(index, tenant_id, bury("i7"), note)
        before = {tenant_id: index.list(tenant_id, limit=1000).points for tenant_id in ("acme", "bell")}
    assert migrated(process.data, "price:number").returncode == 3, "an index process has the folder"
    process.kill()
    done = migrated(process.data, "price:number")
    assert json.loads(done.stdout.splitlines()[-1])["points"] == 602, done.stderr
    process.start()
    with closing(process.client(new)) as index:
        for tenant_id, points in before.items():
            assert index.list(tenant_id, limit=1000).points == points
            found = index.search(tenant_id, Query((towards(1),), filter=Within("price", lt=10), limit=100))
            assert {hit.image_id for hit in found.hits} == {f"i{n}" for n in range(10) if n != 7}
    with closing(process.client(OLD)) as index, pytest.raises(ConfigError, match="migrate"):
        index.count("acme")


def test_a_migration_that_was_cut_short_is_finished_or_undone(tmp_path: Path) -> None:
    """Between its renames the copy is complete and takes its place; before that it is thrown away."""
    process = IndexProcess(tmp_path / "data", engine="edge")
    with process, closing(process.client(OLD)) as index:
        write(index, "acme", put("a", attributes={"price": 3}))
    home = process.data / "collections" / OLD.name
    unfinished = process.data / "migrating" / OLD.name
    unfinished.mkdir(parents=True)
    finish(process.data)
    assert home.exists()
    assert not unfinished.exists()
    done = migrated(process.data, "price:number")
    assert done.returncode == 0, done.stderr
    unfinished.parent.mkdir()
    home.rename(unfinished)  # as a kill between the two renames leaves it
    process.start()
    with closing(process.client(replace(OLD, fields=parse_fields(["price:number"])))) as index:
        wait_until(lambda: index.count("acme")[State.INDEXED] == 1, timeout_s=10)
    process.kill()


def test_a_collection_on_a_server_is_migrated(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """The same output as without a server; the name is the one that `status` prints and the other commands take."""
    monkeypatch.setenv("LOOKALIKE_QDRANT_URL", "http://127.0.0.1:6333")
    monkeypatch.setenv("LOOKALIKE_DECLARED_FIELDS", "price:number")
    for name in ("LOOK_S", "SETTLED_S", "ALIAS_AGE_S"):
        monkeypatch.setattr(f"embedder.index.qdrant_server.migrate.{name}", 0.001)
    client = ImitatedClient()
    monkeypatch.setattr(client, "close", lambda: None)
    monkeypatch.setattr("lookalike.index.server", lambda *_, **__: ImitatedServer(client))
    assert run(["index", "migrate"]) == 3
    assert "start a worker" in capsys.readouterr().err
    server = ImitatedServer(client)
    write(server.ensure(OLD), "acme", put("a"), put("b"), bury("c"))
    server.ensure(OTHER)
    name = f"{OLD.name}~2"
    done = said(capsys, "index", "migrate")
    assert done == {"collection": name, "points": 3, "fields": ["price:number"]}
    listed = said(capsys, "index", "status")["collections"]
    assert isinstance(listed, list)
    assert [(one["name"], one["current"], one["points"]) for one in listed] == [(name, True, 3), (OTHER.name, False, 0)]
    assert run(["index", "drop", name, "--yes"]) == 3
    assert run(["index", "switch", OLD.name]) == 3
    said(capsys, "index", "switch", OTHER.name)
    said(capsys, "index", "drop", name, "--yes")
    assert [one.name for one in client.get_collections().collections] == [OTHER.name]
    assert run(["index", "migrate", "--data", "/tmp"]) == 2
