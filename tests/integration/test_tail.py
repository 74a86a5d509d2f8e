"""Looking at topics without a group, on a real Kafka: extents, outcomes that are waited for, lag."""

from __future__ import annotations

from typing import Protocol

import pytest

from lookalike.following import OutcomeFollower
from streams.errors import ConfigError, DependencyError
from streams.group import group_lag
from streams.producer import KafkaProducer
from streams.reach import Broker
from streams.report.outcomes import Outcome, OutcomeState, encode
from streams.tail import Tail, TailRecord, extent
from streams.topics import Lane, TopicNames, create, specs
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


def _send(client: dict[str, str], topic: str, values: list[bytes]) -> None:
    acked: list[object] = []
    with KafkaProducer(client) as producer:
        for number, value in enumerate(values):
            producer.send(topic, key=str(number).encode(), value=value, headers=[("n", b"1")], on_ack=acked.append)
    assert acked == [None] * len(values)


def _outcome(event_id: str, state: OutcomeState = OutcomeState.INDEXED) -> bytes:
    outcome = Outcome(
        state=state, topic="t", partition=0, offset=0, collection="c", worker="w", at_us=0, event_id=event_id
    )
    return encode(outcome)


def test_a_tail_reads_exactly_what_lies_between_two_extents(client: dict[str, str], names: TopicNames) -> None:
    """Records from before the start are left out, headers and the broker's time come along."""
    topic = names.lane(Lane.LIVE)
    _send(client, topic, [b"before"] * 20)
    start = extent(client, topic)
    assert sum(start.next_offset.values()) - sum(start.first_offset.values()) == 20
    _send(client, topic, [b"after"] * 30)
    found: list[TailRecord] = []

    def all_there() -> bool:
        found.extend(tail.poll(wait_s=0.2))
        return len(found) >= 30

    with Tail(client, topic, start=start.next_offset) as tail:
        wait_until(all_there)
    assert [record.value for record in found] == [b"after"] * 30
    assert found[0].headers == [("n", b"1")]
    assert found[0].timestamp_ms > 0


def test_a_follower_sees_outcomes_sent_after_it_was_built(client: dict[str, str], names: TopicNames) -> None:
    """Older ones, strangers' and records that are no outcome are passed over; of two for one event the first counts."""
    _send(client, names.outcomes, [_outcome("a", OutcomeState.FAILED)])
    with OutcomeFollower(client, names.outcomes) as follower:
        first = [_outcome("stranger"), b"no outcome", _outcome("a"), _outcome("b", OutcomeState.FAILED)]
        _send(client, names.outcomes, first)
        found = follower.wait(["a", "b"])
    assert {event_id: outcome.state for event_id, outcome in found.items()} == {"a": "indexed", "b": "failed"}


def test_a_follower_gives_up_when_nothing_moves(client: dict[str, str], names: TopicNames) -> None:
    """An event that nobody works on is missing from the answer instead of waited for for ever."""
    with OutcomeFollower(client, names.outcomes) as follower:
        _send(client, names.outcomes, [_outcome("a")])
        assert set(follower.wait(["a", "never"], patience_s=2.0)) == {"a"}


def test_lag_of_a_group_that_never_committed_is_everything(client: dict[str, str], names: TopicNames) -> None:
    """Before the first worker runs, every record that is kept waits."""
    topic = names.lane(Lane.LIVE)
    assert group_lag(client, "nobody", topic) == 0
    _send(client, topic, [b"x"] * 7)
    assert group_lag(client, "nobody", topic) == 7


def test_a_missing_topic_is_one_line_that_says_what_to_do(client: dict[str, str], unique: str) -> None:
    """Nothing waits for a topic that will never be."""
    with pytest.raises(ConfigError, match="is missing: run `lookalike topics create`"):
        extent(client, f"{unique}.nothing")


def test_a_broker_that_is_not_there_does_not_answer() -> None:
    """The check ends in its own time."""
    with pytest.raises(DependencyError, match="the broker does not answer"):
        Broker({"bootstrap.servers": "127.0.0.1:1", "log_level": 0}, timeout_s=0.3).check()
