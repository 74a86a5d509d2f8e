"""Workers are killed, stopped, frozen and joined while events come: nothing is lost, little is repeated."""

from __future__ import annotations

import random
import signal
import time
from collections.abc import Callable

import pytest

from embedder.watchdog import EXIT_STUCK
from tests.chaos.broker import ChaosKafka
from tests.chaos.refused_commits import RefusedCommits
from tests.chaos.row import Row
from tests.chaos.site import Site
from tests.waiting import wait_until

MakeSite = Callable[..., Site]
Judge = Callable[[Row], None]
RATE = 90.0
FOR_EVER_MS = 3_600_000.0
COST_MS = 25.0
"""Three workers can do some 100 a second, less while they die: each has its hands full when it is hit."""


def _storm_over(here: Site) -> float:
    """Seconds until everything was owned; what has piled up is then worked off quickly."""
    owned_after_s = here.owned_after_s()
    here.fleet.cost(2.0)
    return owned_after_s


@pytest.mark.timeout(600)
def test_01_kill_9(broker: ChaosKafka, site: MakeSite, judge: Judge, full: bool) -> None:
    """1: every 2.7 s one of three workers is killed with -9, 20 times, and another one started.

    Result: nothing lost; repeated is at most what the killed ones had in flight or finished since their last commit.
    """
    order = random.Random(1)
    with site(broker, cost_ms=COST_MS) as here:
        here.feed.start(RATE)
        for _ in range(20 if full else 3):
            time.sleep(2.7)
            here.kill(order.choice(here.fleet.running))
            here.fleet.join()
        owned_after_s = _storm_over(here)
        judge(here.finish("01 kill -9 of workers", owned_after_s=owned_after_s))


@pytest.mark.timeout(600)
def test_02_sigterm_storm(broker: ChaosKafka, site: MakeSite, judge: Judge, full: bool) -> None:
    """2: a rolling deploy: the oldest of three workers is asked to end and a new one started, 13 times.

    Result: nothing lost, nothing repeated, every worker ends with 0.
    """
    with site(broker, cost_ms=COST_MS) as here:
        here.feed.start(RATE)
        for _ in range(13 if full else 3):
            time.sleep(1.5)
            here.terminate(here.fleet.running[0])
            here.fleet.join()
        owned_after_s = _storm_over(here)
        judge(here.finish("02 SIGTERM storm", owned_after_s=owned_after_s))


@pytest.mark.full
@pytest.mark.timeout(600)
def test_03_mixed(broker: ChaosKafka, site: MakeSite, judge: Judge) -> None:
    """3: kill -9, SIGTERM and SIGSTOP for 3 s (half a session) hit workers at random, 14 times.

    Result: nothing lost; only what a kill -9 hit may be repeated.
    """
    order = random.Random(3)
    with site(broker, cost_ms=COST_MS) as here:
        here.feed.start(RATE)
        for _ in range(14):
            time.sleep(1.5)
            victim, what = order.choice(here.fleet.running), order.choice(("kill", "term", "stop"))
            if what == "stop":
                victim.send(signal.SIGSTOP)
                time.sleep(3)
                victim.send(signal.SIGCONT)
                continue
            (here.kill if what == "kill" else here.terminate)(victim)
            here.fleet.join()
        owned_after_s = _storm_over(here)
        judge(here.finish("03 mixed storm", owned_after_s=owned_after_s))


@pytest.mark.full
@pytest.mark.timeout(600)
def test_04_joins_and_leaves(broker: ChaosKafka, site: MakeSite, judge: Judge) -> None:
    """4: every 2 s a worker joins or leaves in order, for a minute.

    Result: nothing lost, nothing repeated; the throughput is reported.
    """
    with site(broker, cost_ms=COST_MS) as here:
        here.feed.start(RATE)
        before = len(here.outcomes)
        for n in range(30):
            time.sleep(2.0)
            if n % 2 == 0:
                here.fleet.join()
            else:
                here.terminate(here.fleet.running[0])
        done = (len(here.outcomes) - before) / 60
        owned_after_s = _storm_over(here)
        row = here.finish(
            "04 joins and leaves every 2 s",
            owned_after_s=owned_after_s,
            reported={"events_per_s_meanwhile": round(done, 1), "sent_per_s": RATE},
        )
        judge(row)


