"""Pictures that can never be indexed, few and many, and decoders that hang or crash: they stop nobody else."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable

import pytest

from streams.report.outcomes import OutcomeState
from tests.chaos.broker import ChaosKafka
from tests.chaos.feed import GOOD, TRUNCATED
from tests.chaos.row import Row
from tests.chaos.rowdy_child import CRASH, HANG
from tests.chaos.site import Site
from tests.waiting import wait_until

MakeSite = Callable[..., Site]
Judge = Callable[[Row], None]
UNREADABLE = "image_unreadable"
LOSS_THAT_IS_NO_NOISE = 0.35
"""The promise is 5 %; what a busy machine adds to a run of some seconds is many times that."""


def _throughput(here: Site, n: int, *, bad_every: int | None) -> float:
    """Events a second, from the first send to the last outcome; each `bad_every`th picture is cut off."""
    bad = [here.feed.put(tenant, "bad.jpg", TRUNCATED) for tenant in here.feed.tenants]
    before, started = len(here.outcomes), time.monotonic()
    for number in range(n):
        if bad_every is not None and number % bad_every == 0:
            which = (number // bad_every) % len(bad)
            here.feed.send(tenant=here.feed.tenants[which], place=bad[which], good=False)
        else:
            here.feed.send()
    wait_until(lambda: len(here.outcomes) >= before + n, timeout_s=120)
    return n / (time.monotonic() - started)


@pytest.mark.full
@pytest.mark.timeout(600)
def test_15_one_percent_poison(broker: ChaosKafka, site: MakeSite, judge: Judge) -> None:
    """15: one picture in a hundred is truncated; runs without and with them alternate.

    Result: one dead letter each, neighbours untouched; the loss of throughput is reported (the promise: at most 5 %).
    """
    n, rounds = 1500, 3
    with site(broker, n_workers=2, cost_ms=4.0) as here:
        _throughput(here, 200, bad_every=None)
        clean, poisoned = list[float](), list[float]()
        for _ in range(rounds):
            clean.append(_throughput(here, n, bad_every=None))
            poisoned.append(_throughput(here, n, bad_every=100))
        loss = 1 - statistics.median(poisoned) / statistics.median(clean)
        row = here.finish(
            "15 1 % poison",
            dead={UNREADABLE: rounds * n // 100},
            reported={
                "loss_percent": round(100 * loss, 1),
                "clean_per_s": " ".join(f"{one:.0f}" for one in clean),
                "poisoned_per_s": " ".join(f"{one:.0f}" for one in poisoned),
            },
        )
        if loss > LOSS_THAT_IS_NO_NOISE:
            row.refuse(f"poison costs {loss:.0%} of the throughput")
        judge(row)


@pytest.mark.full
@pytest.mark.timeout(300)
def test_16_one_tenant_all_bad(broker: ChaosKafka, site: MakeSite, judge: Judge) -> None:
    """16: every picture of one tenant is truncated, more of them than the dead-letter breaker allows in all.

    Result: each has its dead letter, no worker's breaker opens, the other tenants' pictures are indexed.
    """
    n = 300
    with site(broker) as here:
        bad = here.feed.put("acme", "bad.jpg", TRUNCATED)
        for _ in range(n):
            here.feed.send(tenant="acme", place=bad, good=False)
            here.feed.send(tenant="bolt")
            here.feed.send(tenant="core")
        here.settle()
        ready = [worker.ready() for worker in here.fleet.running]
        row = here.finish("16 one tenant all bad", dead={UNREADABLE: n}, reported={"ready": str(ready)})
        if not all(ready):
            row.refuse(f"readiness is {ready}")
        judge(row)


@pytest.mark.full
@pytest.mark.timeout(300)
def test_17_everything_bad(broker: ChaosKafka, site: MakeSite, judge: Judge) -> None:
    """17: every picture of every tenant is bad, as after a bad deploy; then the pictures are mended.

    Result: each worker stops dead-lettering at its limit, holds the rest and is not ready; once pictures can be
    read again, what was held is indexed.
    """
    limit = 20
    with site(broker, env={"LOOKALIKE_WORKER_DEAD_LETTER_LIMIT": str(limit)}) as here:
        places = {tenant: here.feed.put(tenant, "bad.jpg", TRUNCATED) for tenant in here.feed.tenants}
        for n in range(600):
            tenant = here.feed.tenants[n % len(here.feed.tenants)]
            here.feed.send(tenant=tenant, place=places[tenant])
        wait_until(lambda: all(worker.ready() is False for worker in here.fleet.running), timeout_s=60)
        opened = [worker.metric("lookalike_dead_letter_breaker") for worker in here.fleet.running]
        time.sleep(5)
        buried = sum(here.dead_letters().values())
        time.sleep(5)
        still = sum(here.dead_letters().values())
        for tenant in here.feed.tenants:
            here.feed.put(tenant, "bad.jpg", GOOD[0])
        here.fault_at = time.monotonic()
        resume_s = here.until_more(buried, timeout_s=90)
        here.settle()
        here.feed.given_up(
            {event_id for event_id, told in here.outcomes.by_event().items() if told[-1].state is OutcomeState.FAILED}
        )
        row = here.finish(
            "17 everything bad, then mended",
            dead={UNREADABLE: still},
            resume_s=resume_s,
            reported={"dead_letters": still, "breakers_open": int(sum(one or 0 for one in opened))},
        )
        if still != buried or still > len(here.outcomes.by_event()) // 2:
            row.refuse(f"{buried} dead letters, then {still}: the breaker does not hold")
        if not all(opened):
            row.refuse(f"breakers are {opened}")
        judge(row)


@pytest.mark.full
@pytest.mark.timeout(300)
def test_18_rowdy_decoders(broker: ChaosKafka, site: MakeSite, judge: Judge) -> None:
    """18: among good pictures some hang their decode child for ever and some crash it.

    Result: each costs two children and ends as one dead letter with its reason; no worker ends, nothing else waits.
    """
    n = 5
    with site(broker, n_workers=2, rowdy=True, env={"LOOKALIKE_DECODE_TIMEOUT_S": "1"}) as here:
        hang = here.feed.put("acme", "hang.jpg", GOOD[0] + HANG)
        crash = here.feed.put("bolt", "crash.jpg", GOOD[0] + CRASH)
        for _ in range(n):
            here.feed.send(tenant="acme", place=hang, good=False)
            here.feed.send(tenant="bolt", place=crash, good=False)
            for _ in range(40):
                here.feed.send()
        before = [worker.pid for worker in here.fleet.running]
        here.settle()
        assert [worker.pid for worker in here.fleet.running] == before
        judge(here.finish("18 hanging and crashing decoders", dead={"decoder_timeout": n, "decoder_crashed": n}))
