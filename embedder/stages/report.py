"""The end of every event: outcome acknowledged, then its offset finished. Before a failure: dead letter, note.

The order is the promise (docs/semantics.md): the retry record or dead letter is acknowledged before the
attempt is written, the outcome comes last, and only its acknowledgement finishes the offset.
"""

from __future__ import annotations

import logging
import time
import traceback
from collections.abc import Callable
from dataclasses import replace

import structlog

from embedder.index.points import Attempt, AttemptState, Note
from embedder.metrics import WorkerMetrics
from embedder.stages.breaker import DeadLetterBreaker
from embedder.stages.work import Failure, Work, WorkQueue
from embedder.verdict import Judgement, RetryPolicy, Verdict, judge
from streams.consume.retry import MAX_NOTE_CHARS, Attempted, RetryNote
from streams.errors import DependencyError, EventError, Reason, RecordTooLargeError
from streams.event import now_us
from streams.report.dead_letters import DeadLetter, DeadLetters
from streams.report.outcomes import Outcome, Outcomes, OutcomeState
from streams.report.retries import Retries
from streams.topics import Lane

log = structlog.get_logger(__name__)


class Report:
    """Called from every stage's thread. `done` is told when an event has left the worker."""

    def __init__(
        self,
        *,
        outcomes: Outcomes,
        retries: Retries,
        dead_letters: DeadLetters,
        breaker: DeadLetterBreaker,
        metrics: WorkerMetrics,
        policy: RetryPolicy,
        collection: str,
        engine: str,
        worker: str,
        lookup: WorkQueue,
        write: WorkQueue,
        queue_of: Callable[[str], WorkQueue],
        done: Callable[[Work], None],
        crash: Callable[[BaseException], None],
    ) -> None:
        """`queue_of` names the queue before a stage; `crash` ends the worker: its broker client is beyond repair."""
        self._outcomes = outcomes
        self._tells_each = log.is_enabled_for(logging.DEBUG)  # asked once: it is nothing per event
        self._retries = retries
        self._dead_letters = dead_letters
        self._breaker = breaker
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

    # ---- the last step of every event --------------------------------------------------------------

    def outcome(self, work: Work, state: OutcomeState) -> None:
        """Tell what became of the event, then finish it."""
        event, failure, delivery = work.event, work.failure, work.delivery
        freshness_s = None
        if event is not None and event.first_published_us is not None and work.applied_at_us is not None:
            freshness_s = max(0.0, (work.applied_at_us - event.first_published_us) / 1e6)
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
            message=failure.message[:MAX_NOTE_CHARS] if failure else None,
            stage_s={stage: int(seconds * 1e6) / 1e6 for stage, seconds in work.stage_s.items()},
            freshness_s=freshness_s,
            engine=self._engine if state is OutcomeState.INDEXED else None,
        )

        def acknowledged(error: DependencyError | None) -> None:
            if error is not None:
                self._crash(error)
                return
            delivery.finish()
            self._metrics.finished.record(delivery.lane.value, state.value, work.stage_s, freshness_s)
            if self._tells_each:
                log.debug("event finished", state=state, freshness_s=freshness_s, **_which(work))
            if state is not OutcomeState.FAILED and state is not OutcomeState.RETRYING:
                self._breaker.succeeded(on_trial=work.on_trial)
            self._done(work)

        traceparent = None if event is None else event.traceparent
        self._outcomes.report(outcome, key=delivery.key, traceparent=traceparent, on_ack=acknowledged)

    # ---- failures ----------------------------------------------------------------------------------

    def fail(self, work: Work, error: Exception, stage: str) -> None:
        """One try failed in `stage`: again in place, later, or given up."""
        if work.failure is not None:
            self._crash(error)  # reporting a failure failed: nothing in this process can be trusted to report it
            return
        now = time.monotonic()
        work.tries += 1
        if work.first_try_at is None:
            work.first_try_at = now
        work.mark(stage)
        later = self._retries.after(work.delivery.lane)
        judgement = self._judge(work, error, waited_s=now - work.first_try_at, later=later is not None)
        self._log(work, error, stage, judgement)
        if judgement.verdict in (Verdict.RETRY, Verdict.PAUSE):
            self._metrics.retries.labels("in_place").inc()
            self._queue_of(stage).put_later(work, self._policy.delay_s(work.tries))
            return
        assert judgement.reason is not None
        work.drop_contents()
        work.failure = Failure(
            judgement.reason,
            stage,
            type(error).__name__,
            _message(error, judgement),
            judgement.cause,
            later if judgement.verdict is Verdict.LATER else None,
        )
        if work.event is None or judgement.reason is Reason.EVENT_INVALID:
            self.give_up(work)
        else:
            self._lookup.put(work)  # somebody may have brought this version there meanwhile

    def _judge(self, work: Work, error: Exception, *, waited_s: float, later: bool) -> Judgement:
        if work.event is None and not isinstance(error, EventError):  # the parser broke: it will again
            return Judgement(Verdict.DEAD, Reason.INTERNAL_ERROR)
        return judge(error, tries=work.tries, waited_s=waited_s, policy=self._policy, later=later)

    def give_up(self, work: Work) -> None:
        """Retry record or dead letter, then the note about the attempt, then the outcome."""
        failure = work.failure
        assert failure is not None
        if failure.later is not None:
            self._try_later(work, failure, failure.later)
        elif self._breaker.may_bury(work, _tenant_of(work), failure.reason):
            self._bury(work, failure)

    def try_held_again(self) -> None:
        """What the breaker held goes through the worker once more; call it now and then."""
        for work in self._breaker.due():
            if work.event is None:
                self.give_up(work)
                continue
            work.start_again()
            work.on_trial = True
            self._lookup.put(work)

    def _try_later(self, work: Work, failure: Failure, lane: Lane) -> None:
        round_ = Attempted(
            at_us=now_us(),
            lane=work.delivery.lane.value,
            stage=failure.stage,
            reason=failure.reason.value,
            error=failure.error,
            message=failure.message[-MAX_NOTE_CHARS:],
            tries=work.tries,
            worker=self._worker,
        )
        note = RetryNote(work.note.tries + work.tries, (*work.note.history, round_))
        self._metrics.retries.labels(lane.value.removeprefix("retry.")).inc()

        def acknowledged(error: DependencyError | None) -> None:
            if isinstance(error, RecordTooLargeError):  # it cannot wait there: this was its last try
                work.failure = replace(failure, later=None)
                self.give_up(work)
                return
            self._given_up(work, AttemptState.RETRYING, OutcomeState.RETRYING, error)

        self._retries.report(work.delivery, lane, note, on_ack=acknowledged)

    def _bury(self, work: Work, failure: Failure) -> None:
        letter = DeadLetter(
            reason=failure.reason,
            stage=failure.stage,
            error=failure.error,
            message=failure.message,
            attempts=work.note.tries + work.tries,
            worker=self._worker,
            at_us=now_us(),
            collection=self._collection,
            cause=failure.cause,
            history=work.note.history,
        )
        self._metrics.dead_letters.labels(failure.reason.value).inc()

        def acknowledged(error: DependencyError | None) -> None:
            self._given_up(work, AttemptState.FAILED, OutcomeState.FAILED, error)

        self._dead_letters.report(letter, work.delivery, on_ack=acknowledged)

    def _given_up(
        self, work: Work, attempt_state: AttemptState, state: OutcomeState, error: DependencyError | None
    ) -> None:
        if error is not None:
            self._crash(error)
            return
        event, failure = work.event, work.failure
        assert failure is not None
        if event is None or event.is_delete:
            self.outcome(work, state)
            return
        tries = work.note.tries + work.tries
        attempt = Attempt(event.version, attempt_state, failure.reason, tries, now_us())
        work.write, work.becomes = Note(event.image_id, attempt), state
        self._write.put(work)

    def _log(self, work: Work, error: Exception, stage: str, judgement: Judgement) -> None:
        log.warning(
            "event failed" if judgement.verdict is Verdict.DEAD else "try failed",
            verdict=judgement.verdict,
            stage=stage,
            reason=judgement.reason,
            error=f"{type(error).__name__}: {error}"[:500],
            tries=work.tries,
            **_which(work),
        )


def _which(work: Work) -> dict[str, str | int | None]:
    """What finds the event again: in Kafka, in the index, in a trace."""
    event, delivery = work.event, work.delivery
    return {
        "event_id": event.event_id if event else None,
        "tenant_id": event.tenant_id if event else None,
        "image_id": event.image_id if event else None,
        "topic": delivery.topic,
        "partition": delivery.partition,
        "offset": delivery.offset,
        "traceparent": event.traceparent if event else None,
    }


def _message(error: Exception, judgement: Judgement) -> str:
    """What a human reads; the traceback only where nobody expected the error."""
    if judgement.reason is Reason.INTERNAL_ERROR:
        return "".join(traceback.format_exception(error))[-4000:]
    return str(error)


def _tenant_of(work: Work) -> str:
    """Of a record that is no event, what its key says."""
    if work.event is not None:
        return work.event.tenant_id
    return (work.delivery.key or b"").partition(b"/")[0][:63].decode(errors="replace")
