"""A broker of our own: it serves, comes back on the same data after any death, and outlives nobody."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from confluent_kafka import Consumer, Producer, TopicPartition
from confluent_kafka.admin import AdminClient
from confluent_kafka.cimpl import NewTopic

from lookalike.local.kafka import LocalKafka
from streams.errors import ConfigError, DependencyError
from tests.processes import is_gone
from tests.waiting import wait_until

SESSION_MS = 2_000

MEMBER = """
import sys
from confluent_kafka import Consumer
consumer = Consumer({"bootstrap.servers": sys.argv[1], "group.id": sys.argv[2], "group.protocol": "consumer"})
consumer.subscribe([sys.argv[2]])
while not consumer.assignment():
    consumer.poll(0.1)
print("assigned", flush=True)
while True:
    consumer.poll(0.1)
"""

STARTER = """
import signal, sys
from pathlib import Path
from lookalike.local.kafka import LocalKafka
kafka = LocalKafka(Path(sys.argv[1]))
kafka.prepare()
kafka.start()
print(kafka.pid, flush=True)
signal.pause()
"""


@pytest.fixture(scope="module")
def prepared(tmp_path_factory: pytest.TempPathFactory) -> LocalKafka:
    """One formatted folder for all tests, with a name that Java, XML and properties each read in their own way."""
    kafka = LocalKafka(tmp_path_factory.mktemp("local") / "kä <&> fka", group_session_timeout_ms=SESSION_MS)
    kafka.prepare()
    return kafka


@pytest.fixture
def running(prepared: LocalKafka) -> Iterator[LocalKafka]:
    with prepared:
        yield prepared


def _folder(kafka: LocalKafka) -> Path:
    return kafka._dir


def _create(kafka: LocalKafka, topic: str) -> None:
    admin = AdminClient({"bootstrap.servers": kafka.bootstrap})
    admin.create_topics([NewTopic(topic, 1, 1)])[topic].result(30)


def _produce(kafka: LocalKafka, topic: str, values: list[bytes]) -> None:
    producer = Producer({"bootstrap.servers": kafka.bootstrap, "enable.idempotence": True})
    for value in values:
        producer.produce(topic, value)
    assert producer.flush(30) == 0


def _consumer(kafka: LocalKafka, group: str) -> Consumer:
    settings = {"bootstrap.servers": kafka.bootstrap, "group.id": group, "enable.auto.commit": False}
    return Consumer({**settings, "group.protocol": "consumer", "auto.offset.reset": "earliest", "log_level": 0})


def _values(kafka: LocalKafka, topic: str, n: int) -> list[bytes | None]:
    consumer = _consumer(kafka, "reader")
    consumer.assign([TopicPartition(topic, 0, 0)])
    records = consumer.consume(n, 30)
    consumer.close()
    return [record.value() for record in records]


def test_records_and_offsets_survive_a_kill(running: LocalKafka, unique: str) -> None:
    """After kill -9 the broker is back at the same address, with the records and the committed offset."""
    _create(running, unique)
    _produce(running, unique, [b"one", b"two", b"three"])
    before = _consumer(running, unique)
    before.commit(offsets=[TopicPartition(unique, 0, 2)], asynchronous=False)
    before.close()
    address, pid = running.bootstrap, running.pid
    assert pid is not None

    running.kill()
    assert is_gone(pid)
    assert not running.answers()
    running.start()
    running.wait_ready()

    assert running.bootstrap == address
    assert running.pid not in (None, pid)
    assert _values(running, unique, 3) == [b"one", b"two", b"three"]
    after = _consumer(running, unique)
    (committed,) = after.committed([TopicPartition(unique, 0)], timeout=30)
    assert committed.offset == 2
    after.close()


def test_a_stop_leaves_nothing_and_loses_nothing(prepared: LocalKafka, unique: str) -> None:
    """After a stop in order no process is left; a new object on the same folder has the same address and records."""
    with prepared:
        _create(prepared, unique)
        _produce(prepared, unique, [b"one"])
        pid = prepared.pid
        assert pid is not None
    assert is_gone(pid)
    assert prepared.pid is None
    assert not prepared.answers()
    with LocalKafka(_folder(prepared), group_session_timeout_ms=SESSION_MS) as again:
        assert again.bootstrap == prepared.bootstrap
        assert _values(again, unique, 1) == [b"one"]


def test_topics_are_not_made_by_asking(running: LocalKafka, unique: str) -> None:
    """A misspelt topic is an error, not a new topic."""
    admin = AdminClient({"bootstrap.servers": running.bootstrap})
    admin.list_topics(unique, timeout=30)
    assert unique not in admin.list_topics(timeout=30).topics


def test_a_killed_consumer_is_replaced_within_the_session_timeout(running: LocalKafka, unique: str) -> None:
    """The partition of a member that was killed goes to another one without anybody's help."""
    _create(running, unique)
    command = [sys.executable, "-c", MEMBER, running.bootstrap, unique]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as member:
        assert member.stdout is not None
        assert member.stdout.readline() == "assigned\n"
        member.kill()
    other = _consumer(running, unique)
    other.subscribe([unique])
    wait_until(lambda: (other.poll(0.1), other.assignment())[1] != [], timeout_s=30)  # the default would take 45 s
    other.close()


