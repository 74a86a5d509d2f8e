"""Into the index, many calls under way: a write is acknowledged when it is durable, about once a second under load."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from concurrent.futures import Future
from functools import partial

from embedder.index.points import Note, Write, Written
from embedder.index.protocol import Receipt, Writer
from embedder.stages.lookup import by_tenant
from embedder.stages.outages import FIRST_PROBE_S, Outages, StoppedError
from embedder.stages.window import Window
from embedder.stages.work import Work, WorkQueue
from streams.errors import DependencyError
from streams.report.outcomes import OutcomeState

BATCH = 256


class IndexWrite:
    """One thread hands writes over; the index's own thread brings the results."""

    stage = "write"

    def __init__(
        self,
        *,
        queue: WorkQueue,
        index: Writer,
        outages: Outages,
        window: Window,
        lookup: WorkQueue,
        report: Callable[[Work, OutcomeState], None],
        fail: Callable[[Work, Exception, str], None],
    ) -> None:
        self._queue = queue
        self._index = index
        self._outages = outages
        self._window = window
        self._lookup = lookup
        self._report = report
        self._fail = fail

    def run(self) -> None:
        """Until the queue is closed."""
        while works := self._queue.take(BATCH):
            for tenant_id, group in by_tenant([work for work in works if not work.alone]).items():
                self._submit(tenant_id, group)
            for work in works:
                if work.alone:
                    self._submit(work.known_event.tenant_id, [work])

    def _submit(self, tenant_id: str, works: list[Work]) -> None:
        writes = [_write_of(work) for work in works]
        try:
            future = self._outages.call(lambda: self._index.write(tenant_id, writes))
        except StoppedError:
            raise
        except Exception as exc:  # noqa: BLE001 - one write must not take its call along: verdict.py
            self._refused(works, exc)
            return
        for work in works:
            work.handed_over = True
        self._window.hand_over(len(works))
        future.add_done_callback(partial(self._written, works))

    def _take_back(self, works: Sequence[Work]) -> None:
        for work in works:
            work.handed_over = False
        self._window.take_back(len(works))

    def _written(self, works: Sequence[Work], future: Future[Receipt]) -> None:
        error = future.exception()
        if error is not None:
            self._take_back(works)
        if isinstance(error, DependencyError):  # the very same writes again, when it is back
            self._outages.down(error)
            for work in works:
                self._queue.put_later(work, FIRST_PROBE_S)
            return
        if error is not None:
            self._refused(works, error)
            return
        if self._outages.any:
            self._outages.up("index")
        receipt = future.result()
        for work, written in zip(works, receipt.written, strict=True):
            work.applied_at_us = receipt.applied_at_us
            work.mark(self.stage)
            self._route(work, written)

    def _route(self, work: Work, written: Written) -> None:
        if written is Written.SUPERSEDED and not isinstance(work.write, Note):
            self._take_back([work])
            self._lookup.put(work)  # something newer was quicker: look again
        elif written is Written.SUPERSEDED:
            self._report(work, OutcomeState.SUPERSEDED)
        else:
            assert work.becomes is not None
            self._report(work, work.becomes)

    def _refused(self, works: Sequence[Work], error: BaseException) -> None:
        """One write the index cannot take must not take the others of its call along."""
        if not isinstance(error, Exception):
            raise error
        if len(works) == 1:
            self._fail(works[0], error, self.stage)
            return
        for work in works:  # not from here: this may be the index's own thread
            work.alone = True
        self._queue.put_many(works)


def _write_of(work: Work) -> Write:
    assert work.write is not None
    return work.write
