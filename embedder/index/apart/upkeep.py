"""When a shard is optimised aside, step by step between requests.

In order: flush, and hold writes back for as long as another process copies the shard's files; let that process
optimise the copy while every write is applied to the shard and kept in a list; let a next holder open the
copy and be told the list in parts; when little is left, tell it that too, flush it, and let the pointer name
the copy: from then on it is the shard, and its holder is asked. A crash at any moment leaves the pointer on a shard
that has everything acknowledged: the old one until the pointer was moved, the new one from then on.

The list holds requests, not their results: the table of docs/semantics.md gives the same end again.
"""

from __future__ import annotations

import threading
import time
from collections import deque
from collections.abc import Callable
from pathlib import Path

import msgspec
import structlog

from embedder.index.apart.holder import Holder
from embedder.index.codec import encode
from embedder.index.edge.aside import Aside
from embedder.index.edge.pointer import Pointer
from streams.errors import DependencyError, LookalikeError

log = structlog.get_logger(__name__)

OPTIMISE_AT = 20_000
"""So many points outside of the graph are searched row by row: about 5 ms more per search."""
OPTIMISE_IDLE_AT = 2_000
OPTIMISE_IDLE_S = 5.0
CATCH_UP, CATCH_UP_BYTES = 64, 8 << 20
"""Requests of mostly four writes that the next holder is told at once: 0.1 s of its time, and of nobody else's."""
LAST_REQUESTS = 32
"""So many writes of a few points each, some 30 ms, are left for the moment in which everybody waits."""
COPY_WITHIN_S = 120.0
"""Writes wait for the copy: a disk that needs longer for it has failed. A million points take some seconds."""
ANSWER_WITHIN_S = 900.0
"""Opening a million points, the longest of what a next holder does, takes a hundredth of it."""
RETRY_S, RETRY_AT_MOST_S = 60.0, 3600.0
"""Pause after a failure, doubled with each: on a full disk every try would fill it again and hold writes back."""
_number = msgspec.msgpack.Decoder(int).decode


def due(waiting: int, *, idle_s: float) -> bool:
    """Whether `waiting` points want their graph: many at any time, fewer when nobody has asked for a while."""
    return waiting >= OPTIMISE_AT or (waiting >= OPTIMISE_IDLE_AT and idle_s >= OPTIMISE_IDLE_S)


