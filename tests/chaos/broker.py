"""The local Kafka with a second way in, which leads through a proxy that can be cut."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from lookalike.local.kafka import LocalKafka
from lookalike.local.processes import free_ports
from tests.chaos.proxy import Proxy, Rewrite


class ChaosKafka(LocalKafka):
    """Who connects to :attr:`proxied` is told to come back through that port: clients follow what brokers advertise."""

    def __init__(self, data_dir: Path, *, session_s: int) -> None:
        super().__init__(data_dir, group_session_timeout_ms=session_s * 1000)
        self.session_s = session_s
        self._inner, self._outer = free_ports(2)

    @property
    def proxied(self) -> str:
        """The address of the way that :meth:`proxy` opens."""
        return f"127.0.0.1:{self._outer}"

    @property
    def client(self) -> dict[str, str | int]:
        """How the tests themselves connect: never through the proxy."""
        return {"bootstrap.servers": self.bootstrap, "log_level": 0}

    def prepare(self, progress: Callable[[str], None] = lambda _line: None) -> None:
        super().prepare(progress)
        file = self._dir / "server.properties"
        changed = {
            "listeners=": f",PROXIED://127.0.0.1:{self._inner}",
            "advertised.listeners=": f",PROXIED://127.0.0.1:{self._outer}",
            "listener.security.protocol.map=": ",PROXIED:PLAINTEXT",
        }
        lines = file.read_text().splitlines()
        for start, more in changed.items():
            lines = [line + more if line.startswith(start) else line for line in lines]
        file.write_text("\n".join([*lines, "inter.broker.listener.name=PLAINTEXT", ""]))

    def proxy(self, rewrite: Rewrite | None = None) -> Proxy:
        """The way in; closed until it is entered."""
        return Proxy(listen=self._outer, target=self._inner, rewrite=rewrite)
