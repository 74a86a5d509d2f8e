"""One tenant floods the others, and a whole topic is read again: nobody starves, nothing is done twice."""

from __future__ import annotations

import statistics
import threading
import time
from collections.abc import Callable

import pytest

from streams.event import deleted
from streams.report.outcomes import Outcome
from streams.topics import Lane
from tests.chaos.broker import ChaosKafka
from tests.chaos.feed import TRUNCATED
from tests.chaos.row import Row
from tests.chaos.site import Site
from tests.waiting import wait_until

MakeSite = Callable[..., Site]
Judge = Callable[[Row], None]


class _Producer:
    """One tenant's arrivals at a steady rate, on a thread."""

    def __init__(self, here: Site, tenant: str, rate_per_s: float, seconds: float) -> None:
        self.ids: list[str] = []
        self._here, self._tenant, self._rate, self._seconds = here, tenant, rate_per_s, seconds
        self._thread = threading.Thread(target=self._run, name=f"feed-{tenant}")
        self._thread.start()

    def join(self) -> list[str]:
        self._thread.join()
        return self.ids

    def _run(self) -> None:
        started, n = time.monotonic(), 0
        while time.monotonic() < started + self._seconds:
            self.ids.append(self._here.feed.send(tenant=self._tenant).event_id)
            n += 1
            time.sleep(max(0.0, started + n / self._rate - time.monotonic()))


def _freshness_p95(here: Site, ids: list[str]) -> float:
    """Of these events, first publish to searchable, in seconds; waits until each has its outcome."""
    wait_until(lambda: here.outcomes.final(ids), timeout_s=120)
    told = here.outcomes.by_event()
    found = [one.freshness_s for event_id in ids for one in told[event_id] if one.freshness_s is not None]
    return statistics.quantiles(found, n=20)[-1]


@pytest.mark.full
@pytest.mark.timeout(600)
def test_19_tenant_flood(broker: ChaosKafka, site: MakeSite, judge: Judge) -> None:
    """19: one tenant sends three times what all workers can do, for 60 s; another goes on as before.

    Result: the flood is moved to bulk; the other tenant's freshness (p95) is at most twice what it was alone.
    """
    cost_ms, n_workers = 50.0, 2
    capacity = n_workers * 1000 / cost_ms
    with site(broker, n_workers=n_workers, cost_ms=cost_ms) as here:
        alone_s = _freshness_p95(here, _Producer(here, "bolt", 5, 60).join())
        flood = _Producer(here, "acme", 3 * capacity, 60)
        beside_s = _freshness_p95(here, _Producer(here, "bolt", 5, 60).join())
        flood.join()
        shunted = sum(worker.metric("lookalike_shunted_total") or 0 for worker in here.fleet.running)
        here.fleet.cost(0.0)  # the rest of the flood is of no interest
        row = here.finish(
            "19 tenant flood",
            reported={
                "solo_p95_s": round(alone_s, 2),
                "flooded_p95_s": round(beside_s, 2),
                "ratio": round(beside_s / alone_s, 2),
                "shunted": int(shunted),
            },
        )
        if beside_s > 2 * alone_s:
            row.refuse(f"freshness p95 went from {alone_s:.2f} to {beside_s:.2f} s")
        judge(row)


@pytest.mark.full
@pytest.mark.timeout(300)
def test_20_whole_topic_replayed_twice(broker: ChaosKafka, site: MakeSite, judge: Judge) -> None:
    """20: every record of the live topic is sent again, twice: created, changed, deleted and failed ones.

    Result: the same points as before; nothing is fetched that is indexed, deleted or superseded; a picture that
    failed is tried again.
    """
    n, n_bad = 400, 5
    with site(broker) as here:
        bad = here.feed.put("acme", "bad.jpg", TRUNCATED)
        events = [here.feed.send() for _ in range(n)]
        for _ in range(n_bad):
            here.feed.send(tenant="acme", place=bad, good=False)
        assert here.settle()
        for event in events[: n // 10]:
            here.feed.publish(deleted(event.tenant_id, event.image_id), good=False)
            here.feed.withdrawn(event.event_id)
        for event in events[n // 10 : n // 5]:
            here.feed.again(event, version=event.version + 1, tags=("changed",))
        assert here.settle()
        before, told = here.points(), len(here.outcomes)
        n_records = here.replay(Lane.LIVE, times=2)
        wait_until(lambda: len(here.outcomes) >= told + n_records, timeout_s=120)
        after = here.outcomes.all()[told:]
        row = here.finish("20 whole topic replayed twice", dead={"image_unreadable": 3 * n_bad})
        row.reported = {"replayed": n_records, "fetched_again": len(_fetched(after))}
        if here.points() != before:
            row.refuse("the points are not what they were")
        if _fetched(after):
            row.refuse(f"fetched again: {_fetched(after)[:3]}")
        judge(row)


def _fetched(outcomes: list[Outcome]) -> list[str]:
    """What was read from the bucket although nothing was to be done."""
    return [f"{one.image_id} {one.state.value}" for one in outcomes if "fetch" in one.stage_s and one.reason is None]
