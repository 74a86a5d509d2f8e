"""The processes of one scenario: workers that may be killed, stopped, frozen and joined, and their index."""

from __future__ import annotations

import itertools
import os
import signal
import time
import urllib.error
import urllib.request
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import psutil
from prometheus_client.parser import text_string_to_metric_families

from embedder.index.service.client import IndexClient
from lookalike.local.processes import OwnProcess, free_ports
from streams.errors import DependencyError
from tests.chaos.stub_worker import COST_FILE
from tests.waiting import wait_until

ROOT = Path(__file__).parents[2]
EXIT_LIMIT_S = 40.0
"""A worker that has not ended by then, long after every drain limit, does not end."""


@dataclass(frozen=True, slots=True)
class Exit:
    """How a worker ended that was asked to: its exit code, and the seconds it took."""

    worker: str
    code: int | None
    seconds: float


class WorkerProcess:
    """One worker, running from its construction on."""

    def __init__(self, name: str, log: Path, env: Mapping[str, str]) -> None:
        self.name = name
        self.log = log
        self._asked_at = 0.0
        (self._metrics_port,) = free_ports(1)
        variables = {
            **os.environ,
            **env,
            "LOOKALIKE_WORKER_ID": name,
            "LOOKALIKE_WORKER_METRICS_PORT": str(self._metrics_port),
            "PYTHONPATH": str(ROOT),
        }
        python = str(ROOT / ".venv" / "bin" / "python")
        self._process = OwnProcess([python, "-m", "tests.chaos.stub_worker", "worker"], log=log, env=variables)

    @property
    def pid(self) -> int:
        return self._process.pid

    @property
    def exit_code(self) -> int | None:
        """None while it runs."""
        return self._process.exit_code()

    @property
    def rss_mb(self) -> float:
        return float(psutil.Process(self.pid).memory_info().rss) / 2**20

    def kill(self) -> None:
        """kill -9 of the worker alone, as the kernel's memory killer would do it; its children follow by themselves."""
        os.kill(self.pid, signal.SIGKILL)
        self._process.wait(10)

    def send(self, number: signal.Signals) -> None:
        os.kill(self.pid, number)

    def terminate(self) -> None:
        """SIGTERM, once."""
        self._asked_at = time.monotonic()
        self._process.terminate()

    def ended(self) -> Exit:
        """Wait for its end after :meth:`terminate`."""
        code = self._process.wait(EXIT_LIMIT_S)
        took_s = time.monotonic() - self._asked_at
        if code is None:
            self._process.kill()
        return Exit(self.name, code, took_s)

    def metric(self, name: str, **labels: str) -> float | None:
        """The sum of a metric's samples that carry these labels; None where it cannot be asked now."""
        try:
            with urllib.request.urlopen(f"http://127.0.0.1:{self._metrics_port}/metrics", timeout=2) as answer:
                text = answer.read().decode()
        except (OSError, urllib.error.URLError):
            return None
        samples = [one for family in text_string_to_metric_families(text) for one in family.samples]
        found = [one.value for one in samples if one.name == name and labels.items() <= one.labels.items()]
        return sum(found) if found else None

    def ready(self) -> bool | None:
        """What its readiness probe says; None where it cannot be asked now."""
        try:
            urllib.request.urlopen(f"http://127.0.0.1:{self._metrics_port}/readyz", timeout=2).close()
        except urllib.error.HTTPError as exc:
            exc.close()
            return False if exc.code == 503 else None
        except OSError:
            return None
        return True


class IndexProcess:
    """`lookalike index serve` with a brake (tests/chaos/slow_index.py)."""

    def __init__(self, folder: Path, *, engine: str) -> None:
        self.data = folder
        self.socket = folder / "i.sock"
        self._engine = engine
        self._process: OwnProcess | None = None

    @property
    def log(self) -> Path:
        return self.data / "index.log"

    def start(self) -> None:
        """Returns when it answers."""
        self.data.mkdir(parents=True, exist_ok=True)
        python = str(ROOT / ".venv" / "bin" / "python")
        command = [python, "-m", "tests.chaos.slow_index", str(self.data), self._engine, str(self.socket)]
        self._process = OwnProcess(command, log=self.log, env={**os.environ, "PYTHONPATH": str(ROOT)})
        wait_until(self._answers, timeout_s=30)

    def kill(self) -> None:
        assert self._process is not None
        os.kill(self._process.pid, signal.SIGKILL)
        self._process.wait(10)

    def send(self, number: signal.Signals) -> None:
        assert self._process is not None
        os.kill(self._process.pid, number)

    def stop(self) -> None:
        """In order; harmless to one that does not run."""
        if self._process is not None:
            self._process.stop(20.0)

    def slow(self, seconds_a_write: float | None) -> None:
        """Put the brake on, or (None) take it off."""
        brake = self.data / "slow"
        if seconds_a_write is None:
            brake.unlink(missing_ok=True)
        else:
            brake.write_text(str(seconds_a_write))

    def client(self) -> IndexClient:
        return IndexClient(self.socket, timeout_s=20.0)

    def _answers(self) -> bool:
        assert self._process is not None
        assert self._process.exit_code() is None, self.log.read_text()
        client = IndexClient(self.socket, timeout_s=1.0)
        try:
            return client.ping() > 0
        except DependencyError:
            return False
        finally:
            client.close()


class Fleet:
    """The workers that run now, oldest first, and all that ever ran."""

    def __init__(self, folder: Path, env: Mapping[str, str], *, cost_ms: float) -> None:
        self._logs = folder
        self._cost = folder / "cost_ms"
        self._numbers = itertools.count(1)
        self._env = {**env, COST_FILE: str(self._cost)}
        self.running: list[WorkerProcess] = []
        self.exits: list[Exit] = []
        self.cost(cost_ms)

    def cost(self, ms: float) -> None:
        """What a picture costs from now on, in every worker without a price of its own."""
        self._cost.write_text(str(ms))

    def join(self, *, cost_ms: float | None = None, **env: str) -> WorkerProcess:
        """Start one more; `cost_ms` is its own price, `env` its own settings."""
        name = f"w{next(self._numbers)}"
        if cost_ms is not None:
            price = self._logs / f"{name}.cost_ms"
            price.write_text(str(cost_ms))
            env = {**env, COST_FILE: str(price)}
        worker = WorkerProcess(name, self._logs / f"{name}.log", {**self._env, **env})
        self.running.append(worker)
        return worker

    def lose(self, worker: WorkerProcess) -> None:
        """kill -9."""
        worker.kill()
        self.running.remove(worker)

    def leave(self, *workers: WorkerProcess) -> None:
        """SIGTERM to all of them at once, and wait for their ends."""
        for worker in workers:
            worker.terminate()
        for worker in workers:
            self.running.remove(worker)
            self.exits.append(worker.ended())

    def kill_all(self) -> None:
        """At the end of a scenario that went wrong."""
        for worker in self.running:
            worker.kill()
        self.running.clear()

    @property
    def fallen(self) -> list[str]:
        """Workers that ended although nobody asked them to."""
        return [worker.name for worker in self.running if worker.exit_code is not None]
