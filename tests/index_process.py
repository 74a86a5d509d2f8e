"""The index process as its users meet it: started, asked over its socket, killed and started again."""

from __future__ import annotations

import signal
import subprocess
import sys
from pathlib import Path
from types import TracebackType
from typing import Self

from embedder.index.protocol import CollectionSpec
from embedder.index.service.client import IndexClient
from streams.errors import DependencyError
from tests.waiting import wait_until

ENTRY = """
import sys
from pathlib import Path
from embedder.index.service import flushing, process
from streams.errors import ConfigError
flushing.FLUSH_SHARE = float(sys.argv[4] or flushing.FLUSH_SHARE)
try:
    sys.exit(process.serve_forever(data=Path(sys.argv[1]), engine=sys.argv[2], socket_path=Path(sys.argv[3])))
except ConfigError as exc:
    sys.exit(f"refused: {exc}")
"""


class IndexProcess:
    """One index process on one data folder; `with` starts it and leaves nothing behind."""

    def __init__(
        self, data: Path, *, engine: str, socket: Path | None = None, flush_share: float | None = None
    ) -> None:
        """`flush_share` replaces the server's own: a test that waits for each write wants a flush for each."""
        self.data = data
        self._flush_share = "" if flush_share is None else str(flush_share)
        self.socket = socket or data / "index.sock"
        self._engine = engine
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def pid(self) -> int:
        assert self._process is not None
        return self._process.pid

    @property
    def log(self) -> str:
        """What it has said so far, every start together."""
        path = self.data / "log"
        return path.read_text() if path.exists() else ""

    def launch(self) -> None:
        """Start it without waiting for an answer."""
        self.data.mkdir(parents=True, exist_ok=True)
        with (self.data / "log").open("ab") as log:
            command = [sys.executable, "-c", ENTRY, str(self.data), self._engine, str(self.socket)]
            command.append(self._flush_share)
            self._process = subprocess.Popen(command, stdout=log, stderr=log)

    def start(self) -> None:
        """Start it and wait until it answers."""
        self.launch()
        wait_until(self.answers, timeout_s=30.0)

    def send(self, number: signal.Signals) -> None:
        assert self._process is not None
        self._process.send_signal(number)

    def ended(self, *, timeout_s: float = 20.0) -> int:
        """Its exit code; waits for its end."""
        assert self._process is not None
        return self._process.wait(timeout_s)

    def kill(self) -> None:
        self.send(signal.SIGKILL)
        self.ended()

    def client(self, spec: CollectionSpec | None = None, *, timeout_s: float = 20.0) -> IndexClient:
        return IndexClient(self.socket, spec=spec, timeout_s=timeout_s)

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._process is not None and self._process.poll() is None:
            self.kill()

    def answers(self) -> bool:
        """Whether it answers; AssertionError where it has ended."""
        assert self._process is not None
        assert self._process.poll() is None, self.log
        client = self.client(timeout_s=1.0)
        try:
            return client.ping() == self.pid
        except DependencyError:
            return False
        finally:
            client.close()