def test_its_log_is_in_its_folder(running: LocalKafka) -> None:
    """What the broker did can be read, also when nobody kept its output."""
    assert "Kafka Server started" in (_folder(running) / "logs" / "kafka.log").read_text()


def test_it_dies_with_a_parent_that_is_killed(prepared: LocalKafka) -> None:
    """kill -9 of the process that started the broker ends the broker."""
    command = [sys.executable, "-c", STARTER, str(_folder(prepared))]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as parent:
        assert parent.stdout is not None
        pid = int(parent.stdout.readline())
        wait_until(prepared.answers)
        parent.kill()
    wait_until(lambda: is_gone(pid))
    assert not prepared.answers()


def test_ctrl_c_in_the_terminal_does_not_reach_it(running: LocalKafka) -> None:
    """It is in a process group and session of its own: who started it decides when it stops."""
    assert running.pid is not None
    assert os.getpgid(running.pid) == running.pid
    assert os.getsid(running.pid) == running.pid != os.getsid(0)


def test_a_port_that_somebody_took_is_one_line(prepared: LocalKafka) -> None:
    """Its port in other hands, the broker says which one and what to do, and is not started."""
    with socket.create_server(("127.0.0.1", int(prepared.bootstrap.split(":")[1]))):
        with pytest.raises(
            ConfigError, match=r"port \d+ of the local Kafka is taken: stop what listens there"
        ) as caught:
            prepared.prepare()
        assert "\n" not in str(caught.value)
    assert prepared.pid is None


def test_a_broker_that_dies_at_its_start_says_why(prepared: LocalKafka) -> None:
    """The error carries the broker's own last words instead of a time-out."""
    wrong = LocalKafka(_folder(prepared), group_session_timeout_ms=90_000)  # above the broker's limit
    wrong.prepare()
    wrong.start()
    with pytest.raises(DependencyError, match=r"ended with 1 \(.*group\.consumer\.max\.session\.timeout\.ms"):
        wrong.wait_ready()
    wrong.stop()


def test_half_a_format_is_done_again(tmp_path: Path) -> None:
    """A folder whose formatting was interrupted is formatted by the next start."""
    kafka = LocalKafka(tmp_path)
    kafka.prepare()
    (tmp_path / "data" / "meta.properties").unlink()
    with kafka:
        assert kafka.answers()


def test_a_folder_that_cannot_be_used_is_one_line(tmp_path: Path) -> None:
    """No permission, or a comma, which separates folders in Kafka's own settings."""
    (tmp_path / "file").touch()
    with pytest.raises(ConfigError, match="cannot be written"):
        LocalKafka(tmp_path / "file" / "kafka").prepare()
    with pytest.raises(ConfigError, match="without a comma"):
        LocalKafka(tmp_path / "a,b").prepare()


def test_what_is_done_twice_is_harmless(prepared: LocalKafka) -> None:
    """Stopping and killing what is not there is harmless, and so is a second start."""
    prepared.stop()
    prepared.kill()
    with prepared:
        pid = prepared.pid
        prepared.start()
        assert prepared.pid == pid
        assert pid is not None
        os.kill(pid, signal.SIGKILL)
        wait_until(lambda: prepared.pid is None)
        prepared.stop()
