"""Broker, index and bucket die, stop, hang and come back, and their connections are cut: nothing is dead-lettered."""

from __future__ import annotations

import signal
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from lookalike.local.kafka import LocalKafka
from tests.chaos.broker import ChaosKafka
from tests.chaos.fleet import WorkerProcess
from tests.chaos.proxy import Proxy
from tests.chaos.row import Row
from tests.chaos.site import Site
from tests.waiting import wait_until

MakeSite = Callable[..., Site]
Judge = Callable[[Row], None]
RATE = 60.0


def _back(here: Site, come_back: Callable[[], object]) -> float:
    """End an outage; seconds until the first outcomes that could not have been on their way before."""
    come_back()
    here.fault_at = time.monotonic()
    return here.until_more(10)


def _paused(here: Site, cause: str) -> Callable[[], bool]:
    """Whether every worker says that it waits for this dependency."""
    return lambda: all(worker.metric("lookalike_paused", cause=cause) == 1 for worker in here.fleet.running)


def _waits_for_broker(worker: WorkerProcess) -> bool:
    """Whether it says so; one with nothing in flight has nothing to wait for."""
    return worker.metric("lookalike_paused", cause="broker") == 1 or not worker.metric(
        "lookalike_in_flight", kind="events"
    )


def _in_flight(here: Site) -> list[int]:
    """Events in each worker's hands."""
    return [int(worker.metric("lookalike_in_flight", kind="events") or 0) for worker in here.fleet.running]


def _until_still(here: Site) -> list[int]:
    """Wait until nobody's events in flight have changed for 2 s: what was fetched before the pause has come."""
    held, since = _in_flight(here), time.monotonic()

    def still() -> bool:
        nonlocal held, since
        if (now := _in_flight(here)) != held:
            held, since = now, time.monotonic()
        return time.monotonic() - since > 2.0

    wait_until(still)
    return held


def _start(broker: LocalKafka) -> Callable[[], None]:
    def start() -> None:
        broker.start()
        broker.wait_ready()

    return start


@pytest.mark.timeout(600)
def test_08_broker_killed(patient_broker: ChaosKafka, site: MakeSite, judge: Judge, full: bool) -> None:
    """8: the broker is killed with -9 and comes back after 15 s on its data; producers and workers wait for it.

    Result: every event is there, nothing is repeated, work goes on by itself.
    """
    with site(patient_broker) as here:
        here.feed.start(RATE)
        here.until_more(120)
        here.hit(here.fleet.running, patient_broker.kill)
        time.sleep(15 if full else 4)
        here.count_again(here.fleet.running)
        resume_s = _back(here, _start(patient_broker))
        time.sleep(5)
        owned_after_s = here.owned_after_s()
        judge(here.finish("08 broker kill -9, back on its data", owned_after_s=owned_after_s, resume_s=resume_s))


@pytest.mark.full
@pytest.mark.timeout(600)
def test_09_broker_stopped(patient_broker: ChaosKafka, site: MakeSite, judge: Judge) -> None:
    """9: the broker is stopped in order for 60 s, longer than the session (45 s).

    Result: nothing lost, workers say `paused`, memory flat, work goes on by itself.
    """
    with site(patient_broker) as here:
        here.feed.start(RATE)
        here.until_more(120)
        before_mb = max(worker.rss_mb for worker in here.fleet.running)
        here.hit(here.fleet.running, patient_broker.stop)
        stopped_at = time.monotonic()
        wait_until(lambda: all(map(_waits_for_broker, here.fleet.running)))
        held = _until_still(here)
        time.sleep(max(0.0, stopped_at + 60 - time.monotonic()))
        assert _in_flight(here) == held, "nothing is taken while the broker acknowledges nothing"
        grown_mb = max(worker.rss_mb for worker in here.fleet.running) - before_mb
        here.count_again(here.fleet.running)
        resume_s = _back(here, _start(patient_broker))
        owned_after_s = here.owned_after_s()
        row = here.finish(
            "09 broker stopped 60 s",
            owned_after_s=owned_after_s,
            resume_s=resume_s,
            reported={"rss_grown_mb": round(grown_mb)},
        )
        judge(row)


