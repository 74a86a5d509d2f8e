"""The poll thread's side of Kafka: consumers (one a lane) of one group, offsets committed by low-water mark.

What this file guards against was each measured on a real broker (docs/kafka.md):

* an asynchronous commit has happened only when its callback says so;
* ``pause``/``resume`` costs about a second, so back-pressure is asking for less; pausing is for a
  stall, because callbacks must still be served;
* assignments are incremental, a partition may arrive while paused and may be delivered twice;
* a lost partition must not be committed.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

import structlog
from confluent_kafka import OFFSET_BEGINNING, Consumer, KafkaError, KafkaException, Message, TopicPartition

from streams.consume.offsets import PartitionOffsets
from streams.consume.source import Delivery
from streams.errors import ConfigError
from streams.event import Headers
from streams.topics import Lane, TopicNames

log = structlog.get_logger(__name__)

_OFFSET_GONE = (KafkaError._AUTO_OFFSET_RESET, KafkaError.OFFSET_OUT_OF_RANGE)  # noqa: SLF001 - public name of the client

COMMIT_EVERY_S = 1.0
STALL_BEFORE_PAUSE_S = 1.0
REVOKE_DRAIN_S = 5.0
"""A revoke holds every lane of the poll thread, so it waits no longer than this for what is in flight."""


class LaneConsumer:
    """One lane's consumer. All methods on the poll thread; only deliveries cross to other threads."""

    def __init__(self, client: Mapping[str, Any], *, lane: Lane, topic: str, group_id: str, protocol: str) -> None:
        self.lane = lane
        self._owned: dict[int, PartitionOffsets] = {}
        self._paused = False
        self._closing = False
        self.lost_data = 0
        self._consumer = Consumer(
            {
                **client,
                **_protocol_settings(protocol),
                "group.id": group_id,
                "client.id": f"lookalike-{lane.value}",
                "enable.auto.commit": False,
                "enable.auto.offset.store": False,
                "auto.offset.reset": "error",  # an offset that is gone is an alarm, never a silent jump
                "queued.max.messages.kbytes": 8192,
                "on_commit": self._on_commit,
            }
        )
        self._topic = topic
        self._consumer.subscribe([topic], on_assign=self._on_assign, on_revoke=self._on_revoke, on_lost=self._on_lost)

    def poll(self, max_records: int, wait_s: float) -> list[Delivery]:
        """Up to `max_records`; waits up to `wait_s` for the first only (``consume(n, t)`` would wait all of t)."""
        if max_records <= 0:
            return self._serve_callbacks()
        messages: list[Message] = []
        if wait_s > 0:
            first = self._consumer.poll(wait_s)
            messages = [] if first is None else [first]
        if (messages or wait_s <= 0) and len(messages) < max_records:
            messages += self._consumer.consume(max_records - len(messages), 0)
        deliveries = (self._deliver(message) for message in messages)
        return [delivery for delivery in deliveries if delivery is not None]

    def pause(self, paused: bool) -> None:
        """Stop or start fetching for all owned partitions; repeated calls are free."""
        if paused == self._paused:
            return
        self._paused = paused
        parts = [TopicPartition(self._topic, number) for number in self._owned]
        (self._consumer.pause if paused else self._consumer.resume)(parts)

    def commit(self) -> None:
        """Ask for a commit of every mark that moved; the result arrives in a callback of a later poll."""
        due = _due(self._owned.values())
        if not due:
            return
        try:
            self._consumer.commit(offsets=due, asynchronous=True)
        except KafkaException as exc:  # between two owners, or no coordinator: asked again a second later
            log.warning("commit not sent", lane=self.lane, error=exc.args[0].str())

    def trackers(self) -> list[PartitionOffsets]:
        return list(self._owned.values())

    def positions(self) -> list[tuple[int, int]]:
        """(high watermark, next offset to be read) per owned partition, from what is cached: no request."""
        return [
            (high, position.offset)
            for position in self._consumer.position([TopicPartition(self._topic, n) for n in self._owned])
            if position.offset >= 0 and (high := self._consumer.get_watermark_offsets(position, cached=True)[1]) >= 0
        ]

    def close(self) -> None:
        """Commit the marks, then leave the group."""
        self._closing = True
        self._commit_now(self._owned)
        self._consumer.close()

    def _serve_callbacks(self) -> list[Delivery]:
        """Without room, only a paused consumer may be polled: it gives callbacks and no records."""
        if not self._paused:
            return []
        message = self._consumer.poll(0)
        delivery = None if message is None else self._deliver(message)  # fetched before the pause took effect
        return [] if delivery is None else [delivery]

    def _deliver(self, message: Message) -> Delivery | None:
        error = message.error()
        if error is not None:
            self._on_message_error(error)
            return None
        topic, partition, offset = message.topic(), message.partition(), message.offset()
        assert topic is not None
        assert partition is not None
        assert offset is not None
        owned = self._owned.get(partition)
        if owned is None or not owned.admit(offset):
            return None
        return Delivery(
            lane=self.lane,
            topic=topic,
            partition=partition,
            offset=offset,
            key=message.key(),
            value=message.value(),
            headers=_headers(message),
            timestamp_ms=message.timestamp()[1],
            ownership=owned,
        )

    def _on_message_error(self, error: KafkaError) -> None:
        code = error.code()
        if code in _OFFSET_GONE:
            self.lost_data += 1
            log.critical("offset gone: records were deleted before they were read", lane=self.lane, error=error.str())
        elif code == KafkaError.GROUP_AUTHORIZATION_FAILED or error.fatal():
            raise ConfigError(f"the broker refuses this consumer: {error.str()}")
        else:
            log.warning("consumer error", lane=self.lane, error=error.str())

    # ---- rebalances: called by librdkafka from within poll/consume/close --------------------------

    def _on_assign(self, consumer: Consumer, partitions: list[TopicPartition]) -> None:
        """Start each new partition at its commit, or at an explicit beginning where there is none."""
        if not partitions:
            return
        if self._closing:  # arrived while leaving: taken only to be given back, so nothing is asked about it
            consumer.incremental_assign(partitions)
            return
        starts = consumer.committed(partitions, timeout=30)
        for start in starts:
            if start.error is not None:
                raise KafkaException(start.error)
            if start.offset < 0:
                start.offset = OFFSET_BEGINNING
            self._owned[start.partition] = PartitionOffsets(start.topic, start.partition)
        consumer.incremental_assign(starts)
        if self._paused:  # a partition that arrives while paused is not paused
            consumer.pause(starts)
        log.info("partitions assigned", lane=self.lane, partitions=sorted(p.partition for p in partitions))

    def _on_revoke(self, consumer: Consumer, partitions: list[TopicPartition]) -> None:
        """Finish what is in flight, commit it, let go."""
        going = {p.partition: self._owned[p.partition] for p in partitions if p.partition in self._owned}
        drain_s = 0.0 if self._closing else REVOKE_DRAIN_S  # leaving, `close` has waited already
        deadline = time.monotonic() + drain_s
        for owned in going.values():
            owned.wait_finished(max(0.0, deadline - time.monotonic()))
        self._commit_now(going)
        self._drop(going)
        consumer.incremental_unassign(partitions)
        log.info("partitions revoked", lane=self.lane, partitions=sorted(going))

    def _on_lost(self, consumer: Consumer, partitions: list[TopicPartition]) -> None:
        """They belong to somebody else already: a commit could only fail."""
        self._drop({p.partition: self._owned[p.partition] for p in partitions if p.partition in self._owned})
        consumer.incremental_unassign(partitions)
        log.warning("partitions lost", lane=self.lane, partitions=sorted(p.partition for p in partitions))

    def _drop(self, going: Mapping[int, PartitionOffsets]) -> None:
        for number, owned in going.items():
            owned.drop()
            self._owned.pop(number, None)

    # ---- commits -----------------------------------------------------------------------------------

    def _on_commit(self, error: KafkaError | None, partitions: list[TopicPartition]) -> None:
        for part in partitions:
            problem = part.error or error
            if problem is not None:
                log.warning("commit refused", lane=self.lane, partition=part.partition, error=problem.str())
            elif part.partition in self._owned:
                self._owned[part.partition].committed(part.offset)

    def _commit_now(self, going: Mapping[int, PartitionOffsets]) -> None:
        """A synchronous commit; it does not call `on_commit`, its result is the return value."""
        due = _due(going.values())
        if not due:
            return
        try:
            self._on_commit(None, self._consumer.commit(offsets=due, asynchronous=False) or [])
        except KafkaException as exc:  # what was not committed is delivered again, and changes nothing
            log.warning("last commit refused", lane=self.lane, error=exc.args[0].str())


