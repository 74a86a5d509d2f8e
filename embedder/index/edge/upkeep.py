"""When a shard is optimised aside, step by step between requests."""

from __future__ import annotations

import shutil
import time
from collections.abc import Sequence
from typing import Protocol

import structlog
from qdrant_edge import EdgeShard

from embedder.index.edge.aside import Aside, Entry, Pointer
from streams.errors import DependencyError

log = structlog.get_logger(__name__)

CATCH_UP = 8
"""Calls of up to 256 writes that are applied again between two requests: some 0.1 s."""


class Owner(Protocol):
    """The index whose shard is kept."""

    def apply_to(self, shard: EdgeShard, entries: Sequence[Entry]) -> None:
        """Apply writes to another shard and flush it."""
        ...

    def same_points(self, shard: EdgeShard) -> bool:
        """Whether another shard holds as many points as the index's own."""
        ...

    def take(self, shard: EdgeShard, *, built: int) -> None:
        """Go on with another shard."""
        ...


class Upkeep:
    """At most one optimisation under way. Not thread-safe."""

    def __init__(self, owner: Owner, pointer: Pointer) -> None:
        self._owner = owner
        self._pointer = pointer
        self._aside: Aside | None = None
        self._next: EdgeShard | None = None
        """The optimised clone, opened, while it catches up."""
        self._built = 0
        self._started_at = 0.0

    @property
    def busy(self) -> bool:
        """Whether :meth:`go_on` has to be called, and often."""
        return self._aside is not None

    def note(self, entry: Entry) -> None:
        """Remember a write that the clone misses."""
        if self._aside is not None:
            self._aside.missed.append(entry)

    def start(self, waiting: int) -> None:
        """Clone the shard, which was flushed just now, for the sake of `waiting` points."""
        started = time.monotonic()
        try:
            self._aside = Aside(self._pointer.folder(), self._pointer.following())
        except OSError as exc:  # a full disk
            self._fail(str(exc))
            return
        self._built, self._started_at = waiting, time.monotonic()
        log.info("optimising aside", points=waiting, cloned_s=round(self._started_at - started, 3))

    def go_on(self) -> None:
        """The next step: look, open, catch up, take over. The longest is opening: about 1 s for 100,000 points."""
        assert self._aside is not None
        state = self._aside.state()
        if state == "working":
            return
        if state == "failed":
            self._fail("the other process failed")
            return
        try:
            if self._next is None:
                self._next = _opened(self._aside)
            else:
                self._catch_up(self._aside, self._next)
        except DependencyError as exc:
            self._fail(exc.message)

    def _fail(self, why: str) -> None:
        """Searches go on, a little slower; it is tried again when it is due again."""
        log.error("not optimised", error=why)
        self.give_up()

    def give_up(self) -> None:
        """Drop what is under way; the shard has everything."""
        aside, shard, self._aside, self._next = self._aside, self._next, None, None
        if shard is not None:
            shard.close()
        if aside is not None:
            aside.give_up()

    def _catch_up(self, aside: Aside, shard: EdgeShard) -> None:
        part = aside.missed[:CATCH_UP]
        self._owner.apply_to(shard, part)
        del aside.missed[: len(part)]
        if aside.missed:
            return
        if not self._owner.same_points(shard):
            self._fail("the copy has not as many points as the shard")
            return
        gone = self._pointer.folder()
        self._pointer.move(aside.folder)
        self._aside = self._next = None
        self._owner.take(shard, built=self._built)
        shutil.rmtree(gone, ignore_errors=True)
        log.info("optimised", points=self._built, took_s=round(time.monotonic() - self._started_at, 3))


def _opened(aside: Aside) -> EdgeShard:
    try:
        return EdgeShard.load(str(aside.folder))
    except Exception as exc:
        raise DependencyError("index", f"Qdrant Edge failed: {exc}") from exc