@pytest.mark.full
@pytest.mark.timeout(300)
def test_05_batch_longer_than_the_drain(broker: ChaosKafka, site: MakeSite, judge: Judge) -> None:
    """5: a second worker joins while the first embeds a picture for 9 s, longer than a revoke waits (5 s).

    Result: nothing lost; at most what it held is repeated, and the slow worker goes on with what it kept.
    """
    with site(broker, n_workers=0, partitions=2) as here:
        slow = here.fleet.join(cost_ms=9000, LOOKALIKE_WORKER_MAX_BATCH="1")
        here.until_owned(timeout_s=30)
        for _ in range(8):
            here.feed.send()
        wait_until(lambda: (slow.metric("lookalike_in_flight", kind="events") or 0) >= 7)
        here.hit([slow], here.fleet.join)
        owned_after_s = here.owned_after_s()
        row = here.finish("05 batch longer than the drain", owned_after_s=owned_after_s)
        assert {one.worker for one in here.outcomes.all()} == {"w1", "w2"}, "all was drained: nothing was taken over"
        judge(row)


@pytest.mark.timeout(300)
def test_06_refused_commits(broker: ChaosKafka, site: MakeSite, judge: Judge, full: bool) -> None:
    """6: for some seconds the broker refuses every commit, because its request carries a wrong member epoch.

    Result: no commit is believed that was refused: when they are accepted again, every mark arrives; nothing is
    lost or repeated.
    """
    refused = RefusedCommits()
    with broker.proxy(refused), site(broker, bootstrap=broker.proxied) as here:
        here.feed.start(RATE)
        here.until_more(60)
        refused.on = True
        wait_until(lambda: refused.spoiled > 6)  # the second round of three workers: the last good one has arrived
        marks, before = here.group.committed(), refused.spoiled
        time.sleep(8 if full else 4)
        assert refused.spoiled > before, "no commit was asked for again"
        assert here.group.committed() == marks, "a commit was accepted after all"
        refused.on = False
        here.fault_at = time.monotonic()
        owned_after_s = here.owned_after_s()
        judge(here.finish("06 refused commits", owned_after_s=owned_after_s, reported={"refused": refused.spoiled}))


@pytest.mark.timeout(300)
def test_07_zombie(broker: ChaosKafka, site: MakeSite, judge: Judge) -> None:
    """7: a worker is frozen (SIGSTOP) for twice the session and goes on (SIGCONT) when others have its partitions.

    Result: nothing lost; no commit ever goes back; repeated is at most what it held; it comes back as a member.
    """
    with site(broker, cost_ms=COST_MS) as here:
        here.feed.start(RATE)
        here.until_more(60)
        zombie = here.fleet.running[0]
        here.freeze(zombie)
        time.sleep(2 * broker.session_s)
        mine = here.group.committed()
        zombie.send(signal.SIGCONT)
        here.fault_at = time.monotonic()
        owned_after_s = here.owned_after_s()
        assert all(here.group.committed().get(place, 0) >= mark for place, mark in mine.items())
        assert "partitions lost" in zombie.log.read_text(), "it never learned what happened"
        judge(here.finish("07 SIGSTOP for twice the session", owned_after_s=owned_after_s))


@pytest.mark.timeout(300)
def test_24_hung_network(broker: ChaosKafka, site: MakeSite, judge: Judge) -> None:
    """24: the network of one worker hangs for ever while its poll thread goes on; the watchdog waits 3 s here.

    Result: it ends with 70 and the stack of what hung; nothing lost; repeated is at most what it held.
    """
    with site(broker, n_workers=2) as here:
        here.feed.start(RATE)
        here.until_more(60)
        hung = here.fleet.join(cost_ms=FOR_EVER_MS, LOOKALIKE_WORKER_WATCHDOG_S="3")
        here.until_fallen(hung)
        assert hung.exit_code == EXIT_STUCK
        assert "in embed" in hung.log.read_text(), "it does not say where it hung"
        here.fleet.join()
        owned_after_s = here.owned_after_s()
        judge(here.finish("24 a network that hangs", owned_after_s=owned_after_s))
