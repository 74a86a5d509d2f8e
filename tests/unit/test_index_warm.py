"""Files are read before anybody asks, and never more of them than memory has room for."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from embedder.index.edge.warm import SHARE, _sizes, free_memory, warm
from tests.page_cache import forgets, in_memory

MIB = 1 << 20


@pytest.fixture
def shard(tmp_path: Path) -> Path:
    """Two segments, a large file in one of them, and a log that no search reads."""
    for name, size in {"segments/a/payload.dat": MIB, "segments/b/matrix.dat": 5 * MIB + 7, "wal/open-1": MIB}.items():
        path = tmp_path / name
        path.parent.mkdir(parents=True)
        path.write_bytes(os.urandom(size))
    return tmp_path


def test_everything_that_a_search_reads_is_in_memory(shard: Path) -> None:
    matrix = shard / "segments/b/matrix.dat"
    if not forgets(matrix):
        pytest.skip("this file system never lets go of pages")
    assert not in_memory(matrix)
    assert warm(shard, free=lambda: 1 << 30) == 6 * MIB + 7
    assert in_memory(matrix)


@pytest.mark.parametrize(
    ("room", "n_read"), [(0, 0), (MIB // 2, MIB // 2), (2 * MIB, 2 * MIB), (2 * MIB + 5, 2 * MIB + 5)]
)
def test_no_more_is_read_than_memory_has_room_for(shard: Path, room: int, n_read: int) -> None:
    """The small files first: a part of the largest is better than none of the others."""
    assert warm(shard, free=lambda: int(room / SHARE)) == n_read


def test_small_files_come_first(shard: Path) -> None:
    small, large = shard / "segments/a/payload.dat", shard / "segments/b/matrix.dat"
    if not (forgets(small) and forgets(large)):
        pytest.skip("this file system never lets go of pages")
    warm(shard, free=lambda: int(MIB / SHARE))
    assert in_memory(small)
    assert not in_memory(large)


def test_what_goes_meanwhile_is_left_out(shard: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A copy took over, and this folder is being removed."""
    found = list(_sizes(shard / "segments"))
    (shard / "segments/b/matrix.dat").unlink()
    monkeypatch.setattr("embedder.index.edge.warm._sizes", lambda _folder: found)
    assert warm(shard, free=lambda: 1 << 30) == MIB


def test_a_disk_that_cannot_be_read_is_told(shard: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_arguments: object, **_more: object) -> None:
        raise OSError(5, "Input/output error")

    monkeypatch.setattr(Path, "open", fail)
    with pytest.raises(OSError, match="Input/output"):
        warm(shard, free=lambda: 1 << 30)


def test_codes_are_not_read_twice(shard: Path) -> None:
    """The engine keeps them in memory of its own."""
    (shard / "segments/b/quantized.data").write_bytes(bytes(MIB))
    assert warm(shard, free=lambda: 1 << 30) == 6 * MIB + 7


def test_holes_are_not_read(shard: Path) -> None:
    """A new shard's files are 32 MB each, and a page of them has something in it: they are small ones."""
    sparse = shard / "segments/a/page_0.dat"
    with sparse.open("wb") as file:
        file.seek(20 * MIB)
        file.write(os.urandom(4096))
    if not forgets(sparse):
        pytest.skip("this file system never lets go of pages")
    assert 6 * MIB + 7 < warm(shard, free=lambda: 1 << 30) <= 7 * MIB
    assert in_memory(sparse, at=20 * MIB)
    assert not in_memory(sparse)
    assert min(_sizes(shard / "segments"))[1] == sparse


def test_a_shard_without_segments_is_nothing_to_read(tmp_path: Path) -> None:
    assert warm(tmp_path / "shard") == 0


# ---- how much memory there is --------------------------------------------------------------------


@pytest.fixture
def meminfo(tmp_path: Path) -> Path:
    path = tmp_path / "meminfo"
    path.write_text("MemTotal:       16000 kB\nMemAvailable:    8000 kB\nHugePages_Total:       0\n")
    return path


def test_the_machine_says_how_much_is_free(meminfo: Path, tmp_path: Path) -> None:
    assert free_memory(meminfo=meminfo, cgroup=tmp_path / "none") == 8000 * 1024


@pytest.mark.parametrize(
    ("limit", "current", "inactive", "free"),
    [
        ("max", 0, 0, 8000 * 1024),
        (str(4 * MIB), 3 * MIB, MIB, 2 * MIB),  # of what is used, a third can be taken back
        (str(4 * MIB), 5 * MIB, 0, 0),
        (str(1 << 40), 0, 0, 8000 * 1024),
    ],
)
def test_a_container_has_what_it_is_left(
    meminfo: Path, tmp_path: Path, limit: str, current: int, inactive: int, free: int
) -> None:
    (tmp_path / "memory.max").write_text(limit + "\n")
    (tmp_path / "memory.current").write_text(f"{current}\n")
    (tmp_path / "memory.stat").write_text(f"anon 1\ninactive_file {inactive}\n")
    assert free_memory(meminfo=meminfo, cgroup=tmp_path) == free


@pytest.mark.parametrize("content", ["MemTotal: 16000 kB\n", "MemAvailable: many\n", None])
def test_where_it_cannot_be_told_nothing_is_free(tmp_path: Path, content: str | None) -> None:
    if content is not None:
        (tmp_path / "meminfo").write_text(content)
    assert free_memory(meminfo=tmp_path / "meminfo", cgroup=tmp_path) == 0


def test_this_machine_is_understood() -> None:
    assert free_memory() > 0
