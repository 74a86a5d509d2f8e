"""The low-water mark: it never passes an unfinished record, whatever the order of completion."""

from __future__ import annotations

import threading

from hypothesis import given, settings
from hypothesis import strategies as st

from streams.consume.offsets import PartitionOffsets, StandingMarks


def _offsets(n: int) -> PartitionOffsets:
    tracker = PartitionOffsets("images.live", 0)
    for offset in range(n):
        assert tracker.admit(offset)
    return tracker


@st.composite
def histories(draw: st.DrawFn) -> list[tuple[str, int]]:
    """Random admissions (with gaps), completions and commits, each record finished at most once."""
    steps: list[tuple[str, int]] = []
    open_offsets: list[int] = []
    at = draw(st.integers(0, 5))
    for _ in range(draw(st.integers(1, 40))):
        kind = draw(st.sampled_from(["admit", "finish", "finish", "commit"]))
        if kind == "finish" and open_offsets:
            steps.append(("finish", open_offsets.pop(draw(st.integers(0, len(open_offsets) - 1)))))
        elif kind == "commit":
            steps.append(("commit", draw(st.integers(0, 1))))
        else:
            at += draw(st.integers(1, 3))
            open_offsets.append(at)
            steps.append(("admit", at))
    return steps


@settings(deadline=None)  # a busy machine is no failure
@given(histories())
def test_mark_is_the_lowest_unfinished_offset(history: list[tuple[str, int]]) -> None:
    """After any history the mark equals the lowest admitted, unfinished offset, or one past the last."""
    tracker = PartitionOffsets("images.live", 0)
    admitted: list[int] = []
    finished: set[int] = set()
    committed: int | None = None
    for kind, value in history:
        if kind == "admit":
            assert tracker.admit(value)
            admitted.append(value)
        elif kind == "finish":
            tracker.finish(value)
            finished.add(value)
        elif (due := tracker.to_commit()) is not None and value:  # value 0: the broker refuses the commit
            tracker.committed(due)
            committed = due
        unfinished = [offset for offset in admitted if offset not in finished]
        mark = min(unfinished) if unfinished else (admitted[-1] + 1 if admitted else None)
        assert tracker.next_offset == mark
        assert tracker.to_commit() == (None if mark == committed else mark)
        assert tracker.in_flight == len(unfinished)


def test_refused_commit_is_due_again() -> None:
    """A mark stays due until its commit's own result says that the broker has it."""
    tracker = _offsets(2)
    tracker.finish(0)
    assert tracker.to_commit() == 1
    assert tracker.to_commit() == 1
    tracker.committed(1)
    assert tracker.to_commit() is None


def test_late_result_of_an_older_commit_does_not_undo_a_newer_one() -> None:
    """Two commits under way may be answered in any order."""
    tracker = _offsets(3)
    for offset in range(3):
        tracker.finish(offset)
    tracker.committed(3)
    tracker.committed(1)
    assert tracker.to_commit() is None


def test_repeat_after_a_rebalance_is_dropped() -> None:
    """A record below what was admitted before is a repeat and moves nothing."""
    tracker = _offsets(5)
    tracker.finish(0)
    assert not tracker.admit(0)
    assert not tracker.admit(4)
    assert tracker.next_offset == 1
    assert tracker.admit(5)


def test_finishing_twice_changes_nothing() -> None:
    """A second finish of the same record leaves mark and count as they were."""
    tracker = _offsets(3)
    tracker.finish(0)
    tracker.finish(0)
    tracker.finish(2)
    tracker.finish(2)
    assert tracker.next_offset == 1
    assert tracker.in_flight == 1


def test_late_finish_after_a_drop_touches_nothing() -> None:
    """An ownership that is over admits nothing, finishes nothing and commits nothing."""
    tracker = _offsets(2)
    tracker.drop()
    tracker.finish(0)
    assert tracker.to_commit() is None
    assert not tracker.admit(2)


