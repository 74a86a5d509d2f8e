"""What the broker knows of a consumer group: works whether or not a worker runs, and disturbs none."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import Any

import stamina
from confluent_kafka import ConsumerGroupTopicPartitions, KafkaError, KafkaException
from confluent_kafka.admin import AdminClient

from streams.errors import DependencyError
from streams.tail import extent


def group_lag(client: Mapping[str, Any], group_id: str, topic: str) -> int:
    """Records of `topic` that the group has not finished; what it never committed counts from the beginning.

    Raises:
        DependencyError: the broker does not answer.
        ConfigError: there is no such topic.
    """
    there = extent(client, topic)
    committed = committed_offsets(AdminClient(dict(client)), group_id)
    starts = {number: max(first, committed.get((topic, number), first)) for number, first in there.first_offset.items()}
    return sum(max(0, there.next_offset[number] - start) for number, start in starts.items())


def committed_offsets(admin: AdminClient, group_id: str) -> dict[tuple[str, int], int]:
    """The next offset of every (topic, partition) that the group has committed. DependencyError as above."""
    try:
        for attempt in stamina.retry_context(on=_settling, timeout=15.0, attempts=None, wait_initial=0.05):
            with attempt:
                asked = admin.list_consumer_group_offsets([ConsumerGroupTopicPartitions(group_id)], request_timeout=15)
                found = asked[group_id].result().topic_partitions
    except KafkaException as exc:
        if exc.args[0].code() == KafkaError.GROUP_ID_NOT_FOUND:
            return {}
        raise DependencyError("broker", f"the broker does not answer: {exc.args[0].str()}") from exc
    return {(part.topic, part.partition): part.offset for part in found if part.offset >= 0}


def _settling(error: Exception) -> bool:
    """A coordinator that has just started or moved: asked again it answers."""
    codes = (
        KafkaError.COORDINATOR_LOAD_IN_PROGRESS,
        KafkaError.COORDINATOR_NOT_AVAILABLE,
        KafkaError.NOT_COORDINATOR,
    )
    return isinstance(error, KafkaException) and error.args[0].code() in codes


class GroupWatch:
    """Who owns what, asked often: one client that stays connected."""

    def __init__(self, client: Mapping[str, Any], group_id: str, *, timeout_s: float = 1.0) -> None:
        self._admin = AdminClient(dict(client))
        self._group_id = group_id
        self._timeout_s = timeout_s

    def members(self) -> int:
        """How many consumers the group has; a worker has one for each lane.

        Raises:
            DependencyError: the broker does not answer in time.
        """
        return len(self._members())

    def owned_partitions(self, topics: Collection[str]) -> int:
        """How many partitions of `topics` a member owns now. Dead members count until their session ends.

        Raises:
            DependencyError: the broker does not answer in time.
        """
        return sum(self.shares(topics))

    def shares(self, topics: Collection[str]) -> list[int]:
        """How many partitions of `topics` each member owns that owns any, fewest first.

        Raises:
            DependencyError: the broker does not answer in time.
        """
        owned = ([part.topic in topics for part in one.assignment.topic_partitions] for one in self._members())
        return sorted(sum(part) for part in owned if any(part))

    def _members(self) -> list[Any]:
        asked = self._admin.describe_consumer_groups([self._group_id], request_timeout=self._timeout_s)
        try:
            return list(asked[self._group_id].result().members)
        except KafkaException as exc:
            if exc.args[0].code() == KafkaError.GROUP_ID_NOT_FOUND:
                return []
            raise DependencyError("broker", f"the broker does not answer: {exc.args[0].str()}") from exc
