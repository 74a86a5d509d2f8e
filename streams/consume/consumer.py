"""The poll thread's side of Kafka: consumers (one a lane) of one group, served by one thread.

Live waits for records; side lanes are asked in passing, because ``consume(n, t)`` would wait all of t.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from streams.consume.lane import LaneConsumer
from streams.consume.offsets import StandingMarks
from streams.consume.retry import RetrySteps
from streams.consume.source import Delivery
from streams.topics import RETRY_LANES, Lane, TopicNames

COMMIT_EVERY_S = 1.0
STALL_BEFORE_PAUSE_S = 1.0
TEND_EVERY_S = 0.1
"""How often retry lanes are asked and spans are looked at: nothing of it is urgent."""
LIVE_WAIT_S = 0.05


class KafkaSource:
    """All lanes on one thread."""

    def __init__(
        self,
        client: Mapping[str, Any],
        *,
        names: TopicNames,
        group_id: str,
        protocol: str = "consumer",
        retry: RetrySteps | None = None,
        lanes: Sequence[Lane] = tuple(Lane),
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """`protocol` is `consumer` or `classic` (see :func:`streams.consume.protocol.group_protocol`)."""
        longest_s = (retry or RetrySteps.of()).longest_s()
        consumers = {
            lane: LaneConsumer(
                client,
                lane=lane,
                topic=names.lane(lane),
                group_id=group_id,
                protocol=protocol,
                longest_delay_s=longest_s,
            )
            for lane in lanes
        }
        self._consumers = consumers
        self._lanes = list(consumers.values())
        self._live = consumers[Lane.LIVE]
        self._bulk = consumers.get(Lane.BULK)
        self._retries = [consumers[lane] for lane in RETRY_LANES if lane in consumers]
        self._clock = clock
        self._standing = StandingMarks()
        self._commit_at = clock() + COMMIT_EVERY_S
        self._tend_at = clock()
        self._moved_at = clock()

    def poll(self, max_records: int, *, max_bulk: int | None = None) -> list[Delivery]:
        now = self._clock()
        if max_records > 0:
            self._moved_at = now
        self._pause(max_records <= 0 and now - self._moved_at > STALL_BEFORE_PAUSE_S)
        tending = now >= self._tend_at
        taken = self._poll_retries(min(max_records, max(1, max_records // 4))) if tending else []
        taken += self._poll_lanes(max_records - len(taken), max_bulk, waiting=not taken)
        if tending:
            self._tend_at = now + TEND_EVERY_S
            for lane in self._lanes:
                lane.tend()
        if now >= self._commit_at:
            self._commit_at = now + COMMIT_EVERY_S
            for lane in self._lanes:
                lane.commit()
        return taken

    def lag(self, lane: Lane | None = None) -> int | None:
        asked = self._lanes if lane is None else [self._consumers[lane]]
        positions = [pair for one in asked for pair in one.positions()]
        return sum(max(0, high - at) for high, at in positions) if positions else None

    def oldest_in_flight_s(self) -> float:
        trackers = (tracker for lane in self._lanes for tracker in lane.trackers())
        return self._standing.oldest_s(trackers, now=self._clock())

    @property
    def held(self) -> int:
        return sum(lane.held for lane in self._retries)

    @property
    def lost_data(self) -> int:
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

    def _poll_retries(self, max_records: int) -> list[Delivery]:
        """Retries that are due, at most a quarter of the room: they were live once, and waited long enough."""
        taken: list[Delivery] = []
        for lane in self._retries:
            taken += lane.poll(max_records - len(taken), 0)
        return taken

    def _poll_lanes(self, room: int, max_bulk: int | None, *, waiting: bool) -> list[Delivery]:
        """Bulk gets what live leaves, and never less than 1 in 8 of the room."""
        if self._bulk is None:
            return self._live.poll(room, LIVE_WAIT_S if room > 0 and waiting else 0.0)
        most = room if max_bulk is None else min(room, max_bulk)
        reserved = min(most, max(1, room // 8) if room > 1 else 0)
        taken = self._bulk.poll(reserved, 0)
        n_bulk = len(taken)
        wait_s = LIVE_WAIT_S if room > 0 and waiting and not taken else 0.0
        taken += self._live.poll(room - len(taken), wait_s)
        more = min(room - len(taken), most - n_bulk)
        if more > 0:
            taken += self._bulk.poll(more, 0)
        return taken

    def _pause(self, paused: bool) -> None:
        for lane in self._lanes:
            lane.pause(paused)
