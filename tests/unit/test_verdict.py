"""From an exception to what happens next: every row of the table."""

from __future__ import annotations

import pytest

from embedder.verdict import Judgement, RetryPolicy, Verdict, judge
from streams.errors import DependencyError, EventError, Reason, RetryableError

POLICY = RetryPolicy(jitter=lambda: 0.5)


@pytest.mark.parametrize("reason", list(Reason))
def test_event_error_is_dead_at_once(reason: Reason) -> None:
    """An event that can never work is dead-lettered with its own reason on the first try."""
    assert judge(EventError(reason, "no"), tries=1, waited_s=0.0, policy=POLICY) == Judgement(Verdict.DEAD, reason)


def test_missing_object_is_tried_until_the_window_ends_then_exhausted() -> None:
    """A transient failure ends as attempts_exhausted, and the cause is kept."""
    error = RetryableError(Reason.IMAGE_MISSING, "not there yet")
    assert judge(error, tries=1, waited_s=0.0, policy=POLICY) == Judgement(Verdict.RETRY, Reason.IMAGE_MISSING)
    over = judge(error, tries=6, waited_s=4.0, policy=POLICY)
    assert over == Judgement(Verdict.DEAD, Reason.ATTEMPTS_EXHAUSTED, Reason.IMAGE_MISSING)


def test_waits_add_up_to_no_more_than_the_window() -> None:
    """However often it is tried, the last try starts within the window."""
    error = RetryableError(Reason.IMAGE_MISSING, "not there yet")
    waited_s, tries = 0.0, 1
    while judge(error, tries=tries, waited_s=waited_s, policy=POLICY).verdict is Verdict.RETRY:
        waited_s += POLICY.delay_s(tries)
        tries += 1
    assert 3 <= tries <= 10
    assert waited_s <= POLICY.window_s


@pytest.mark.parametrize("reason", [Reason.DECODER_TIMEOUT, Reason.DECODER_CRASHED])
def test_lost_decoder_is_tried_once_more_and_keeps_its_reason(reason: Reason) -> None:
    """A picture that hangs or crashes the decoder costs two children, never a crash loop."""
    error = RetryableError(reason, "child gone")
    assert judge(error, tries=1, waited_s=0.0, policy=POLICY) == Judgement(Verdict.RETRY, reason)
    assert judge(error, tries=2, waited_s=10.0, policy=POLICY) == Judgement(Verdict.DEAD, reason)


def test_dependency_error_pauses_and_never_dead_letters() -> None:
    """An outage says nothing about the event, however long it lasts."""
    error = DependencyError("index", "connection refused")
    assert judge(error, tries=999, waited_s=1e6, policy=POLICY) == Judgement(Verdict.PAUSE)


def test_unexpected_error_is_tried_again_then_internal_error() -> None:
    """What nobody expected is tried a few times and ends as internal_error."""
    error = ZeroDivisionError("x")
    assert judge(error, tries=1, waited_s=0.0, policy=POLICY).verdict is Verdict.RETRY
    assert judge(error, tries=3, waited_s=0.0, policy=POLICY) == Judgement(Verdict.DEAD, Reason.INTERNAL_ERROR)


def test_delays_double_up_to_a_limit_and_are_spread() -> None:
    """The wait doubles from 0.1 s to 2 s, give or take half, so neighbours do not return together."""
    low, high = RetryPolicy(jitter=lambda: 0.0), RetryPolicy(jitter=lambda: 1.0)
    assert [low.delay_s(n) for n in (1, 2, 3, 10)] == pytest.approx([0.05, 0.1, 0.2, 1.0])
    assert [high.delay_s(n) for n in (1, 2, 3, 10)] == pytest.approx([0.15, 0.3, 0.6, 3.0])