class Upkeep:
    """At most one optimisation under way. Not thread-safe."""

    def __init__(self, open_holder: Callable[[Path], Holder], pointer: Pointer) -> None:
        self._open_holder = open_holder
        self._pointer = pointer
        self._aside: Aside | None = None
        self._next: Holder | None = None
        self._missed: deque[tuple[str, bytes]] = deque()
        self._posted = False
        """Whether the next holder has a question that it has not answered."""
        self._flushed = False
        """Whether all that it was told is durable."""
        self._patience: int | None = None
        """So many more questions it may be asked before writes are held back for it to catch up; set with the first."""
        self._waiting = 0
        self._started_at = self._stepped_at = 0.0
        self._failures = 0
        self._retry_at = 0.0
        self._clearing: threading.Thread | None = None

    @property
    def busy(self) -> bool:
        """Whether :meth:`go_on` has to be called, and often."""
        return self._aside is not None

    @property
    def may_start(self) -> bool:
        """Whether the pause after a failure is over."""
        return time.monotonic() >= self._retry_at

    def try_again(self) -> None:
        """End that pause: somebody asks for it."""
        self._retry_at = 0.0

    @property
    def copying(self) -> bool:
        """Whether files are being copied, which must not change meanwhile."""
        return self._aside is not None and not self._aside.copied

    @property
    def held(self) -> bool:
        """Whether nothing may be written: files are being copied, or the next holder does not catch up."""
        return self.copying or self._patience == 0

    def note(self, operation: str, arguments: bytes) -> None:
        """Remember a change that the copy misses."""
        if self._aside is not None:
            self._missed.append((operation, arguments))

    def start(self, waiting: int) -> None:
        """Begin, for the sake of `waiting` points; the shard was flushed just now."""
        self._waiting, self._started_at = waiting, time.monotonic()
        self._stepped_at = self._started_at
        self._posted = self._flushed = False
        self._patience = None
        self.wait_cleared()  # a new copy may have the name of one that is being removed
        try:
            self._aside = Aside(self._pointer.folder(), self._pointer.following())
        except OSError as exc:  # no memory for another process
            self._fail(str(exc))
            return
        log.info("optimising aside", points=waiting)

    def go_on(self, current: Holder) -> Holder | None:
        """The next step; the holder that is to be asked from now on, once there is one.

        Raises:
            DependencyError: `current` ended.
            OSError: it is not known which shard the pointer names; both are there.
        """
        assert self._aside is not None
        state = self._aside.state()
        if state == "failed":
            self._fail("the optimising process failed")
        elif state == "working":
            if self.copying and time.monotonic() - self._started_at > COPY_WITHIN_S:
                self._fail(f"the files were not copied within {COPY_WITHIN_S:g} s")
            self._stepped_at = time.monotonic()
        else:
            try:
                return self._hand_over(self._aside, current)
            except (LookalikeError, ValueError, RuntimeError) as exc:
                current.check_alive()  # else it is the one that failed, and no matter of maintenance
                self._fail(str(exc))
        return None

    def _fail(self, why: str) -> None:
        """Searches go on, a little slower; it is tried again after a pause."""
        pause_s = min(RETRY_AT_MOST_S, RETRY_S * 2**self._failures)
        self._failures += 1
        self._retry_at = time.monotonic() + pause_s
        log.error("not optimised", error=why, again_in_s=pause_s)
        self.give_up()

    def give_up(self) -> None:
        """Drop what is under way; the shard has everything. Does not wait for gigabytes to be let go of."""
        aside, holder, self._aside, self._next = self._aside, self._next, None, None
        self._missed.clear()
        self._patience = None
        if aside is not None:
            self.wait_cleared()
            self._clearing = threading.Thread(target=_clear, args=(aside, holder), name="index-clear")
            self._clearing.start()

    def wait_cleared(self) -> None:
        """Returns when nothing is left of what was given up."""
        if self._clearing is not None:
            self._clearing.join()
            self._clearing = None

    def _hand_over(self, aside: Aside, current: Holder) -> Holder | None:
        if self._next is None:
            self._next = self._open_holder(aside.folder)
        if not self._next.opened() or (self._posted and not self._next.answered()):
            if time.monotonic() - self._stepped_at > ANSWER_WITHIN_S:
                raise DependencyError("index", f"the next holder did not answer within {ANSWER_WITHIN_S:g} s")
            return None
        self._stepped_at = time.monotonic()
        if self._posted:
            self._next.take()
            self._posted = False
        if self._flushed and self._is_little():
            return self._take_over(aside, self._next, current)
        self._ask_more(self._next)
        return None

    def _is_little(self) -> bool:
        """Whether what is missed takes no time; a sweep or a tenant's removal may."""
        return len(self._missed) <= LAST_REQUESTS and all(one == "write_now" for one, _ in self._missed)

    def _ask_more(self, following: Holder) -> None:
        """Tell it a part of what it missed, or to make durable what it was told."""
        if self._patience is None:
            self._patience = 10 + 2 * len(self._missed) // CATCH_UP
        self._patience = max(0, self._patience - 1)
        self._flushed = self._is_little()
        if self._flushed:
            following.post("flush", encode(None))
        else:
            following.post("replay", self._missed_part(CATCH_UP))
        self._posted = True

    def _missed_part(self, n: int) -> bytes:
        part: list[tuple[str, msgspec.Raw]] = []
        size = 0
        while self._missed and len(part) < n and size < CATCH_UP_BYTES:
            operation, arguments = self._missed.popleft()
            part.append((operation, msgspec.Raw(arguments)))
            size += len(arguments)
        return encode(part)

    def _take_over(self, aside: Aside, following: Holder, current: Holder) -> Holder:
        """The one moment in which everybody waits: some writes, a flush of little, a small file."""
        started = time.monotonic()
        if self._missed:
            while self._missed:
                following.ask("replay", self._missed_part(LAST_REQUESTS))
            following.ask("flush", encode(None))
        _check_as_many(current, following)
        self._aside = self._next = self._patience = None  # whatever happens now, nobody removes the copy
        try:
            self._pointer.move(aside.folder)
        except OSError:
            following.kill()
            raise
        self._failures = 0
        ended = time.monotonic()
        log.info(
            "optimised",
            points=self._waiting,
            took_s=round(ended - self._started_at, 3),
            held_up_s=round(ended - started, 3),
        )
        return following


def _clear(aside: Aside, holder: Holder | None) -> None:
    if holder is not None:
        holder.kill()
    aside.give_up()


def _check_as_many(current: Holder, following: Holder) -> None:
    """DependencyError where the copy has not as many points as the shard; counted one by one only where it seems so."""
    for counted in (False, True):
        ours, theirs = (_number(one.ask("points", encode(counted))) for one in (current, following))
        if ours == theirs:
            return
    raise DependencyError("index", f"the copy has {theirs} points, the shard {ours}")