@pytest.mark.timeout(600)
def test_10_index_stopped(broker: ChaosKafka, site: MakeSite, judge: Judge, full: bool) -> None:
    """10: the index process is stopped, killed with -9 and frozen, one after the other.

    Result: workers say `paused`, keep their partitions and their memory, dead-letter nothing, and go on by themselves.
    """
    with site(broker) as here:
        here.feed.start(RATE)
        here.until_more(60)
        before_mb = max(worker.rss_mb for worker in here.fleet.running)
        here.index.stop()
        wait_until(_paused(here, "index"))
        held = _until_still(here)
        time.sleep(20 if full else 3)
        in_flight = _in_flight(here)
        assert in_flight == held, "nothing is taken while the index is away"
        grown_mb = max(worker.rss_mb for worker in here.fleet.running) - before_mb
        resume_s = _back(here, here.index.start)
        here.index.kill()
        wait_until(_paused(here, "index"))
        _back(here, here.index.start)
        if full:
            here.index.send(signal.SIGSTOP)
            wait_until(_paused(here, "index"), timeout_s=90)
            _back(here, lambda: here.index.send(signal.SIGCONT))
        owned_after_s = here.owned_after_s()
        row = here.finish(
            "10 index stopped, killed, frozen",
            owned_after_s=owned_after_s,
            resume_s=resume_s,
            reported={"in_flight_max": max(in_flight), "rss_grown_mb": round(grown_mb)},
        )
        judge(row)


@pytest.mark.full
@pytest.mark.timeout(600)
def test_11_index_slow(broker: ChaosKafka, site: MakeSite, judge: Judge) -> None:
    """11: for 30 s each write call takes the index 2 s, and everything behind it waits.

    Result: nothing lost, repeated or dead-lettered; the workers keep their partitions; it is made up for afterwards.
    """
    with site(broker) as here:
        here.feed.start(RATE)
        here.until_more(60)
        here.index.slow(2.0)
        time.sleep(30)
        slow = len(here.outcomes)
        resume_s = _back(here, lambda: here.index.slow(None))
        owned_after_s = here.owned_after_s()
        row = here.finish(
            "11 index slow, 2 s a write",
            owned_after_s=owned_after_s,
            resume_s=resume_s,
            reported={"outcomes_while_slow": slow},
        )
        judge(row)


@pytest.mark.timeout(600)
def test_12_bucket_stopped(broker: ChaosKafka, site: MakeSite, judge: Judge, full: bool) -> None:
    """12: the folder that holds the buckets is not there for a while.

    Result: workers say `paused`, dead-letter nothing, and go on by themselves.
    """
    with site(broker, cost_ms=25.0) as here:  # outcomes come with the flushes, seconds apart: most is left by then
        for _ in range(600):
            here.feed.send()  # the feed stores nothing: only workers miss the bucket
        here.until_more(60)
        aside = here.objects.with_name("aside")
        here.objects.rename(aside)
        wait_until(_paused(here, "bucket"))
        time.sleep(15 if full else 3)
        resume_s = _back(here, lambda: Path(aside).rename(here.objects))
        owned_after_s = here.owned_after_s()
        judge(here.finish("12 bucket stopped", owned_after_s=owned_after_s, resume_s=resume_s))


@pytest.mark.timeout(600)
def test_13_broker_connections_cut(broker: ChaosKafka, site: MakeSite, judge: Judge, full: bool) -> None:
    """13: every connection between workers and broker is cut: for 2 s, and for twice the session.

    Result: nothing lost or dead-lettered; after the long cut every member was thrown out, and at most what they
    held then is repeated.
    """
    with broker.proxy() as proxy, site(broker, bootstrap=broker.proxied) as here:
        here.feed.start(RATE)
        for cut_s in (2, 2 * broker.session_s) if full else (2 * broker.session_s,):
            here.until_more(60)
            here.hit(here.fleet.running, proxy.cut)
            time.sleep(cut_s)
            here.count_again(here.fleet.running)
            resume_s = _back(here, proxy.mend)
        owned_after_s = here.owned_after_s()
        judge(here.finish("13 worker–broker cut", owned_after_s=owned_after_s, resume_s=resume_s))


@pytest.mark.full
@pytest.mark.timeout(600)
def test_14_index_connections_cut(broker: ChaosKafka, site: MakeSite, judge: Judge, tmp_path: Path) -> None:
    """14: the workers' connections to the index are cut in the middle of writes, again and again.

    Result: nothing lost, repeated or dead-lettered: a write that was applied and not acknowledged is sent again.
    """
    way = tmp_path / "way.sock"
    with Proxy(listen=way, target=tmp_path / "ix" / "i.sock") as proxy, site(broker, index_socket=way) as here:
        here.feed.start(RATE)
        for _ in range(6):
            here.until_more(60)
            proxy.cut()
            time.sleep(2)
            resume_s = _back(here, proxy.mend)
        owned_after_s = here.owned_after_s()
        row = here.finish(
            "14 worker–index cut",
            owned_after_s=owned_after_s,
            resume_s=resume_s,
            reported={"connections": proxy.accepted},
        )
        judge(row)
