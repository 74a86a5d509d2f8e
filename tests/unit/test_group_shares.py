"""Who owns how much of a group's topics, from what the broker says of its members."""

from __future__ import annotations

from types import SimpleNamespace

import pytest
from confluent_kafka import TopicPartition

from streams.group import GroupWatch


def _member(*owned: tuple[str, int]) -> SimpleNamespace:
    parts = [TopicPartition(topic, number) for topic, number in owned]
    return SimpleNamespace(assignment=SimpleNamespace(topic_partitions=parts))


def test_shares_are_of_the_topics_asked_for_and_leave_out_who_has_none(monkeypatch: pytest.MonkeyPatch) -> None:
    """A member that waits for its share, or has other topics only, has none; the sum is what is owned."""
    members = [
        _member(("live", 0), ("live", 1), ("live", 2)),
        _member(("bulk", 0)),
        _member(),
        _member(("live", 3), ("bulk", 1)),
    ]
    watch = GroupWatch({"bootstrap.servers": "127.0.0.1:1", "log_level": 0}, "g")
    monkeypatch.setattr(watch, "_members", lambda: members)
    assert watch.shares({"live"}) == [1, 3]
    assert watch.shares({"live", "bulk"}) == [1, 2, 3]
    assert (watch.owned_partitions({"live"}), watch.shares({"retry"})) == (4, [])
