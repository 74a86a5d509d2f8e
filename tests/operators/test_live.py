"""A running `up` under work, watched by a real Prometheus: every panel shows something, every disaster pages.

Scenarios, in this order, on the series of one run: (1) work, poison and queries; (2) a worker killed three
times; (3) the index stopped; (4) poison from one tenant, (5) from three; (6) a flood from one tenant.
"""

from __future__ import annotations

import http.client
import io
import json
import os
import signal
import threading
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from embedder.objects.folder import FolderStore
from lookalike.local.targets import FILE
from lookalike.local.up import Running, UpOptions, start
from lookalike.settings import read_settings
from streams.event import Location, created, encode
from streams.producer import KafkaProducer
from streams.topics import Lane, TopicNames
from tests.operators.prometheus import Prometheus, quicker
from tests.waiting import wait_until

ROOT = Path(__file__).parents[2]
BOARDS = sorted((ROOT / "deploy" / "grafana" / "dashboards").glob("*.json"))
NAMES = TopicNames()
BUCKET = "pictures"
WINDOW = "30s"
FIRES_S = 150.0


def picture(n: int) -> bytes:
    """Picture number `n`: blurred noise of its own."""
    noise = np.random.default_rng(n).integers(0, 255, (4, 6, 3), dtype=np.uint8)
    out = io.BytesIO()
    Image.fromarray(noise).resize((96, 64), Image.Resampling.BICUBIC).save(out, "JPEG", quality=90)
    return out.getvalue()


@dataclass
class Site:
    """Everything that runs, and how a test acts on it."""

    up: Running
    prometheus: Prometheus
    producer: KafkaProducer
    store: FolderStore

    def announce(self, tenant: str, name: str, data: bytes, *, n: int = 1, lane: Lane = Lane.LIVE) -> None:
        """Store one object, and announce `n` images that all lie there."""
        location = Location(BUCKET, f"{tenant}/{name}")
        self.store.put(BUCKET, location.key, data)
        for number in range(n):
            key, value, headers = encode(created(tenant, f"{name}-{number}", location))
            self.producer.send(NAMES.lane(lane), key=key, value=value, headers=headers, on_ack=lambda error: None)
        assert self.producer.flush(60) == 0

    def pid(self, name: str) -> int:
        """The process of a child that runs."""
        found: list[int] = []

        def is_there() -> bool:
            found[:] = [one.pid for one in self.up.status() if one.name == name and one.ready and one.pid is not None]
            return bool(found)

        wait_until(is_there, timeout_s=120.0)
        return found[0]

    def ask(self, path: str, body: bytes | None = None) -> int:
        """The status of a request to the API."""
        connection = http.client.HTTPConnection("127.0.0.1", self.up.parts.port, timeout=30)
        try:
            headers = {"Content-Type": "application/octet-stream"} if body is not None else {}
            connection.request("POST" if body is not None else "GET", path, body=body, headers=headers)
            return connection.getresponse().status
        finally:
            connection.close()

    def status_of(self, name: str, path: str) -> int:
        """The status of a process's own answer."""
        try:
            with urllib.request.urlopen(self.up.parts.status_urls[name] + path, timeout=30) as answer:
                return int(answer.status)
        except urllib.error.HTTPError as exc:
            return exc.code

    def fires(self, alert: str) -> Callable[[], bool]:
        return lambda: alert in self.prometheus.firing()


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    """`up` with a pulse that looks every second, and the Prometheus that watches it."""
    data, watched = tmp_path_factory.mktemp("up"), tmp_path_factory.mktemp("prometheus")
    rules = quicker((ROOT / "deploy" / "prometheus" / "alerts.yml").read_text())
    quick = {"LOOKALIKE_PULSE_EVERY_S": "1", "LOOKALIKE_PULSE_RECALL_EVERY_S": "1"}
    with pytest.MonkeyPatch.context() as patch:
        for name, value in quick.items():
            patch.setenv(name, value)
        with (
            start(UpOptions(settings=read_settings(), data=data, port=0)) as up,
            Prometheus(watched, targets=data / FILE, rules=rules) as prometheus,
            KafkaProducer(up.parts.client()) as producer,
        ):
            yield Site(up, prometheus, producer, FolderStore(up.parts.objects_dir))


@pytest.fixture(scope="module")
def worked(site: Site) -> Site:
    """After ordinary work of three tenants, with some bad pictures in it; queries go on all the time."""
    for tenant in ("acme", "blue", "coral"):
        for n in range(12):
            site.announce(tenant, f"p{n}.jpg", picture(n))
    site.announce("acme", "bad.jpg", b"no picture", n=3)
    site.announce("acme", "late.jpg", picture(99), n=5, lane=Lane.BULK)
    wait_until(lambda: site.prometheus.number("sum(lookalike_events_total)") >= 44, timeout_s=120.0)
    return site


def _query(site: Site, stop: threading.Event) -> None:
    while not stop.wait(0.1):
        site.ask("/v1/tenants/acme/images/p1.jpg-0/similar?limit=5")
        site.ask("/v1/tenants/acme/images?limit=5")
        site.ask("/v1/tenants/acme/search/upload", picture(3))


