"""What is measured and shown but gates nothing: half-open connections, and a broker whose disk is full."""

from __future__ import annotations

import subprocess
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from tests.chaos.broker import ChaosKafka
from tests.chaos.proxy import Proxy
from tests.chaos.row import Row
from tests.chaos.site import Site
from tests.waiting import wait_until

MakeSite = Callable[..., Site]
Report = Callable[[Row], None]
RATE = 40.0
DISK_MB = 160


@pytest.mark.full
@pytest.mark.timeout(600)
def test_21_half_open_to_the_broker(broker: ChaosKafka, site: MakeSite, report: Report) -> None:
    """21: connections to the broker stay open for 20 s, and nothing comes through any more.

    Result: reported; as after a cut, the members are thrown out and come back.
    """
    with broker.proxy() as proxy, site(broker, bootstrap=broker.proxied) as here:
        here.feed.start(RATE)
        here.until_more(60)
        here.hit(here.fleet.running, proxy.freeze)
        time.sleep(20)
        here.count_again(here.fleet.running)
        proxy.thaw()
        here.fault_at = time.monotonic()
        resume_s = here.until_more(10)
        owned_after_s = here.owned_after_s()
        report(here.finish("21 worker–broker half-open", owned_after_s=owned_after_s, resume_s=resume_s))


@pytest.mark.full
@pytest.mark.timeout(600)
def test_22_half_open_to_the_index(broker: ChaosKafka, site: MakeSite, report: Report, tmp_path: Path) -> None:
    """22: connections to the index stay open for 20 s, and nothing comes through any more.

    Result: reported; workers give the connections up after 10 s, pause, and go on by themselves.
    """
    way = tmp_path / "way.sock"
    with Proxy(listen=way, target=tmp_path / "ix" / "i.sock") as proxy, site(broker, index_socket=way) as here:
        here.feed.start(RATE)
        here.until_more(60)
        proxy.freeze()
        time.sleep(20)
        proxy.thaw()
        here.fault_at = time.monotonic()
        resume_s = here.until_more(10)
        owned_after_s = here.owned_after_s()
        report(here.finish("22 worker–index half-open", owned_after_s=owned_after_s, resume_s=resume_s))


@pytest.mark.full
@pytest.mark.timeout(600)
def test_23_disk_of_the_broker_full(site: MakeSite, report: Report, tmp_path: Path) -> None:
    """23: the broker's disk (a small tmpfs) fills up under it; later there is room again, and it is started again.

    Result: reported; Kafka ends itself when it cannot write, and nothing that it acknowledged is lost.
    """
    folder = tmp_path / "disk"
    folder.mkdir()
    if not _mounted(folder):
        report(Row("23 broker's disk full", 0, 0, 0, 0, None, None, None, True, {"not run": "mounting needs root"}))
        return
    with _unmounting(folder), ChaosKafka(folder / "k", session_s=45) as kafka, site(kafka) as here:
        here.feed.start(RATE)
        here.until_more(60)
        ballast = folder / "ballast"
        here.hit(here.fleet.running, lambda: _fill(ballast))
        died_s = _seconds_until(lambda: kafka.pid is None, at_most_s=60)
        time.sleep(5)
        here.count_again(here.fleet.running)
        ballast.unlink()
        if kafka.pid is not None:
            kafka.kill()
        kafka.start()
        kafka.wait_ready()
        here.fault_at = time.monotonic()
        resume_s = here.until_more(10, timeout_s=120)
        owned_after_s = here.owned_after_s()
        row = here.finish(
            "23 broker's disk full",
            owned_after_s=owned_after_s,
            resume_s=resume_s,
            reported={"broker_ended_after_s": "never" if died_s is None else round(died_s, 1)},
        )
        report(row)


def _mounted(folder: Path) -> bool:
    command = ["mount", "-t", "tmpfs", "-o", f"size={DISK_MB}m", "tmpfs", str(folder)]
    return subprocess.run(command, check=False, capture_output=True).returncode == 0


@contextmanager
def _unmounting(folder: Path) -> Iterator[None]:
    try:
        yield
    finally:
        subprocess.run(["umount", "-l", str(folder)], check=True)


def _fill(ballast: Path) -> None:
    """Take all that is left."""
    with ballast.open("wb") as file:
        try:
            while True:
                file.write(bytes(1 << 16))
                file.flush()
        except OSError:
            return  # full, as wanted


def _seconds_until(condition: Callable[[], bool], *, at_most_s: float) -> float | None:
    started = time.monotonic()
    try:
        wait_until(condition, timeout_s=at_most_s)
    except AssertionError:
        return None
    return time.monotonic() - started
