"""`lookalike pulse` as its users meet it: started, asked over HTTP, killed, paused and started again."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import threading
import urllib.error
import urllib.request
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any, Self

from tests.waiting import wait_until

ENTRY = """
import sys
from streams import pulse
pulse.METADATA_MAX_AGE_MS = 1000
from lookalike.cli import run
sys.exit(run(["pulse"]))
"""
"""As the command, but a partition that is added is noticed after a second."""


class PulseProcess:
    """One pulse process; `with` starts it and leaves nothing behind."""

    def __init__(self, folder: Path, *, bootstrap: str, prefix: str, index_socket: Path | None = None) -> None:
        self._log = folder / "pulse.log"
        self._environment = {
            **os.environ,
            "LOOKALIKE_DATA": str(folder),
            "LOOKALIKE_KAFKA_BOOTSTRAP": bootstrap,
            "LOOKALIKE_KAFKA_TOPIC_PREFIX": prefix,
            "LOOKALIKE_INDEX_SOCKET": str(index_socket or folder / "nobody.sock"),
            "LOOKALIKE_PULSE_METRICS_PORT": "0",
            "LOOKALIKE_PULSE_EVERY_S": "0.5",
            "LOOKALIKE_PULSE_RECALL_EVERY_S": "0.5",
        }
        self._process: subprocess.Popen[str] | None = None
        self.url = ""

    @property
    def log(self) -> str:
        """What it has said so far, every start together."""
        return self._log.read_text() if self._log.exists() else ""

    def start(self) -> None:
        """Start it and wait until its view covers the window."""
        with self._log.open("a") as log:
            command = [sys.executable, "-c", ENTRY]
            self._process = subprocess.Popen(
                command, env=self._environment, stdout=subprocess.PIPE, stderr=log, text=True
            )
        assert self._process.stdout is not None
        with self._process.stdout as out:  # it says its address and nothing more
            self.url = out.readline().strip()
        if not self.url:
            self.ended()
        assert self.url.startswith("http://"), self.log
        wait_until(lambda: bool(self.page()["complete"]), timeout_s=90.0)

    def get(self, path: str) -> tuple[int, str]:
        """Status and body of an answer."""
        try:
            with urllib.request.urlopen(self.url + path, timeout=10) as answer:
                return answer.status, answer.read().decode()
        except urllib.error.HTTPError as exc:
            return exc.code, exc.read().decode()

    def page(self) -> dict[str, Any]:
        """What `/pulse` says now."""
        found: dict[str, Any] = json.loads(self.get("/pulse")[1])
        return found

    def send(self, number: signal.Signals) -> None:
        assert self._process is not None
        self._process.send_signal(number)

    @property
    def has_ended(self) -> bool:
        return self._process is not None and self._process.poll() is not None

    def ended(self, *, timeout_s: float = 60.0) -> int:
        """Its exit code; waits for its end."""
        assert self._process is not None
        return self._process.wait(timeout_s)

    def kill(self) -> None:
        """kill -9, and wait until it is gone."""
        self.send(signal.SIGKILL)
        self.ended()

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        if self._process is not None:
            self._process.kill()
            self._process.wait()


class Publishing:
    """Sends 0, 1, … a few at a time on a thread, so that a test may interfere meanwhile."""

    def __init__(self, send: Callable[[Iterable[int]], None], *, n: int, pause_s: float) -> None:
        self.sent = 0
        self._pause = threading.Event()

        def work() -> None:
            for begin in range(0, n, 50):
                send(range(begin, begin + 50))
                self.sent = begin + 50
                self._pause.wait(pause_s)

        self._thread = threading.Thread(target=work, daemon=True)
        self._thread.start()

    def wait(self) -> None:
        """Until everything is sent and acknowledged."""
        self._thread.join()
