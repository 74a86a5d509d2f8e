"""The event log on a real Kafka: topics, confirmed records, commits by low-water mark, two workers."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from typing import Protocol

import pytest
from confluent_kafka import Consumer, TopicPartition
from confluent_kafka.admin import AdminClient

from streams.consume.consumer import KafkaSource
from streams.consume.source import Delivery
from streams.errors import ConfigError, DependencyError
from streams.event import Location, created, encode, now_us, parse
from streams.producer import KafkaProducer
from streams.topics import Lane, TopicNames, TopicSpec, check, create, specs
from tests.waiting import wait_until


class _Kafka(Protocol):
    @property
    def bootstrap(self) -> str: ...


@pytest.fixture
def client(kafka: _Kafka) -> dict[str, str]:
    return {"bootstrap.servers": kafka.bootstrap}


@pytest.fixture
def names(client: dict[str, str], unique: str) -> TopicNames:
    found = TopicNames(prefix=f"{unique}.")
    create(client, specs(found, partitions=4))
    return found


@pytest.fixture
def source(client: dict[str, str], names: TopicNames) -> Iterator[Callable[[], KafkaSource]]:
    opened: list[KafkaSource] = []

    def start() -> KafkaSource:
        opened.append(KafkaSource(client, names=names, group_id=f"{names.prefix}g"))
        return opened[-1]

    yield start
    for one in opened:
        one.close(0)


def _publish(client: dict[str, str], names: TopicNames, n: int) -> None:
    acked: list[object] = []
    with KafkaProducer(client) as producer:
        for number in range(n):
            key, value, headers = encode(created("acme", f"i{number}", Location("pictures", f"acme/{number}.jpg")))
            producer.send(names.lane(Lane.LIVE), key=key, value=value, headers=headers, on_ack=acked.append)
    assert acked == [None] * n


def _take(source: KafkaSource, n: int) -> list[Delivery]:
    taken: list[Delivery] = []

    def enough() -> bool:
        taken.extend(source.poll(16))
        return len(taken) >= n

    wait_until(enough)
    return taken


def _committed(client: dict[str, str], names: TopicNames) -> int:
    """The sum of the group's committed offsets over the live lane, asked of the broker."""
    consumer = Consumer({**client, "group.id": f"{names.prefix}g"})
    parts = consumer.committed([TopicPartition(names.lane(Lane.LIVE), n) for n in range(4)], timeout=20)
    consumer.close()
    return sum(max(0, part.offset) for part in parts)


def test_create_twice_is_harmless_and_check_is_content(client: dict[str, str], names: TopicNames) -> None:
    """Creating topics again creates nothing, and the check has nothing to say about them."""
    wanted = specs(names, partitions=4)
    assert create(client, wanted) == []
    assert check(client, wanted) == []


def test_wrong_setting_is_one_line_that_says_what_to_do(client: dict[str, str], unique: str) -> None:
    """A topic whose retention or timestamp type is wrong is named with the command that mends it."""
    names = TopicNames(prefix=f"{unique}.")
    wanted = specs(names, partitions=2)
    create(client, [TopicSpec(wanted[2].name, 1, {"retention.ms": "1000"}), *wanted[:2]])
    problems = check(client, wanted)
    assert any("retention.ms is 1000" in line and "kafka-configs" in line for line in problems)
    assert any("message.timestamp.type" in line for line in problems)
    assert any(f"topic {names.outcomes} is missing" in line for line in problems)
    assert all("\n" not in line for line in problems)


def test_too_few_partitions_are_reported(client: dict[str, str], names: TopicNames) -> None:
    """A topic with fewer partitions than wanted is named."""
    assert any("has 4 partitions, 9 are wanted" in line for line in check(client, specs(names, partitions=9)))


def test_illegal_setting_is_refused_with_the_brokers_words(client: dict[str, str], unique: str) -> None:
    """A setting the broker does not know is a configuration error, not a hang."""
    with pytest.raises(ConfigError, match="refuses topic"):
        create(client, [TopicSpec(f"{unique}.x", 1, {"no.such.setting": "1"})])


def test_broker_that_is_not_there_is_a_dependency_error() -> None:
    """No broker at the address: one typed error after the time-out."""
    with pytest.raises(DependencyError, match="broker"):
        create({"bootstrap.servers": "127.0.0.1:1", "log_level": 0}, [], timeout_s=1)