def test_wait_ends_when_the_last_record_finishes() -> None:
    """A drain ends with the last finish, from another thread, and not before."""
    tracker = _offsets(2)
    assert not tracker.wait_finished(0.0)

    def finish() -> None:
        for offset in (1, 0):
            tracker.finish(offset)

    thread = threading.Thread(target=finish)
    thread.start()
    assert tracker.wait_finished(30.0)
    thread.join()
    assert tracker.next_offset == 2


class Ownerships:
    """Owners of one partition in turn, and the broker that keeps its commit."""

    def __init__(self, n_records: int) -> None:
        self.n_records = n_records
        self.commit = 0
        self.finished: set[int] = set()
        self.in_hand: list[tuple[PartitionOffsets, int]] = []
        self.late: list[tuple[PartitionOffsets, int]] = []
        self.tracker = PartitionOffsets("images.live", 0)
        self.position = 0

    def deliver(self, n: int) -> None:
        for offset in range(self.position, min(self.n_records, self.position + n)):
            if self.tracker.admit(offset):
                self.in_hand.append((self.tracker, offset))
            self.position = offset + 1

    def finish(self, pick: int) -> None:
        if self.in_hand:
            tracker, offset = self.in_hand.pop(pick % len(self.in_hand))
            self.finished.add(offset)  # the work of a late finish is done as well: only its commit does not count
            tracker.finish(offset)

    def try_commit(self, *, accepted: bool) -> None:
        due = self.tracker.to_commit()
        if due is not None and accepted:
            self.tracker.committed(due)
            self.commit = due
        self.check()

    def revoke(self, *, repeats: int) -> None:
        """The next owner starts at the commit; the same one may be given some records once more."""
        self.tracker.drop()
        self.tracker = PartitionOffsets("images.live", 0)
        self.position = self.commit
        self.deliver(repeats)
        self.position = self.commit  # the first window comes again (docs/kafka.md)

    def check(self) -> None:
        assert all(offset in self.finished for offset in range(self.commit)), "the commit passed an unfinished record"


_moves = st.one_of(
    st.tuples(st.just("deliver"), st.integers(1, 5)),
    st.tuples(st.just("finish"), st.integers(0, 20)),
    st.tuples(st.just("finish"), st.integers(0, 20)),
    st.tuples(st.just("commit"), st.integers(0, 2)),
    st.tuples(st.just("revoke"), st.integers(0, 3)),
)


@settings(deadline=None)  # a busy machine is no failure
@given(st.lists(_moves, max_size=80))
def test_no_commit_passes_an_unfinished_record_through_revokes_and_refusals(moves: list[tuple[str, int]]) -> None:
    """Random deliveries, completions, refused commits and changes of owner: nothing unfinished is ever committed,
    and in the end everything is finished and committed."""
    world = Ownerships(30)
    for kind, value in moves:
        if kind == "deliver":
            world.deliver(value)
        elif kind == "finish":
            world.finish(value)
        elif kind == "commit":
            world.try_commit(accepted=value > 0)
        else:
            world.revoke(repeats=value)
        world.check()
    world.deliver(world.n_records)
    while world.in_hand:
        world.finish(0)
    world.try_commit(accepted=True)
    assert world.commit == world.n_records
    assert world.finished == set(range(world.n_records))


def test_span_is_what_comes_again_after_a_crash() -> None:
    """From the mark to the newest admitted record, however much in between is finished; 0 where all is."""
    tracker = _offsets(10)
    for offset in range(1, 10):
        tracker.finish(offset)
    assert tracker.span == 10
    tracker.finish(0)
    assert tracker.span == 0


def test_mark_that_stands_still_is_noticed_and_one_that_moves_is_not() -> None:
    """The age is that of the oldest mark that has not moved while something is in flight."""
    standing = StandingMarks()
    stuck, moving = _offsets(5), _offsets(5)
    for now, offset in enumerate(range(4)):
        assert standing.oldest_s([stuck, moving], now=float(now)) == float(now)
        moving.finish(offset)
    assert standing.oldest_s([moving], now=10.0) == 0.0
