"""One lane's consumer: rebalances, commits by low-water mark, pauses. All of it on the poll thread.

What this file guards against was each measured on a real broker (docs/kafka.md):

* an asynchronous commit has happened only when its callback says so;
* ``pause``/``resume`` costs about a second, so back-pressure is asking for less; pausing is for a
  stall, because callbacks must still be served;
* assignments are incremental, a partition may arrive while paused and may be delivered twice;
* a lost partition must not be committed.
"""

from __future__ import annotations

import time
from collections.abc import Iterable, Mapping
from typing import Any

import structlog
from confluent_kafka import OFFSET_BEGINNING, Consumer, KafkaError, KafkaException, Message, TopicPartition

from streams.consume.offsets import PartitionOffsets
from streams.consume.retry import NotYetDue, due_us
from streams.consume.source import Delivery
from streams.errors import ConfigError
from streams.event import Headers, now_us
from streams.topics import RETRY_LANES, Lane

log = structlog.get_logger(__name__)

_OFFSET_GONE = (KafkaError._AUTO_OFFSET_RESET, KafkaError.OFFSET_OUT_OF_RANGE)  # noqa: SLF001 - public name of the client
_NO_MEMBER = (
    KafkaError.ILLEGAL_GENERATION,
    KafkaError.UNKNOWN_MEMBER_ID,
    KafkaError.REBALANCE_IN_PROGRESS,
    KafkaError.FENCED_INSTANCE_ID,
    KafkaError.STALE_MEMBER_EPOCH,
    KafkaError.FENCED_MEMBER_EPOCH,
)
"""A commit refused with one of these comes from a member whose partitions may belong to others already."""

REVOKE_DRAIN_S = 5.0
"""A revoke holds every lane of the poll thread, so it waits no longer than this for what is in flight."""
MAX_SPAN = 10_000
"""Offsets from the mark to the newest admitted record of a partition. One event that takes for ever would
else let it grow without bound, and all of it comes again after a crash."""
PREFETCH_KB = {Lane.LIVE: 8192, Lane.BULK: 4096}
"""What the client fetches ahead (its default is 64 MB a consumer); the retry lanes get 1 MB each."""
_ASK_COMMITS_S = 10.0
_ASK_COMMITS_TRIES = 3


