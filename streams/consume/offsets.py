"""Which offset may be committed: per partition, everything below it is finished.

Events finish in any order; Kafka keeps one number per partition. :class:`PartitionOffsets` is that
number's bookkeeping for one *ownership* of one partition: a partition that is revoked and comes back
gets a new object, so that a late finish of the old ownership touches something nobody reads any more.
"""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Iterable


class PartitionOffsets:
    """The contiguous low-water mark of one ownership of one partition. Thread-safe.

    Offsets are admitted in rising order by the poll thread; gaps are normal (control records,
    compaction), so the mark is the lowest *admitted* offset that is not finished.
    """

    def __init__(self, topic: str, partition: int) -> None:
        self.topic = topic
        self.partition = partition
        self._lock = threading.Lock()
        self._emptied = threading.Condition(self._lock)
        self._open: deque[int] = deque()
        self._done: set[int] = set()
        self._next: int | None = None
        self._committed: int | None = None
        self._dropped = False

    def admit(self, offset: int) -> bool:
        """Whether this record is new: one below what was admitted before is a repeat and must be dropped.

        The same owner may be given its first records again after a rebalance.
        """
        with self._lock:
            if self._dropped or (self._next is not None and offset < self._next):
                return False
            self._next = offset + 1
            self._open.append(offset)
            return True

    def finish(self, offset: int) -> None:
        """This record is done with for good. Twice, or after :meth:`drop`, it changes nothing."""
        with self._lock:
            if self._dropped or not self._open or offset < self._open[0]:
                return
            self._done.add(offset)
            while self._open and self._open[0] in self._done:
                self._done.discard(self._open.popleft())
            if not self._open:
                self._emptied.notify_all()

    @property
    def next_offset(self) -> int | None:
        """The offset to commit: the lowest unfinished one, or one past the last; None before any record."""
        with self._lock:
            return self._mark()

    def to_commit(self) -> int | None:
        """The mark where it is not committed yet, else None."""
        with self._lock:
            mark = self._mark()
            return None if mark is None or self._dropped or mark == self._committed else mark

    def committed(self, next_offset: int) -> None:
        """The broker has this commit. Only a commit's own result may say so, never the call."""
        with self._lock:
            if self._committed is None or next_offset > self._committed:
                self._committed = next_offset

    @property
    def span(self) -> int:
        """How far the newest admitted offset is ahead of the mark: what comes again after a crash."""
        with self._lock:
            return 0 if self._next is None or not self._open else self._next - self._open[0]

    @property
    def in_flight(self) -> int:
        """Admitted and not finished."""
        with self._lock:
            return len(self._open) - len(self._done)

    def wait_finished(self, timeout_s: float) -> bool:
        """Wait until nothing is in flight; False if `timeout_s` ran out first."""
        with self._emptied:
            return self._emptied.wait_for(lambda: self._dropped or not self._open, timeout_s)

    def drop(self) -> None:
        """This ownership is over: nothing counts any more."""
        with self._lock:
            self._dropped = True
            self._open.clear()
            self._done.clear()
            self._emptied.notify_all()

    @property
    def dropped(self) -> bool:
        return self._dropped

    def _mark(self) -> int | None:
        return self._open[0] if self._open else self._next


class StandingMarks:
    """For how long marks have stood still with something in flight: one look a second, nothing per event."""

    def __init__(self) -> None:
        self._since: dict[PartitionOffsets, tuple[int | None, float]] = {}

    def oldest_s(self, trackers: Iterable[PartitionOffsets], *, now: float) -> float:
        """The longest of them, in seconds since this was first seen; 0 where everything moves."""
        known, self._since = self._since, {}
        for tracker in trackers:
            if tracker.in_flight:
                mark = tracker.next_offset
                before = known.get(tracker)
                self._since[tracker] = before if before is not None and before[0] == mark else (mark, now)
        return max((now - since for _, since in self._since.values()), default=0.0)