def test_every_process_is_scraped(site: Site) -> None:
    """API, index, pulse and worker, by the file that `up` wrote."""
    wait_until(lambda: site.prometheus.number('sum(up{job=~"lookalike-.*"})') == 4, timeout_s=60.0)


def test_every_panel_shows_something(worked: Site) -> None:
    """Each expression of each dashboard gives at least one number on the series of this run."""
    stop = threading.Event()
    asking = threading.Thread(target=_query, args=(worked, stop))
    asking.start()
    working = threading.Thread(target=lambda: _keep_working(worked, stop))
    working.start()
    try:
        n_expressions = 0
        for path in BOARDS:
            for panel in json.loads(path.read_text())["panels"]:
                for target in panel["targets"]:
                    n_expressions += 1
                    _shows(worked, f"{path.stem}: {panel['title']}", target["expr"])
        assert n_expressions > 50
    finally:
        stop.set()
        asking.join()
        working.join()


def _keep_working(site: Site, stop: threading.Event) -> None:
    n = 100
    while not stop.wait(0.3):
        site.announce("acme", f"p{n}.jpg", picture(n))
        n += 1


def _shows(site: Site, where: str, expression: str) -> None:
    asked = expression.replace("$__rate_interval", WINDOW)

    def has_a_number() -> bool:
        return any(one["value"][1] != "NaN" for one in site.prometheus.query(asked))

    try:
        wait_until(has_a_number, timeout_s=60.0)
    except AssertionError:
        pytest.fail(f"{where} shows nothing: {asked}")


def test_a_worker_that_dies_again_and_again_pages(worked: Site) -> None:
    """kill -9 three times; each time it comes back, and that is what is told."""
    assert "WorkerRestarts" not in worked.prometheus.firing()
    started = 'process_start_time_seconds{job="lookalike-worker"}'
    for _ in range(3):
        pid = worked.pid("worker-1")
        before = worked.prometheus.number(started)
        os.kill(pid, signal.SIGKILL)
        wait_until(lambda before=before: worked.prometheus.number(started) > before, timeout_s=120.0)  # type: ignore[misc]
    wait_until(worked.fires("WorkerRestarts"), timeout_s=FIRES_S)


def test_an_index_that_stands_still_pages(worked: Site) -> None:
    """SIGSTOP: the pulse gets no answer, the worker pauses. It goes on when the index does."""
    pid = worked.pid("index")
    worked.pid("worker-1")
    os.kill(pid, signal.SIGSTOP)
    try:
        worked.announce("acme", "while-down.jpg", picture(7))
        wait_until(worked.fires("IndexUnreachable"), timeout_s=FIRES_S)
        wait_until(worked.fires("WorkerPaused"), timeout_s=FIRES_S)
    finally:
        os.kill(pid, signal.SIGCONT)
    quiet = {"IndexUnreachable", "WorkerPaused"}
    wait_until(lambda: not quiet & worked.prometheus.firing(), timeout_s=FIRES_S)


def test_poison_from_one_tenant_is_told(worked: Site) -> None:
    """A hundred bad pictures are dead-lettered by reason; the breaker stays shut, because it is one tenant."""
    worked.announce("acme", "poison.jpg", b"no picture at all", n=100)
    wait_until(worked.fires("DeadLetterRatioHigh"), timeout_s=FIRES_S)
    assert "DeadLetterBreakerOpen" not in worked.prometheus.firing()


def test_poison_from_everybody_opens_the_breaker_and_pages(worked: Site) -> None:
    """Failures of three tenants at once are nobody's pictures: they are held. A good picture ends it."""
    for tenant in ("acme", "blue", "coral", "delta"):
        worked.announce(tenant, "poison2.jpg", b"no picture either", n=60)
    wait_until(worked.fires("DeadLetterBreakerOpen"), timeout_s=FIRES_S)
    assert worked.status_of("worker-1", "/readyz") == 503, "a rollout stops at a worker whose breaker is open"
    assert worked.status_of("worker-1", "/healthz") == 200, "and nobody restarts it"
    for tenant in ("acme", "blue", "coral", "delta"):  # the objects are mended: what was held succeeds
        worked.store.put(BUCKET, f"{tenant}/poison2.jpg", picture(5))
    wait_until(lambda: worked.prometheus.number("max(lookalike_dead_letter_breaker)") == 0, timeout_s=FIRES_S)


def test_a_flood_from_one_tenant_is_told_with_its_name(worked: Site) -> None:
    """Thousands of events of one tenant wait; the alert names it."""
    worked.announce("flood", "same.jpg", picture(1), n=6000, lane=Lane.BULK)
    wait_until(worked.fires("TenantFloods"), timeout_s=FIRES_S)
    (alert,) = worked.prometheus.query('ALERTS{alertname="TenantFloods",alertstate="firing"}')
    assert alert["metric"]["tenant"] == "flood"