def test_events_survive_the_broker(
    client: dict[str, str], names: TopicNames, source: Callable[[], KafkaSource]
) -> None:
    """What was published is delivered with key, value, headers and the log's time, and reads as the same event."""
    _publish(client, names, 5)
    taken = _take(source(), 5)
    events = [parse(delivery.value, delivery.headers, at_us=now_us()) for delivery in taken]
    assert {event.image_id for event in events} == {f"i{n}" for n in range(5)}
    assert {delivery.key for delivery in taken} == {f"acme/i{n}".encode() for n in range(5)}
    assert all(delivery.timestamp_ms > 0 and delivery.lane is Lane.LIVE for delivery in taken)


def test_only_finished_records_are_committed_and_the_rest_comes_again(
    client: dict[str, str], names: TopicNames, source: Callable[[], KafkaSource]
) -> None:
    """A worker that leaves with unfinished records gives exactly those to the next one."""
    _publish(client, names, 40)
    first = source()
    taken = _take(first, 40)
    for delivery in taken:
        if delivery.offset < 2:
            delivery.finish()
    assert first.close(0) == sum(delivery.offset >= 2 for delivery in taken)
    again = _take(source(), 40 - _committed(client, names))
    expected = {(d.partition, d.offset) for d in taken if d.offset >= 2}
    assert {(delivery.partition, delivery.offset) for delivery in again} == expected


def test_marks_are_committed_while_polling(
    client: dict[str, str], names: TopicNames, source: Callable[[], KafkaSource]
) -> None:
    """About a second after they are finished, records are committed without anybody asking."""
    _publish(client, names, 10)
    running = source()
    for delivery in _take(running, 10):
        delivery.finish()

    def committed() -> bool:
        running.poll(0)
        return _committed(client, names) == 10

    wait_until(committed)


def test_second_worker_takes_over_after_the_first_drained(
    client: dict[str, str], names: TopicNames, source: Callable[[], KafkaSource]
) -> None:
    """Two workers share the partitions; a record finished by the first is never given to the second."""
    _publish(client, names, 40)
    first, second = source(), source()
    stop = threading.Event()
    seen: list[tuple[int, int]] = []

    def work(one: KafkaSource) -> None:
        while not stop.is_set():
            for delivery in one.poll(4):
                seen.append((delivery.partition, delivery.offset))
                delivery.finish()

    threads = [threading.Thread(target=work, args=(one,)) for one in (first, second)]
    for thread in threads:
        thread.start()
    wait_until(lambda: len(set(seen)) == 40)
    stop.set()
    for thread in threads:
        thread.join()
    assert len(seen) == 40


def test_full_worker_is_still_in_the_group(
    client: dict[str, str], names: TopicNames, source: Callable[[], KafkaSource]
) -> None:
    """Without room the consumer is paused after a second and keeps its partitions; with room it goes on."""
    _publish(client, names, 8)
    running = source()
    held = _take(running, 1)
    full = threading.Event()
    threading.Timer(2.5, full.set).start()

    def waited() -> bool:
        held.extend(running.poll(0))
        return full.is_set()

    wait_until(waited)
    held += _take(running, 8 - len(held)) if len(held) < 8 else []
    assert len({(delivery.partition, delivery.offset) for delivery in held}) == 8
    for delivery in held:
        delivery.finish()
    running.close(5)
    assert _committed(client, names) == 8


def test_offset_that_is_gone_is_an_alarm_and_no_silent_jump(
    client: dict[str, str], names: TopicNames, source: Callable[[], KafkaSource]
) -> None:
    """Records deleted before they were read are counted; nothing behind them is delivered as if nothing were lost."""
    _publish(client, names, 40)
    first = source()
    for delivery in _take(first, 40):
        if delivery.offset == 0:
            delivery.finish()
    first.close(0)
    admin = AdminClient(dict(client))
    ends = admin.delete_records([TopicPartition(names.lane(Lane.LIVE), partition, 5) for partition in range(4)])
    for future in ends.values():
        future.result(timeout=20)
    second = source()
    taken: list[Delivery] = []

    def alarmed() -> bool:
        taken.extend(second.poll(16))
        return second.lost_data >= 1

    wait_until(alarmed)
    assert taken == []
