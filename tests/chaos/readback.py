"""What is there when everything has stopped: points, dead letters, outcomes against what was sent."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from embedder.index.points import State
from embedder.index.service.client import IndexClient
from streams.report.outcomes import Outcome, OutcomeState
from streams.tail import Tail, TailRecord, extent
from tests.chaos.feed import Sent
from tests.chaos.witness import Place
from tests.waiting import wait_until

Image = tuple[str, str]
"""Tenant and image."""


@dataclass(frozen=True, slots=True)
class Fault:
    """What a worker had on its conscience when it was hit: what may be done twice because of it."""

    worker: str
    at_us: int
    committed: Mapping[tuple[str, int], int]
    in_flight: int


def allowed_repeats(faults: Sequence[Fault], places: Mapping[Place, list[Outcome]]) -> int:
    """In flight, and finished since the last commit, of each worker when it was hit (docs/chaos.md)."""
    allowed = 0
    for fault in faults:
        allowed += fault.in_flight
        for (topic, partition, offset), told in places.items():
            uncommitted = offset >= fault.committed.get((topic, partition), 0)
            allowed += uncommitted and any(one.worker == fault.worker and one.at_us <= fault.at_us for one in told)
    return allowed


def is_final(told: Iterable[Outcome]) -> bool:
    """Whether an event has come to its end: a retry is no end."""
    return any(one.state is not OutcomeState.RETRYING for one in told)


def lost(sent: Mapping[str, Sent], told: Mapping[str, list[Outcome]], indexed: set[Image]) -> list[str]:
    """Events without an outcome, and images that are not in the index although they must be."""
    untold = [event_id for event_id in sent if not is_final(told.get(event_id, []))]
    wanted = {_image(one) for event_id, one in sent.items() if one.good and event_id not in set(untold)}
    return [*untold, *("/".join(image) for image in wanted - indexed)]


def unasked(sent: Mapping[str, Sent], indexed: set[Image]) -> list[str]:
    """Points that nobody asked for, or that must be gone."""
    return ["/".join(image) for image in indexed - {_image(one) for one in sent.values() if one.good}]


def points(client: IndexClient, tenants: Iterable[str]) -> dict[Image, State]:
    """Every point, by tenant and image. An image that is listed twice fails here."""
    found: dict[Image, State] = {}
    for tenant in tenants:
        cursor = None
        while True:
            page = client.list(tenant, limit=500, cursor=cursor)
            for point in page.points:
                assert (tenant, point.image_id) not in found, f"two points of {tenant}/{point.image_id}"
                found[tenant, point.image_id] = point.state
            cursor = page.next_cursor
            if cursor is None:
                break
    return found


def dead_letters(client: Mapping[str, Any], topic: str) -> dict[str, int]:
    """How many there are, by reason."""
    headers = [dict(record.headers) for record in records(client, topic)]
    return dict(Counter(one["lookalike.dead.reason"].decode() for one in headers))


def records(client: Mapping[str, Any], topic: str) -> list[TailRecord]:
    """Everything that lies in a topic now."""
    there = extent(client, topic)
    n = sum(there.next_offset.values()) - sum(there.first_offset.values())
    found: list[TailRecord] = []
    with Tail(client, topic, start=there.first_offset) as tail:

        def all_read() -> bool:
            found.extend(tail.poll(wait_s=0.1))
            return len(found) >= n

        wait_until(all_read, timeout_s=30)
    return found[:n]


def _image(sent: Sent) -> Image:
    return sent.event.tenant_id, sent.event.image_id
