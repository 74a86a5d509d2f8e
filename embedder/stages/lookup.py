"""What is stored about these images, and therefore: which step follows?"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Sequence

from embedder.index.points import Bury, Refresh, Step, plan
from embedder.index.protocol import Writer
from embedder.stages.outages import Outages
from embedder.stages.work import Work, WorkQueue
from streams.event import now_us
from streams.report.outcomes import OutcomeState

BATCH = 256


class Lookup:
    """One thread. Takes new events, writes that were superseded, and events about to be given up."""

    stage = "lookup"

    def __init__(
        self,
        *,
        queue: WorkQueue,
        index: Writer,
        outages: Outages,
        fetch: WorkQueue,
        write: WorkQueue,
        report: Callable[[Work, OutcomeState], None],
        give_up: Callable[[Work], None],
    ) -> None:
        """`report` sends an outcome; `give_up` starts with the dead letter."""
        self._queue = queue
        self._index = index
        self._outages = outages
        self._fetch = fetch
        self._write = write
        self._report = report
        self._give_up = give_up

    def run(self) -> None:
        """Until the queue is closed."""
        while works := self._queue.take(BATCH):
            for tenant_id, group in by_tenant(works).items():
                self._look(tenant_id, group)

    def _look(self, tenant_id: str, works: Sequence[Work]) -> None:
        image_ids = list(dict.fromkeys(work.known_event.image_id for work in works))
        points = self._outages.call(lambda: self._index.read(tenant_id, image_ids))
        found = dict(zip(image_ids, points, strict=True))
        fetching: list[Work] = []
        for work in works:
            work.stored = found[work.known_event.image_id]
            work.mark(self.stage)
            self._route(work, fetching)
        if fetching:
            self._fetch.put_many(fetching)

    def _route(self, work: Work, fetching: list[Work]) -> None:
        """The stage that follows; what must be fetched is handed over together, after the loop."""
        event = work.known_event
        work.step = step = plan(event, work.stored)
        if work.failure is not None:
            self._judge_failed(work, step)
        elif step in (Step.SUPERSEDED, Step.UNCHANGED):
            self._report(work, OutcomeState(step.value))
        elif step is Step.BURY:
            work.write = Bury(event.image_id, event.version, now_us())
            work.becomes = OutcomeState.DELETED
            self._write.put(work)
        elif step is Step.REFRESH:
            self._write.put(_refreshing(work))
        else:
            fetching.append(work)

    def _judge_failed(self, work: Work, step: Step) -> None:
        """An event about to be given up, unless somebody brought its version there meanwhile."""
        if step in (Step.EMBED, Step.REFRESH, Step.BURY):
            self._give_up(work)
        else:
            work.failure = None
            self._report(work, OutcomeState.SUPERSEDED)


def _refreshing(work: Work) -> Work:
    event = work.known_event
    assert event.location is not None
    assert event.location.etag is not None
    work.write = Refresh(
        event.image_id, event.version, event.location, event.location.etag, event.tags, event.attributes
    )
    work.becomes = OutcomeState.UNCHANGED
    return work


def by_tenant(works: Sequence[Work]) -> dict[str, list[Work]]:
    """Works in order, by the tenant of their event: every index call is one tenant's."""
    groups: defaultdict[str, list[Work]] = defaultdict(list)
    for work in works:
        groups[work.known_event.tenant_id].append(work)
    return groups
