"""From what went wrong to what happens next: one table (design §6)."""

from __future__ import annotations

import random
from collections.abc import Callable
from dataclasses import dataclass
from enum import StrEnum

from streams.errors import DependencyError, EventError, Reason, RetryableError


class Verdict(StrEnum):
    """What happens to an event after an exception (done is the absence of one)."""

    RETRY = "retry"
    """Again in place, in a moment."""
    LATER = "later"
    """Again from a retry topic, in half a minute or more."""
    DEAD = "dead"
    PAUSE = "pause"


@dataclass(frozen=True, slots=True)
class RetryPolicy:
    """How long one picture is tried in place. The last try starts no later than `window_s` after the first."""

    window_s: float = 5.0
    first_delay_s: float = 0.1
    max_delay_s: float = 2.0
    decoder_tries: int = 2
    """A decoder that hangs or crashes costs its time limit each time: once more, then never again."""
    unexpected_tries: int = 3
    jitter: Callable[[], float] = random.random

    def delay_s(self, tries: int) -> float:
        """The wait after try number `tries`: doubling, ± 50 % so that neighbours do not return together."""
        delay = min(self.max_delay_s, self.first_delay_s * 2.0 ** (tries - 1))
        return delay * (0.5 + self.jitter())


@dataclass(frozen=True, slots=True)
class Judgement:
    """The verdict; `reason` is the dead letter's or the note's, `cause` what `attempts_exhausted` stands for."""

    verdict: Verdict
    reason: Reason | None = None
    cause: Reason | None = None


_DECODER = frozenset({Reason.DECODER_TIMEOUT, Reason.DECODER_CRASHED})


def judge(error: Exception, *, tries: int, waited_s: float, policy: RetryPolicy, later: bool = False) -> Judgement:
    """What follows when try number `tries` (from 1), `waited_s` after the first, ended with `error`.

    `later`: there is a retry topic left for this event.
    """
    match error:
        case DependencyError():
            return Judgement(Verdict.PAUSE)
        case EventError(reason=reason):
            return Judgement(Verdict.DEAD, reason)
        case RetryableError(reason=reason) if reason in _DECODER:
            return _again(tries < policy.decoder_tries, reason)
        case RetryableError(reason=reason):
            in_time = waited_s + policy.delay_s(tries) < policy.window_s
            return _again(in_time, Reason.ATTEMPTS_EXHAUSTED, cause=reason, later=later)
        case _:
            return _again(tries < policy.unexpected_tries, Reason.INTERNAL_ERROR, later=later)


def _again(in_place: bool, reason: Reason, *, cause: Reason | None = None, later: bool = False) -> Judgement:
    if in_place or later:
        return Judgement(Verdict.RETRY if in_place else Verdict.LATER, cause or reason)
    return Judgement(Verdict.DEAD, reason, cause)