class LaneConsumer:
    """One lane's consumer. All methods on the poll thread; only deliveries cross to other threads."""

    def __init__(
        self,
        client: Mapping[str, Any],
        *,
        lane: Lane,
        topic: str,
        group_id: str,
        protocol: str,
        longest_delay_s: float = 0.0,
    ) -> None:
        """`longest_delay_s` is what a retry record may have to wait at most."""
        self.lane = lane
        self.lost_data = 0
        self._owned: dict[int, PartitionOffsets] = {}
        self._held = NotYetDue() if lane in RETRY_LANES else None
        self._longest_us = round(longest_delay_s * 1e6)
        self._paused = False
        self._refused = False
        self._uncommitted: set[int] = set()
        """Partitions whose last commit was refused, and that was said."""
        self._wide: set[int] = set()
        self._paused_now: set[int] = set()
        self._left_paused: set[int] = set()
        self._closing = False
        self._consumer = Consumer(
            {
                **client,
                **_protocol_settings(protocol),
                "group.id": group_id,
                "client.id": f"lookalike-{lane.value}",
                "enable.auto.commit": False,
                "enable.auto.offset.store": False,
                "auto.offset.reset": "error",  # an offset that is gone is an alarm, never a silent jump
                "queued.max.messages.kbytes": PREFETCH_KB.get(lane, 1024),
                "on_commit": self._on_commit,
            }
        )
        self._topic = topic
        self._consumer.subscribe([topic], on_assign=self._on_assign, on_revoke=self._on_revoke, on_lost=self._on_lost)

    def poll(self, max_records: int, wait_s: float) -> list[Delivery]:
        """Up to `max_records`; waits up to `wait_s` for the first only (``consume(n, t)`` would wait all of t)."""
        if self._held is not None:
            return self._poll_due(self._held, max_records)
        return [delivery for delivery in self._fetch(max_records, wait_s) if delivery.ownership.admit(delivery.offset)]

    def _poll_due(self, held: NotYetDue, max_records: int) -> list[Delivery]:
        """Of a retry lane: what is due; what is not yet stays in hand."""
        now = now_us()
        for record in self._fetch(min(max_records, held.room()), 0):
            at = due_us(record.headers, appended_ms=record.timestamp_ms, longest_us=self._longest_us)
            held.hold(record, at)
        taken = held.take_due(now, max_records)
        self._apply_pauses()
        return [delivery for delivery in taken if delivery.ownership.admit(delivery.offset)]

    def _fetch(self, max_records: int, wait_s: float) -> list[Delivery]:
        if max_records <= 0:
            return self._serve_callbacks()
        messages: list[Message] = []
        if wait_s > 0:
            first = self._consumer.poll(wait_s)
            messages = [] if first is None else [first]
        if (messages or wait_s <= 0) and len(messages) < max_records:
            messages += self._consumer.consume(max_records - len(messages), 0)
        deliveries = map(self._read, messages)
        return [delivery for delivery in deliveries if delivery is not None]

    @property
    def held(self) -> int:
        """Retries kept in hand until their time."""
        return 0 if self._held is None else len(self._held)

    def pause(self, paused: bool) -> None:
        """Stop or start fetching for all owned partitions; repeated calls are free."""
        if paused != self._paused:
            self._paused = paused
            self._apply_pauses()

    def tend(self) -> None:
        """Stop partitions whose newest record is too far ahead of their mark, until the mark follows."""
        self._wide = {
            number
            for number, owned in self._owned.items()
            if owned.span >= (MAX_SPAN // 2 if number in self._wide else MAX_SPAN)
        }
        self._apply_pauses()

    def _apply_pauses(self) -> None:
        """What must not be fetched now is paused, everything else is not."""
        wanted = self._wide
        if self._paused or self._refused:
            wanted = set(self._owned)
        elif self._held is not None:
            everything = self._held.room() <= 0
            wanted = set(self._owned) if everything else self._wide | self._held.sleeping(now_us())
        wanted = wanted & self._owned.keys()
        if wanted == self._paused_now:
            return
        pause, resume = wanted - self._paused_now, self._paused_now - wanted
        self._paused_now = wanted
        if pause:
            self._consumer.pause([TopicPartition(self._topic, number) for number in pause])
        if resume:
            self._consumer.resume([TopicPartition(self._topic, number) for number in resume])

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
        if self._paused_now != self._owned.keys():
            return []
        message = self._consumer.poll(0)
        delivery = None if message is None else self._read(message)  # fetched before the pause took effect
        return [] if delivery is None else [delivery]

    def _read(self, message: Message) -> Delivery | None:
        error = message.error()
        if error is not None:
            self._on_message_error(error)
            return None
        topic, partition, offset = message.topic(), message.partition(), message.offset()
        assert topic is not None
        assert partition is not None
        assert offset is not None
        owned = self._owned.get(partition)
        if owned is None:
            return None
        return Delivery(
            self.lane,
            topic,
            partition,
            offset,
            message.key(),
            message.value(),
            _headers(message),
            message.timestamp()[1],
            owned,
        )

    def _on_message_error(self, error: KafkaError) -> None:
        code = error.code()
        if code in _OFFSET_GONE:
            self.lost_data += 1
            log.critical(
                "records were deleted before they were read: this partition stands still until you set the group's "
                "offset (docs/kafka.md)",
                lane=self.lane,
                error=error.str(),
            )
        elif code == KafkaError.GROUP_AUTHORIZATION_FAILED or error.fatal():
            raise ConfigError(
                f"the broker refuses this consumer: {error.str()}; a broker without KIP-848 needs "
                "LOOKALIKE_KAFKA_GROUP_PROTOCOL=classic"
            )
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
        starts = _committed(consumer, partitions)
        for start in starts:
            if start.offset < 0:
                start.offset = OFFSET_BEGINNING
            self._owned[start.partition] = PartitionOffsets(start.topic, start.partition)
        consumer.incremental_assign(starts)
        self._refused = False
        back = [start for start in starts if start.partition in self._left_paused]
        if back:  # one that left while paused may come back paused
            consumer.resume(back)
            self._left_paused -= {start.partition for start in back}
        self._apply_pauses()  # and one that arrives while paused is not paused
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
        self._left_paused |= self._paused_now & going.keys()
        self._paused_now -= going.keys()
        self._uncommitted -= going.keys()
        self._refused = False
        if self._held is not None:
            self._held.forget(going.keys())

    # ---- commits -----------------------------------------------------------------------------------

    def _on_commit(self, error: KafkaError | None, partitions: list[TopicPartition]) -> None:
        for part in partitions:
            problem = part.error or error
            if problem is not None:
                if part.partition not in self._uncommitted:  # once, not every second of an outage
                    log.warning("commit refused", lane=self.lane, partition=part.partition, error=problem.str())
                self._uncommitted.add(part.partition)
                # whose these partitions are is known after the next rebalance, or when a commit succeeds
                self._refused = self._refused or problem.code() in _NO_MEMBER
            elif part.partition in self._owned:
                self._owned[part.partition].committed(part.offset)
                self._uncommitted.discard(part.partition)
                self._refused = False

    def _commit_now(self, going: Mapping[int, PartitionOffsets]) -> None:
        """A synchronous commit; it does not call `on_commit`, its result is the return value."""
        due = _due(going.values())
        if not due:
            return
        try:
            self._on_commit(None, self._consumer.commit(offsets=due, asynchronous=False) or [])
        except KafkaException as exc:  # what was not committed is delivered again, and changes nothing
            log.warning("last commit refused", lane=self.lane, error=exc.args[0].str())


def _protocol_settings(protocol: str) -> dict[str, object]:
    """KIP-848's timeouts are the broker's; the classic protocol must be an incremental one."""
    if protocol == "consumer":
        return {"group.protocol": "consumer", "group.remote.assignor": "uniform"}
    if protocol == "classic":
        return {"group.protocol": "classic", "partition.assignment.strategy": "cooperative-sticky"}
    raise ConfigError(f"group protocol {protocol!r} is not known: use consumer or classic")


def _committed(consumer: Consumer, partitions: list[TopicPartition]) -> list[TopicPartition]:
    """The group's offsets. A coordinator that is moving just now is asked again."""
    for tries in range(1, _ASK_COMMITS_TRIES + 1):
        try:
            starts = consumer.committed(partitions, timeout=_ASK_COMMITS_S)
            failed = next((start.error for start in starts if start.error is not None), None)
        except KafkaException as exc:
            starts, failed = [], exc.args[0]
        if failed is None:
            return starts
        log.warning("offsets not known yet", tries=tries, error=failed.str())
    raise KafkaException(failed)


def _due(trackers: Iterable[PartitionOffsets]) -> list[TopicPartition]:
    marks = ((owned, owned.to_commit()) for owned in trackers)
    return [TopicPartition(owned.topic, owned.partition, mark) for owned, mark in marks if mark is not None]


def _headers(message: Message) -> Headers:
    """A header without a value reads as an empty one."""
    found: Any = message.headers() or []
    for _, value in found:
        if value is None:
            return [(name, value if value is not None else b"") for name, value in found]
    return found  # type: ignore[no-any-return]  # a list of pairs, as it came: copying it costs more than reading it
