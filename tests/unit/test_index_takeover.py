"""How an optimised copy takes over: everything it missed is told to it in order, and nobody waits for most of that."""

from __future__ import annotations

import threading
import time
from collections import deque
from pathlib import Path
from typing import Any

import msgspec
import pytest

from embedder.index.apart.upkeep import (
    ANSWER_WITHIN_S,
    CATCH_UP,
    CATCH_UP_BYTES,
    COPY_WITHIN_S,
    LAST_REQUESTS,
    OPTIMISE_AT,
    OPTIMISE_IDLE_AT,
    OPTIMISE_IDLE_S,
    RETRY_AT_MOST_S,
    RETRY_S,
    Upkeep,
    due,
)
from embedder.index.codec import encode
from embedder.index.edge.pointer import Pointer
from streams.errors import DependencyError

MANY = 10 * LAST_REQUESTS + 7


class Copied:
    """An optimisation that is as far as the test says."""

    def __init__(self, shard: Path, folder: Path) -> None:
        self.folder = folder
        self.copied = False
        self.now = "working"
        folder.mkdir()
        shard.mkdir(exist_ok=True)

    def state(self) -> str:
        self.copied = self.copied or self.now != "working"
        return self.now

    def give_up(self) -> None:
        self.folder.rmdir()


class Held:
    """A holder without a process: it has as many points as it was told of."""

    def __init__(self, points: int = 0, *, kept: int | None = None) -> None:
        self.kept = kept  # what it says without counting, where that is not right
        self.told: list[bytes] = []
        self.sizes: list[int] = []
        self.posted: deque[str] = deque()
        self.in_the_end: list[str] = []
        self.points = points
        self.is_open = self.is_alive = True
        self.killed = False

    def opened(self) -> bool:
        self.check_alive()
        return self.is_open

    def check_alive(self) -> None:
        if not self.is_alive:
            raise DependencyError("index", "it ended")

    def post(self, operation: str, arguments: bytes) -> None:
        self.check_alive()
        if operation == "replay":
            self.sizes.append(len(arguments))
            self.told += [
                bytes(raw) for _, raw in msgspec.msgpack.decode(arguments, type=list[tuple[str, msgspec.Raw]])
            ]
        self.posted.append(operation)

    def answered(self) -> bool:
        return True

    def take(self) -> msgspec.Raw:
        self.posted.popleft()
        return msgspec.Raw(encode(None))

    def ask(self, operation: str, arguments: bytes) -> msgspec.Raw:
        self.post(operation, arguments)
        self.in_the_end.append(self.posted.popleft())
        if self.kept is not None and operation == "points" and arguments == encode(False):
            return msgspec.Raw(encode(self.kept))
        return msgspec.Raw(encode(self.points + len(self.told)))

    def kill(self) -> None:
        self.killed = True


@pytest.fixture
def pointer(tmp_path: Path) -> Pointer:
    return Pointer(tmp_path)


def started(pointer: Pointer, following: Held, monkeypatch: pytest.MonkeyPatch) -> tuple[Any, Copied]:
    """Typed loosely: its holders are stand-ins."""
    monkeypatch.setattr("embedder.index.apart.upkeep.Aside", Copied)
    stand_in: Any = following
    upkeep = Upkeep(lambda _folder: stand_in, pointer)
    upkeep.start(100)
    aside: Any = upkeep._aside
    return upkeep, aside


def requests(first: int, n: int) -> list[bytes]:
    return [encode(number) for number in range(first, first + n)]


def test_writes_wait_while_files_are_copied_and_no_longer(pointer: Pointer, monkeypatch: pytest.MonkeyPatch) -> None:
    current = Held()
    upkeep, aside = started(pointer, Held(), monkeypatch)
    assert upkeep.held
    upkeep.go_on(current)
    assert upkeep.held
    aside.copied = True
    assert not upkeep.held
    assert upkeep.busy
    assert upkeep.go_on(current) is None