class KafkaSource:
    """All lanes on one thread. Live waits for records; side lanes are asked in passing."""

    def __init__(
        self,
        client: Mapping[str, Any],
        *,
        names: TopicNames,
        group_id: str,
        protocol: str = "consumer",
        lanes: Sequence[Lane] = (Lane.LIVE, Lane.BULK),
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._lanes = [
            LaneConsumer(client, lane=lane, topic=names.lane(lane), group_id=group_id, protocol=protocol)
            for lane in lanes
        ]
        self._clock = clock
        self._commit_at = clock() + COMMIT_EVERY_S
        self._moved_at = clock()

    def poll(self, max_records: int) -> list[Delivery]:
        now = self._clock()
        if max_records > 0:
            self._moved_at = now
        self._pause(max_records <= 0 and now - self._moved_at > STALL_BEFORE_PAUSE_S)
        deliveries = self._poll_lanes(max_records)
        if now >= self._commit_at:
            self._commit_at = now + COMMIT_EVERY_S
            for lane in self._lanes:
                lane.commit()
        return deliveries

    def lag(self) -> int | None:
        positions = [pair for lane in self._lanes for pair in lane.positions()]
        return sum(max(0, high - at) for high, at in positions) if positions else None

    @property
    def lost_data(self) -> int:
        """How often an offset was gone before it was read: an alarm, see docs/kafka.md."""
        return sum(lane.lost_data for lane in self._lanes)

    def close(self, drain_s: float) -> int:
        deadline = self._clock() + drain_s
        trackers = [tracker for lane in self._lanes for tracker in lane.trackers()]
        for tracker in trackers:
            tracker.wait_finished(max(0.0, deadline - self._clock()))
        left = sum(tracker.in_flight for tracker in trackers)
        closing = [threading.Thread(target=lane.close, name=f"leave-{lane.lane}") for lane in self._lanes]
        for thread in closing:  # leaving a group is a round trip each
            thread.start()
        for thread in closing:
            thread.join()
        return left

    def _poll_lanes(self, max_records: int) -> list[Delivery]:
        """Side lanes get what live leaves, and never less than 1 in 8 of the room."""
        first, *side = self._lanes
        reserved = max(1, max_records // 8) if side and max_records > 1 else 0
        taken: list[Delivery] = []
        for lane in side:
            taken += lane.poll(min(reserved, max_records) if max_records else 0, 0)
        wait_s = 0.0 if taken else 0.05
        taken += first.poll(max_records - len(taken), wait_s if max_records else 0)
        room = max_records - len(taken)
        if room > 0 and side:
            for lane in side:
                taken += lane.poll(room - len(taken) if room > len(taken) else 0, 0)
        return taken

    def _pause(self, paused: bool) -> None:
        for lane in self._lanes:
            lane.pause(paused)


def _protocol_settings(protocol: str) -> dict[str, object]:
    """KIP-848's timeouts are the broker's; the classic protocol must be an incremental one."""
    if protocol == "consumer":
        return {"group.protocol": "consumer", "group.remote.assignor": "uniform"}
    if protocol == "classic":
        return {"group.protocol": "classic", "partition.assignment.strategy": "cooperative-sticky"}
    raise ConfigError(f"group protocol {protocol!r} is not known: use consumer or classic")


def _due(trackers: Iterable[PartitionOffsets]) -> list[TopicPartition]:
    marks = ((owned, owned.to_commit()) for owned in trackers)
    return [TopicPartition(owned.topic, owned.partition, mark) for owned, mark in marks if mark is not None]


def _headers(message: Message) -> Headers:
    """A header without a value reads as an empty one."""
    found: Any = message.headers() or ()
    return [(name, value if value is not None else b"") for name, value in found]
