"""The breaker on dead letters: opens on what smells of a bad deploy, never on one tenant's bad pictures."""

from __future__ import annotations

from dataclasses import dataclass

from embedder.stages.breaker import PROBE_EVERY_S, SPAN_S, DeadLetterBreaker
from embedder.stages.work import Work
from streams.consume.offsets import PartitionOffsets
from streams.consume.source import Delivery
from streams.errors import Reason
from streams.topics import Lane


@dataclass
class ManualClock:
    """Time that moves when told to."""

    now_s: float = 0.0

    def __call__(self) -> float:
        return self.now_s


def _work() -> Work:
    delivery = Delivery(Lane.LIVE, "t", 0, 0, b"", b"", [], 0, PartitionOffsets("t", 0))
    return Work(delivery, None)


class Bench:
    """A breaker with a limit of 30 and what it said."""

    def __init__(self, limit: int = 30) -> None:
        self.clock = ManualClock()
        self.told: list[bool] = []
        self.breaker = DeadLetterBreaker(limit=limit, on_change=self.told.append, clock=self.clock)

    def fail(self, n: int, tenants: str, reason: Reason = Reason.IMAGE_UNREADABLE) -> int:
        """How many of `n` failures, in turn of these tenants, became dead letters."""
        return sum(self.breaker.may_bury(_work(), tenants[i % len(tenants)], reason) for i in range(n))


def test_one_tenant_with_only_bad_pictures_never_opens_it() -> None:
    """Ten thousand bad pictures of one tenant, a few of two others: all are dead-lettered."""
    bench = Bench()
    assert bench.fail(9, "bc") == 9
    assert bench.fail(10_000, "a") == 10_000
    assert bench.told == []


def test_everything_fails_for_everybody_opens_it_at_the_limit() -> None:
    """All pictures of three tenants fail: no more than the limit is dead-lettered, the rest is held."""
    bench = Bench()
    assert bench.fail(100, "abc") == 29
    assert bench.told == [True]
    assert bench.breaker.held == 71


def test_internal_errors_open_it_whoever_they_belong_to() -> None:
    """A bug is not a tenant's fault: internal errors count without being spread."""
    bench = Bench()
    assert bench.fail(40, "a", Reason.INTERNAL_ERROR) == 29
    assert bench.breaker.open


def test_failures_among_more_successes_are_dead_letters() -> None:
    """One per cent poison of many tenants is everyday life."""
    bench = Bench()
    for _ in range(200):
        for _ in range(99):
            bench.breaker.succeeded(on_trial=False)
        assert bench.fail(1, "abcdefgh") == 1
    for tenant in "abcdefgh" * 50:
        for _ in range(9):
            bench.breaker.succeeded(on_trial=False)
        assert bench.fail(1, tenant) == 1


def test_failures_of_long_ago_do_not_count() -> None:
    """Thirty failures over half an hour are no outbreak."""
    bench = Bench()
    for _ in range(10):
        assert bench.fail(29, "abc") == 29
        bench.clock.now_s += SPAN_S + 1


def test_what_is_held_is_tried_again_and_its_success_closes_it() -> None:
    """Every half minute what is held goes round again; the first success releases everything."""
    bench = Bench()
    bench.fail(40, "abc")
    assert bench.breaker.due() == []
    bench.clock.now_s += PROBE_EVERY_S
    assert len(bench.breaker.due()) == 11
    bench.breaker.succeeded(on_trial=False)
    assert bench.breaker.open
    bench.fail(5, "abc")
    bench.breaker.succeeded(on_trial=True)
    assert bench.told == [True, False]
    assert len(bench.breaker.due()) == 5
    assert bench.fail(10, "abc") == 10


def test_limit_zero_switches_it_off() -> None:
    """An operator who wants everything dead-lettered gets it."""
    assert Bench(limit=0).fail(1000, "abc", Reason.INTERNAL_ERROR) == 1000