def test_the_copy_is_told_everything_in_order_and_then_asked(pointer: Pointer, monkeypatch: pytest.MonkeyPatch) -> None:
    following, current = Held(), Held(points=MANY)
    upkeep, aside = started(pointer, following, monkeypatch)
    missed = requests(0, MANY)
    for one in missed:
        upkeep.note("write_now", one)
    aside.now, following.is_open = "done", False
    assert upkeep.go_on(current) is None
    assert following.told == [], "it has not opened the copy yet"
    following.is_open = True
    steps = 0
    while (taken := upkeep.go_on(current)) is None:
        steps += 1
        assert steps < 50
        assert pointer.folder().name == "shard"
    assert taken is following
    assert following.told == missed
    assert following.in_the_end == ["replay", "flush", "points"]
    assert current.in_the_end == ["points"]
    assert pointer.folder().name == "shard-1"
    assert not upkeep.busy


def test_writes_that_never_stop_do_not_keep_the_copy_away(pointer: Pointer, monkeypatch: pytest.MonkeyPatch) -> None:
    """More of them between two steps than may be left for the end: they are held back at last."""
    following, current = Held(), Held()
    upkeep, aside = started(pointer, following, monkeypatch)
    aside.now = "done"
    n = 0
    for _step in range(200):
        if not upkeep.held:
            for one in requests(n, 2 * CATCH_UP):
                upkeep.note("write_now", one)
            n += 2 * CATCH_UP
        current.points = n
        if upkeep.go_on(current) is not None:
            break
    assert not upkeep.busy, "it never took over"
    assert not upkeep.held
    assert following.told == requests(0, n)


def test_a_copy_that_lacks_a_point_is_thrown_away(pointer: Pointer, monkeypatch: pytest.MonkeyPatch) -> None:
    following, current = Held(points=99), Held(points=100)
    upkeep, aside = started(pointer, following, monkeypatch)
    aside.now = "done"
    for _step in range(5):
        assert upkeep.busy
        assert upkeep.go_on(current) is None
        if not upkeep.busy:
            break
    upkeep.wait_cleared()
    assert following.killed
    assert not upkeep.busy
    assert pointer.folder().name == "shard"
    upkeep.wait_cleared()
    assert not aside.folder.exists()


