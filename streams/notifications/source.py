"""The topic of bucket notifications as a source: the same consumer, offsets and commits as the worker's lanes."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from streams.consume.consumer import KafkaSource
from streams.topics import Lane, TopicNames

LANE = Lane.LIVE
"""What deliveries of notifications say of themselves: the events made of them go there."""


@dataclass(frozen=True, slots=True)
class NotificationNames(TopicNames):
    """The names for a consumer that has one topic only: its lane is that of the notifications."""

    def lane(self, lane: Lane) -> str:  # noqa: ARG002 - there is only one
        return self.notifications


def notification_source(
    client: Mapping[str, Any], *, names: TopicNames, group_id: str, protocol: str = "consumer"
) -> KafkaSource:
    """Consume `bucket.notifications`; see :class:`~streams.consume.source.Source`."""
    only = NotificationNames(names.prefix)
    return KafkaSource(client, names=only, group_id=group_id, protocol=protocol, lanes=(LANE,))
