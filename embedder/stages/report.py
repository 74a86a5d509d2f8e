"""The end of every event: outcome acknowledged, then its offset finished. Before a failure: dead letter, note.

The order is the promise (docs/semantics.md): the dead letter is acknowledged before the attempt is
written, the outcome comes last, and only its acknowledgement finishes the offset.
"""

from __future__ import annotations

import time
import traceback
from collections.abc import Callable

import structlog

from embedder.index.points import Attempt, AttemptState, Note
from embedder.metrics import WorkerMetrics
from embedder.stages.work import Failure, Work, WorkQueue
from embedder.verdict import Judgement, RetryPolicy, Verdict, judge
from streams.errors import DependencyError, Reason
from streams.event import now_us
from streams.report.dead_letters import DeadLetter, DeadLetters
from streams.report.outcomes import Outcome, Outcomes, OutcomeState

log = structlog.get_logger(__name__)


class Report:
    """Called from every stage's thread. `done` is told when an event has left the worker."""

    def __init__(
        self,
        *,
        outcomes: Outcomes,
        dead_letters: DeadLetters,
        metrics: WorkerMetrics,
        policy: RetryPolicy,
        collection: str,
        engine: str,
        worker: str,
        lookup: WorkQueue,
        write: WorkQueue,
        queue_of: Callable[[str], WorkQueue],
        done: Callable[[], None],
        crash: Callable[[BaseException], None],
    ) -> None:
        """`queue_of` names the queue before a stage; `crash` ends the worker: its broker client is beyond repair."""
        self._outcomes = outcomes
        self._dead_letters = dead_letters
        self._metrics = metrics
        self._policy = policy
        self._collection = collection
        self._engine = engine
        self._worker = worker
        self._lookup = lookup
        self._write = write
        self._queue_of = queue_of
        self._done = done
        self._crash = crash

    def outcome(self, work: Work, state: OutcomeState) -> None:
        """Tell what became of the event, then finish it."""
        event, failure, delivery = work.event, work.failure, work.delivery
        freshness_s = None
        if event is not None and event.first_published_us is not None and work.applied_at_us is not None:
            freshness_s = max(0.0, (work.applied_at_us - event.first_published_us) / 1e6)
            self._metrics.freshness.labels(delivery.lane.value).observe(freshness_s)
        outcome = Outcome(
            state=state,
            topic=delivery.topic,
            partition=delivery.partition,
            offset=delivery.offset,
            collection=self._collection,
            worker=self._worker,
            at_us=now_us(),
            event_id=event.event_id if event else None,
            tenant_id=event.tenant_id if event else None,
            image_id=event.image_id if event else None,
            version=event.version if event else None,
            reason=failure.reason if failure else None,
            cause=failure.cause if failure else None,
            message=failure.message[:500] if failure else None,
            stage_s={stage: round(seconds, 6) for stage, seconds in work.stage_s.items()},
            freshness_s=freshness_s,
            engine=self._engine if state is OutcomeState.INDEXED else None,
        )
        self._outcomes.report(outcome, key=delivery.key, on_ack=lambda error: self._finish(work, state, error))

    def fail(self, work: Work, error: Exception, stage: str) -> None:
        """One try failed in `stage`: again in place, or give up."""
        if work.failure is not None:
            self._crash(error)  # reporting a failure failed: nothing in this process can be trusted to report it
            return
        now = time.monotonic()
        work.tries += 1
        if work.first_try_at is None:
            work.first_try_at = now
        work.mark(stage)
        waited_s = now - work.first_try_at
        judgement = judge(error, tries=work.tries, waited_s=waited_s, policy=self._policy)
        self._log(work, error, stage, judgement)
        if judgement.verdict is not Verdict.DEAD:
            self._metrics.retries.labels("in_place").inc()
            self._queue_of(stage).put_later(work, self._policy.delay_s(work.tries))
            return
        assert judgement.reason is not None
        work.pixels, work.vector, work.write, work.alone = None, None, None, False
        work.failure = Failure(
            judgement.reason, stage, type(error).__name__, _message(error, judgement), judgement.cause
        )
        if work.event is None or judgement.reason is Reason.EVENT_INVALID:
            self.give_up(work)
        else:
            self._lookup.put(work)  # somebody may have brought this version there meanwhile

    def give_up(self, work: Work) -> None:
        """Dead letter, then the note about the attempt, then the outcome."""
        failure = work.failure
        assert failure is not None
        letter = DeadLetter(
            reason=failure.reason,
            stage=failure.stage,
            error=failure.error,
            message=failure.message,
            attempts=work.tries,
            worker=self._worker,
            at_us=now_us(),
            collection=self._collection,
            cause=failure.cause,
        )
        self._metrics.dead_letters.labels(failure.reason.value).inc()
        self._dead_letters.report(letter, work.delivery, on_ack=lambda error: self._buried(work, error))

    def _buried(self, work: Work, error: DependencyError | None) -> None:
        if error is not None:
            self._crash(error)
            return
        event, failure = work.event, work.failure
        assert failure is not None
        if event is None or event.is_delete:
            self.outcome(work, OutcomeState.FAILED)
            return
        attempt = Attempt(event.version, AttemptState.FAILED, failure.reason, work.tries, now_us())
        work.write, work.becomes = Note(event.image_id, attempt), OutcomeState.FAILED
        self._write.put(work)

    def _finish(self, work: Work, state: OutcomeState, error: DependencyError | None) -> None:
        if error is not None:
            self._crash(error)
            return
        work.delivery.finish()
        self._metrics.events.labels(work.delivery.lane.value, state.value).inc()
        for stage, seconds in work.stage_s.items():
            self._metrics.stage(stage).observe(seconds)
        self._done()

    def _log(self, work: Work, error: Exception, stage: str, judgement: Judgement) -> None:
        event, delivery = work.event, work.delivery
        log.warning(
            "event failed" if judgement.verdict is Verdict.DEAD else "try failed",
            stage=stage,
            reason=judgement.reason,
            error=f"{type(error).__name__}: {error}"[:500],
            tries=work.tries,
            event_id=event.event_id if event else None,
            tenant_id=event.tenant_id if event else None,
            image_id=event.image_id if event else None,
            partition=delivery.partition,
            offset=delivery.offset,
        )


def _message(error: Exception, judgement: Judgement) -> str:
    """What a human reads; the traceback only where nobody expected the error."""
    if judgement.reason is Reason.INTERNAL_ERROR:
        return "".join(traceback.format_exception(error))[-4000:]
    return str(error)
