"""What is announced after a look at an object, and under which version. Pure.

The version is the time at which the HEAD was *sent*, by one clock. Whatever happens to an object is notified
after it happened, and looked at after that: so the newest look sees the last state, and it has the highest
version. The time at which the answer came would not do: a look that began before a change and was answered
late would beat the one that saw the change.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from embedder.objects.protocol import ObjectInfo
from streams.event import ImageEvent, Location, created, deleted, now_us

SOURCE = "lookalike/normalize"
MAX_AHEAD_KEYS = 10_000


@dataclass(frozen=True, slots=True)
class Place:
    """A key, and whose picture it is."""

    tenant_id: str
    image_id: str
    bucket: str
    key: str

    @property
    def location(self) -> Location:
        return Location(self.bucket, self.key)


def event_of(place: Place, found: ObjectInfo | None, *, version: int) -> ImageEvent:
    """What a look found, None for nothing, as an event."""
    if found is None:
        return deleted(place.tenant_id, place.image_id, version=version, source=SOURCE)
    location = Location(place.bucket, place.key, found.etag or None, found.size_bytes, found.content_type)
    return created(place.tenant_id, place.image_id, location, version=version, source=SOURCE)


class Versions:
    """The versions of one thread's looks: rising for each key, in the order of the looks. Not thread-safe.

    They are never less than the object's own time. Where the store's clock is ahead, that would let a put beat
    the delete that followed it: such keys are remembered until this clock has caught up, and what follows is
    later by a microsecond.
    """

    def __init__(self, clock: Callable[[], int] = now_us) -> None:
        """`clock` gives µs since 1970."""
        self._clock = clock
        self._last_us = 0
        self._ahead: dict[tuple[str, str], int] = {}

    def look(self) -> int:
        """The time of a look that begins now, later than that of any before."""
        self._last_us = max(self._clock(), self._last_us + 1)
        return self._last_us

    def of(self, place: Place, *, look_us: int, modified_us: int | None) -> int:
        """The version of what the look of `look_us` found."""
        at = (place.bucket, place.key)
        version = max(look_us, modified_us or 0, self._ahead.pop(at, 0) + 1)
        if version > look_us:
            if len(self._ahead) >= MAX_AHEAD_KEYS:
                self._ahead = {key: ahead for key, ahead in self._ahead.items() if ahead > look_us}
            self._ahead[at] = version
        return version
