"""What a worker asks of the cluster at its start, on a real one: durable topics, sizes, retention, the protocol."""

from __future__ import annotations

from pathlib import Path

import pytest
from confluent_kafka import Producer

from lookalike.addresses import Addresses
from lookalike.commands.worker import check_topics
from lookalike.settings import read_settings
from streams.consume.protocol import group_protocol
from streams.durability import check_durability, check_sizes, read_configs, tombstone_life_ms
from streams.errors import ConfigError, DependencyError
from streams.topics import DAY_MS, Lane, TopicNames, TopicSpec, create, specs
from tests.conftest import Broker


@pytest.fixture
def client(kafka: Broker) -> dict[str, str]:
    return {"bootstrap.servers": kafka.bootstrap}


@pytest.fixture
def names(unique: str) -> TopicNames:
    return TopicNames(prefix=f"{unique}.")


def test_one_replica_is_named_for_every_topic_with_what_to_do(client: dict[str, str], names: TopicNames) -> None:
    """On a single broker each topic is one line that names both ways out."""
    create(client, specs(names, partitions=2))
    problems = check_durability(client, names)
    assert len(problems) == len(Lane) + 2
    assert all("1 replica," in line and "--allow-single-broker" in line for line in problems)


def test_worker_refuses_a_single_broker_unless_told(
    kafka: Broker, client: dict[str, str], names: TopicNames, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """Without the option it is a configuration error; with it, or with the variable, the worker goes on."""
    create(client, specs(names, partitions=2))
    for name, value in (("BOOTSTRAP", kafka.bootstrap), ("TOPIC_PREFIX", names.prefix), ("PARTITIONS", "2")):
        monkeypatch.setenv(f"LOOKALIKE_KAFKA_{name}", value)
    nowhere = Addresses(tmp_path, None)
    with pytest.raises(ConfigError, match="allow-single-broker"):
        check_topics(read_settings(), nowhere, allow_single_broker=False)
    check_topics(read_settings(), nowhere, allow_single_broker=True)
    monkeypatch.setenv("LOOKALIKE_KAFKA_ALLOW_SINGLE_BROKER", "true")
    check_topics(read_settings(), nowhere, allow_single_broker=False)


def test_dead_letters_that_could_be_too_large_are_a_problem(client: dict[str, str], names: TopicNames) -> None:
    """Where live takes larger records than the topics behind it, each of those is named."""
    small = {"max.message.bytes": "1000000"}
    large = [TopicSpec(names.lane(Lane.LIVE), 1, {"max.message.bytes": "5000000"})]
    rest = [TopicSpec(name, 1, small) for name in (*map(names.lane, list(Lane)[1:]), names.dead)]
    create(client, [*large, *rest])
    problems = check_sizes(client, names)
    assert len(problems) == len(rest)
    assert all("max.message.bytes=10000000" in line for line in problems)


def test_deletes_are_remembered_for_all_lanes_together(client: dict[str, str], names: TopicNames) -> None:
    """Seven days and a segment of one, five times, and a day; for ever where one topic keeps everything."""
    create(client, specs(names, partitions=1))
    configs = read_configs(client, [*map(names.lane, Lane)])
    assert tombstone_life_ms(configs, names) == (5 * 8 + 1) * DAY_MS
    configs[names.lane(Lane.BULK)]["retention.ms"] = "-1"
    assert tombstone_life_ms(configs, names) is None


def test_topics_that_are_missing_are_the_brokers_word(client: dict[str, str], names: TopicNames) -> None:
    """Asked for topics that are not there, the broker's answer is one typed error."""
    with pytest.raises(DependencyError):
        read_configs(client, [names.dead])


def test_protocol_is_found_by_asking_the_broker(client: dict[str, str]) -> None:
    """Kafka 4 has KIP-848; what is set is not asked for."""
    assert group_protocol(client, "auto") == "consumer"
    assert group_protocol(client, "classic") == "classic"


def test_broker_that_does_not_tell_gets_the_classic_protocol() -> None:
    """librdkafka's own fake cluster answers no DescribeConfigs: every broker has the classic protocol."""
    fake = Producer({"test.mock.num.brokers": 1, "bootstrap.servers": "ignored", "log_level": 0})
    brokers = fake.list_topics(timeout=10).brokers.values()
    client = {"bootstrap.servers": ",".join(f"{one.host}:{one.port}" for one in brokers), "log_level": 0}
    assert group_protocol(client, "auto", timeout_s=2.0) == "classic"