def test_points_are_counted_where_the_engine_seems_to_miss_one(
    pointer: Pointer, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What it keeps count of is asked first, because a count of a million takes a while, and is no proof."""
    following, current = Held(points=100), Held(points=100, kept=99)
    upkeep, aside = started(pointer, following, monkeypatch)
    aside.now = "done"
    assert upkeep.go_on(current) is None
    assert upkeep.go_on(current) is following
    assert current.in_the_end == ["points", "points"]


def test_a_next_holder_that_ends_costs_nothing(pointer: Pointer, monkeypatch: pytest.MonkeyPatch) -> None:
    following, current = Held(), Held()
    upkeep, aside = started(pointer, following, monkeypatch)
    aside.now, following.is_alive = "done", False
    assert upkeep.go_on(current) is None
    assert not upkeep.busy
    upkeep.wait_cleared()
    assert not aside.folder.exists()


def test_what_is_given_up_is_removed_without_anybodys_waiting(
    pointer: Pointer, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A process of gigabytes and its files take a while to go; the next try waits for that, it may want the name."""
    upkeep, aside = started(pointer, Held(), monkeypatch)
    go_on = threading.Event()
    remove = aside.give_up

    def slowly() -> None:
        assert go_on.wait(30)
        remove()

    monkeypatch.setattr(aside, "give_up", slowly)
    aside.now = "failed"
    assert upkeep.go_on(Held()) is None
    assert not upkeep.busy
    assert aside.folder.exists()
    threading.Timer(0.1, go_on.set).start()
    upkeep.start(100)
    assert upkeep.busy, "the name was free"


def test_a_holder_that_ends_meanwhile_is_no_matter_of_maintenance(
    pointer: Pointer, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The one that is asked is gone: whoever called has to know."""
    following, current = Held(), Held()
    upkeep, aside = started(pointer, following, monkeypatch)
    aside.now, following.is_alive, current.is_alive = "done", False, False
    with pytest.raises(DependencyError):
        upkeep.go_on(current)


def test_a_pointer_that_cannot_be_moved_leaves_both_shards(pointer: Pointer, monkeypatch: pytest.MonkeyPatch) -> None:
    """Nobody knows which one it names after a disk has failed: neither may be removed, and whoever called ends."""
    following, current = Held(), Held()
    upkeep, aside = started(pointer, following, monkeypatch)
    aside.now = "done"

    def fail(_folder: Path) -> None:
        raise OSError("no space left")

    monkeypatch.setattr(pointer, "move", fail)
    assert upkeep.go_on(current) is None
    with pytest.raises(OSError, match="no space"):
        upkeep.go_on(current)
    upkeep.give_up()
    assert aside.folder.exists()


def test_large_requests_are_told_in_small_parts(pointer: Pointer, monkeypatch: pytest.MonkeyPatch) -> None:
    """A frame has a limit: what is told at once is bounded by its size as well."""
    following, current = Held(), Held(points=9)
    upkeep, aside = started(pointer, following, monkeypatch)
    missed = [encode(bytes(CATCH_UP_BYTES // 2)) for _ in range(9)]
    for one in missed:
        upkeep.note("write_now", one)
    aside.now = "done"
    for _step in range(20):
        if upkeep.go_on(current) is not None:
            break
    assert following.told == missed
    assert max(following.sizes) < 2 * CATCH_UP_BYTES


def test_many_points_want_their_graph_at_once_and_fewer_in_a_pause() -> None:
    assert due(OPTIMISE_AT, idle_s=0.0)
    assert not due(OPTIMISE_AT - 1, idle_s=0.0)
    assert due(OPTIMISE_IDLE_AT, idle_s=OPTIMISE_IDLE_S)
    assert not due(OPTIMISE_IDLE_AT, idle_s=OPTIMISE_IDLE_S / 2)
    assert not due(OPTIMISE_IDLE_AT - 1, idle_s=3600.0)


def test_a_sweep_is_not_left_for_the_moment_in_which_everybody_waits(
    pointer: Pointer, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One of a thousand tombstones takes a quarter of a second."""
    following, current = Held(), Held(points=2)
    upkeep, aside = started(pointer, following, monkeypatch)
    upkeep.note("sweep", encode(1))
    upkeep.note("write_now", encode(2))
    aside.now = "done"
    for _step in range(10):
        if upkeep.go_on(current) is not None:
            break
    assert following.told == [encode(1), encode(2)]
    assert following.in_the_end == ["points"]


def test_after_a_failure_it_waits_longer_each_time_unless_somebody_asks(
    pointer: Pointer, monkeypatch: pytest.MonkeyPatch
) -> None:
    """On a full disk every try would fill it again."""
    upkeep, aside = started(pointer, Held(), monkeypatch)
    pauses = []
    for _ in range(10):
        before = time.monotonic()
        aside.now = "failed"
        upkeep.go_on(Held())
        assert not upkeep.busy
        assert not upkeep.may_start
        pauses.append(upkeep._retry_at - before)
        upkeep.try_again()
        assert upkeep.may_start
        upkeep.start(100)
        aside = upkeep._aside
    assert pauses[:3] == pytest.approx([RETRY_S, 2 * RETRY_S, 4 * RETRY_S], abs=1.0)
    assert max(pauses) == pytest.approx(RETRY_AT_MOST_S, abs=1.0)


def test_a_copy_that_hangs_lets_writes_go_on(pointer: Pointer, monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing is written while files are copied: that must end, whatever the disk does."""
    upkeep, aside = started(pointer, Held(), monkeypatch)
    upkeep.go_on(Held())
    assert upkeep.held
    upkeep._started_at -= COPY_WITHIN_S
    upkeep.go_on(Held())
    assert not upkeep.held
    assert not upkeep.busy
    upkeep.wait_cleared()
    assert not aside.folder.exists()


def test_a_next_holder_that_hangs_is_given_up(pointer: Pointer, monkeypatch: pytest.MonkeyPatch) -> None:
    """What it misses grows with every write."""
    following, current = Held(), Held()
    upkeep, aside = started(pointer, following, monkeypatch)
    aside.now, following.is_open = "done", False
    upkeep.go_on(current)
    assert upkeep.busy
    upkeep._stepped_at -= ANSWER_WITHIN_S
    upkeep.go_on(current)
    assert not upkeep.busy
    assert following.killed
