"""What the one local broker is told: its properties, its log, its Java."""

from __future__ import annotations

from pathlib import Path

from streams.errors import ConfigError

_PROPERTIES = """\
process.roles=broker,controller
node.id=1
controller.quorum.voters=1@127.0.0.1:{controller_port}
listeners=PLAINTEXT://127.0.0.1:{port},CONTROLLER://127.0.0.1:{controller_port}
advertised.listeners=PLAINTEXT://127.0.0.1:{port}
controller.listener.names=CONTROLLER
listener.security.protocol.map=PLAINTEXT:PLAINTEXT,CONTROLLER:PLAINTEXT
log.dirs={log_dirs}
auto.create.topics.enable=false
offsets.topic.num.partitions=4
offsets.topic.replication.factor=1
transaction.state.log.num.partitions=4
transaction.state.log.replication.factor=1
transaction.state.log.min.isr=1
share.coordinator.state.topic.num.partitions=4
share.coordinator.state.topic.replication.factor=1
share.coordinator.state.topic.min.isr=1
group.initial.rebalance.delay.ms=0
# a killed node waits out its own old registration before it serves again; two heartbeats must fit in
broker.session.timeout.ms=3000
broker.heartbeat.interval.ms=1000
# with KIP-848 these are the broker's, not the client's: how soon a dead worker's partitions go to a living one
group.consumer.min.session.timeout.ms={session_ms}
group.consumer.session.timeout.ms={session_ms}
group.consumer.min.heartbeat.interval.ms=1000
group.consumer.heartbeat.interval.ms={heartbeat_ms}
group.min.session.timeout.ms=1000
# the default is a third of the heap
log.cleaner.dedupe.buffer.size=16777216
num.network.threads=2
num.io.threads=4
"""

LOG4J2 = """\
<Configuration status="WARN">
  <Appenders>
    <RollingFile name="file"
        fileName="${sys:lookalike.logs}/kafka.log" filePattern="${sys:lookalike.logs}/kafka.log.%i">
      <PatternLayout pattern="%d %p %c{1} %m%n"/>
      <Policies><SizeBasedTriggeringPolicy size="10 MB"/></Policies>
      <DefaultRolloverStrategy max="2"/>
    </RollingFile>
    <Console name="console">
      <PatternLayout pattern="%d %p %c{1} %m %throwable{short.message}%n" alwaysWriteExceptions="false"/>
    </Console>
  </Appenders>
  <Loggers>
    <Logger name="org.apache.kafka.common.config.AbstractConfig" level="WARN"/>
    <Root level="INFO"><AppenderRef ref="file"/><AppenderRef ref="console" level="ERROR"/></Root>
  </Loggers>
</Configuration>
"""
"""At most 30 MB; an error also goes to whoever reads Java's output. The logger that is quieter would
print every setting at every start, several times."""


def properties(data: Path, *, port: int, controller_port: int, session_ms: int) -> str:
    """The text of server.properties, for a broker that keeps its records in `data`.

    Raises:
        ConfigError: the path has a comma, which separates folders there.
    """
    if "," in str(data):
        raise ConfigError(f"Kafka cannot keep its data in {data}: choose a path without a comma")
    heartbeat_ms = max(1000, min(3000, session_ms // 6))  # the protocol's defaults are 45 s and 5 s
    return _PROPERTIES.format(
        port=port,
        controller_port=controller_port,
        log_dirs=_escaped(str(data)),
        session_ms=session_ms,
        heartbeat_ms=heartbeat_ms,
    )


def java_options(folder: Path, *, heap_mb: int, java_version: int) -> list[str]:
    """How the broker's Java runs: small, quick to start, and nothing of it outside of `folder`."""
    return [
        *(["--sun-misc-unsafe-memory-access=allow"] if java_version >= 23 else []),  # it warns of Kafka's since 24
        f"-Xmx{heap_mb}m",
        f"-Xms{min(128, heap_mb)}m",
        "-XX:+UseSerialGC",
        "-XX:TieredStopAtLevel=1",
        "-XX:+ExitOnOutOfMemoryError",
        "-XX:-UsePerfData",
        f"-XX:ErrorFile={folder / 'logs' / 'java-crash.log'}",
        f"-Djava.io.tmpdir={folder / 'tmp'}",
        "--enable-native-access=ALL-UNNAMED",
        f"-Dlookalike.logs={folder / 'logs'}",
        "-Dlog4j.shutdownHookEnabled=false",  # the last words are written after the hook would have ended it
        f"-Dlog4j2.configurationFile={folder / 'log4j2.xml'}",
    ]


def _escaped(value: str) -> str:
    """As Java reads properties: Latin-1, and a backslash begins an escape."""
    units = value.encode("utf-16-be")
    codes = [units[at] << 8 | units[at + 1] for at in range(0, len(units), 2)]
    return "".join(chr(code) if 0x20 <= code < 0x7F and code != 0x5C else f"\\u{code:04x}" for code in codes)
