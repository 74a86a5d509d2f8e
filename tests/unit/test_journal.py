"""The exact index's file: what a crash leaves is cut off, damage is refused, a full disk loses nothing before it."""

from __future__ import annotations

from contextlib import closing
from pathlib import Path

import pytest

from embedder.index.journal import Journal
from embedder.index.points import Write
from streams.errors import ConfigError, DependencyError
from tests.contract.index_cases import put


def replayed(path: Path) -> list[str]:
    """The images that opening `path` brings back."""
    found: list[str] = []
    Journal(path, replay=lambda _tenant, writes: found.extend(write.image_id for write in writes or ())).close()
    return found


def written(path: Path, *image_ids: str) -> list[int]:
    """Write one frame per image; returns the file's size after each."""
    sizes = []
    with closing(Journal(path, replay=lambda _tenant, _write: None)) as journal:
        for image_id in image_ids:
            journal.append("acme", [put(image_id)])
            journal.flush()
            sizes.append(path.stat().st_size)
    return sizes


def test_every_torn_end_is_cut_and_written_over(tmp_path: Path) -> None:
    """Wherever in the last frame a crash stops the writing, those before it come back, and the next is read too."""
    path = tmp_path / "journal"
    first, second = written(path, "a", "b")
    whole = path.read_bytes()
    for end in (first, first + 1, first + 7, first + 8, second - 1):
        path.write_bytes(whole[:end])
        assert replayed(path) == ["a"]
        assert path.stat().st_size == first
        written(path, "c")
        assert replayed(path) == ["a", "c"]


def test_zeros_at_the_end_are_cut(tmp_path: Path) -> None:
    """Blocks that the file system gave and the crash left empty are no frames."""
    path = tmp_path / "journal"
    (first,) = written(path, "a")
    path.write_bytes(path.read_bytes() + bytes(4096))
    assert replayed(path) == ["a"]
    assert path.stat().st_size == first


def test_damage_before_good_frames_is_refused_and_kept(tmp_path: Path) -> None:
    """One flipped bit in the middle must not silently drop everything behind it."""
    path = tmp_path / "journal"
    first, _, _ = written(path, "a", "b", "c")
    broken = bytearray(path.read_bytes())
    broken[first + 20] ^= 1
    path.write_bytes(broken)
    with pytest.raises(ConfigError, match=f"damaged at byte {first}"):
        replayed(path)
    assert path.read_bytes() == broken


class FullDisk:
    """A file whose disk takes `room` more bytes and then no more."""

    def __init__(self, path: Path, *, room: int) -> None:
        self._file = path.open("ab", buffering=0)
        self._room = room

    def write(self, data: bytes) -> int:
        taken = data[: self._room]
        self._room -= len(taken)
        return self._file.write(taken)

    def truncate(self, size: int) -> None:
        self._file.truncate(size)

    def fileno(self) -> int:
        return self._file.fileno()

    def close(self) -> None:
        self._file.close()


def test_a_full_disk_is_an_outage_and_leaves_no_half_frame(tmp_path: Path) -> None:
    """A frame that does not fit is taken back: what was there stays, and what comes once there is room follows it."""
    path = tmp_path / "journal"
    written(path, "a")
    journal = Journal(path, replay=lambda _tenant, _write: None)
    real, journal._file = journal._file, FullDisk(path, room=50)  # type: ignore[assignment]
    more: list[Write] = [put("b")]
    with pytest.raises(DependencyError, match="no room"):
        journal.append("acme", more)
    journal._file.close()
    journal._file = real
    journal.append("acme", [put("c")])
    journal.close()
    assert replayed(path) == ["a", "c"]
