"""Turns of tenants, and who is moved to bulk: no tenant starves another."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from streams.consume.fairness import BULK_EVERY, CALM_AFTER_S, FairQueue, LiveShares, RoundRobin

QUANTUM = 100


@dataclass(frozen=True)
class Item:
    """Something of a tenant's; `cost` as the queue counts it."""

    tenant_id: str
    cost: int = QUANTUM
    bulk: bool = False
    number: int = 0


@dataclass
class ManualClock:
    """Time that moves when told to."""

    now_s: float = 0.0

    def __call__(self) -> float:
        return self.now_s


def _queue() -> FairQueue[Item]:
    return FairQueue(lambda item: (item.bulk, item.tenant_id, item.cost), quantum=QUANTUM)


items = st.builds(Item, st.sampled_from("abcd"), st.integers(1, 5 * QUANTUM), st.booleans(), st.integers())


@settings(deadline=None)  # a busy machine is no failure
@given(st.lists(items, max_size=60))
def test_everything_comes_out_once_and_in_its_tenants_order(given_items: list[Item]) -> None:
    """Whatever is put in, it comes out exactly once; one tenant's items of one class keep their order."""
    queue = _queue()
    queue.extend(given_items)
    out = [queue.popleft() for _ in range(len(queue))]
    assert len(queue) == 0
    assert Counter(out) == Counter(given_items)
    for tenant in "abcd":
        for bulk in (False, True):
            own = [item for item in given_items if (item.tenant_id, item.bulk) == (tenant, bulk)]
            assert [item for item in out if (item.tenant_id, item.bulk) == (tenant, bulk)] == own


@settings(deadline=None)  # a busy machine is no failure
@given(
    st.dictionaries(st.sampled_from("abcde"), st.integers(1, 5 * QUANTUM), min_size=2),
    st.integers(20, 60),
)
def test_tenants_get_equal_cost_whatever_their_items_cost(costs: dict[str, int], n: int) -> None:
    """While all wait, no two tenants' served costs differ by more than a quantum and their largest item each."""
    queue: RoundRobin[str] = RoundRobin(quantum=QUANTUM)
    for tenant, cost in costs.items():
        for _ in range(n * 6 * QUANTUM // cost):
            queue.append(tenant, cost, tenant)
    served = Counter(dict.fromkeys(costs, 0))
    while max(served.values()) < n * QUANTUM:
        tenant = queue.popleft()
        served[tenant] += costs[tenant]
    spread = max(served.values()) - min(served.values())
    assert spread <= 2 * QUANTUM + 2 * max(costs.values())


def test_a_flood_in_hand_lets_the_next_tenant_through_at_once() -> None:
    """Behind a thousand of A, the one of B is the second to be taken."""
    queue = _queue()
    queue.extend(Item("a", number=n) for n in range(1000))
    queue.append(Item("b"))
    assert "b" in {queue.popleft().tenant_id for _ in range(2)}


def test_live_goes_first_and_bulk_is_never_left_out() -> None:
    """Of eight taken while both wait, seven are of live and one is of bulk."""
    queue = _queue()
    queue.extend(Item(tenant, bulk=bulk) for bulk in (True, False) for tenant in "ab" for _ in range(40))
    taken = [queue.popleft().bulk for _ in range(80)]
    assert taken.count(True) == 80 // BULK_EVERY
    assert all(any(taken[n : n + BULK_EVERY]) for n in range(0, 80, BULK_EVERY))


@pytest.mark.parametrize("after", range(40))
def test_whoever_comes_now_and_then_never_finds_the_turn_of_bulk_due(after: int) -> None:
    """Beside a flood in both classes, whenever the one of B comes it is the next to be taken."""
    queue = _queue()
    queue.extend(Item("a", bulk=bulk) for bulk in (True, False) for _ in range(80))
    for _ in range(after):
        queue.popleft()
    queue.append(Item("b"))
    assert queue.popleft().tenant_id == "b"


def _fill(shares: LiveShares, tenant: str, n: int, *, window: int = 10) -> list[bool]:
    return [shares.enter(tenant, window=window, behind=True) for _ in range(n)]


def test_above_its_share_for_long_enough_it_is_moved_and_others_are_not() -> None:
    """A tenant may fill the window at first; two seconds later what is above its share is moved."""
    clock = ManualClock()
    shares = LiveShares(share=0.5, after_s=2.0, clock=clock)
    assert all(_fill(shares, "a", 10))
    clock.now_s = 2.1
    assert shares.shunting
    assert not shares.enter("a", window=10, behind=True)
    assert shares.enter("b", window=10, behind=True)


def test_it_keeps_its_share_of_live_while_it_is_moved() -> None:
    """As its events are done, a tenant that is being moved gets new ones up to its share and no further."""
    clock = ManualClock()
    shares = LiveShares(share=0.5, after_s=2.0, clock=clock)
    _fill(shares, "a", 8)
    for clock.now_s in (1.5, 3.0):
        shares.enter("a", window=10, behind=True)
    for _ in range(5):
        shares.leave("a")
    assert _fill(shares, "a", 3) == [True, False, False]


def test_calm_again_it_returns_to_live() -> None:
    """Two seconds below its share, a tenant is treated as if nothing had been."""
    clock = ManualClock()
    shares = LiveShares(share=0.5, after_s=2.0, clock=clock)
    _fill(shares, "a", 8)
    clock.now_s = 2.0
    assert not shares.enter("a", window=10, behind=True)
    for _ in range(8):
        shares.leave("a")
    clock.now_s = 2.1 + CALM_AFTER_S
    shares.tend()
    assert not shares.shunting
    assert all(_fill(shares, "a", 8))


def test_who_fills_the_window_is_not_calm() -> None:
    """A tenant whose events fill the window for seconds, so that none can be taken, is moved at the next chance."""
    clock = ManualClock()
    shares = LiveShares(share=0.5, after_s=2.0, clock=clock)
    assert all(_fill(shares, "a", 10))
    for step in range(1, 21):  # all of them wait for the index
        clock.now_s = step * CALM_AFTER_S / 10
        shares.tend()
    assert shares.shunting
    for _ in range(10):
        shares.leave("a")
    assert _fill(shares, "a", 10) == [True] * 5 + [False] * 5


def test_nobody_is_moved_while_live_does_not_wait() -> None:
    """A tenant alone on an idle cluster may have everything: there is nobody to be kept waiting."""
    clock = ManualClock()
    shares = LiveShares(share=0.5, after_s=2.0, clock=clock)
    for _ in range(10):
        clock.now_s += 1.0
        assert shares.enter("a", window=10, behind=False)


def test_several_equal_tenants_are_not_moved() -> None:
    """Where everybody sends the same and everybody is late, moving anybody would help nobody."""
    clock = ManualClock()
    shares = LiveShares(share=0.5, after_s=2.0, clock=clock)
    for step in range(40):
        clock.now_s = step * 0.25
        tenant = "abcd"[step % 4]
        assert shares.enter(tenant, window=16, behind=True)
        if step >= 12:
            shares.leave("abcd"[(step - 12) % 4])


def test_popping_nothing_is_an_error() -> None:
    """An empty queue says so, as a deque does."""
    with pytest.raises(IndexError):
        _queue().popleft()
