"""The newest look wins, whatever the clocks say: versions of what a normalizer finds, against a model of the store."""

from __future__ import annotations

import random
from dataclasses import dataclass, field

import pytest

from embedder.normalize.observe import Place, Versions, event_of
from embedder.objects.protocol import ObjectInfo
from streams.event import encode, now_us, parse

CAT = Place("acme", "cat", "pictures", "acme/cat.jpg")
T0 = 1_800_000_000_000_000


@dataclass
class Clock:
    """µs since 1970, moved by the test."""

    at_us: int = T0

    def __call__(self) -> int:
        return self.at_us


def test_a_version_is_the_time_of_the_look() -> None:
    """Not of the answer, nor of the object where that is older."""
    clock = Clock()
    versions = Versions(clock)
    look_us = versions.look()
    clock.at_us += 5_000_000
    assert versions.of(CAT, look_us=look_us, modified_us=T0 - 9_000_000) == T0


def test_a_version_is_never_less_than_the_objects_own_time() -> None:
    """A store whose clock is ahead tells times that this machine has not reached."""
    versions = Versions(Clock())
    assert versions.of(CAT, look_us=versions.look(), modified_us=T0 + 2_000_000) == T0 + 2_000_000


def test_what_follows_a_version_that_was_ahead_is_later() -> None:
    """The delete of an object from the future wins over its put, and the next put over that."""
    clock = Clock()
    versions = Versions(clock)
    put = versions.of(CAT, look_us=versions.look(), modified_us=T0 + 2_000_000)
    deleted = versions.of(CAT, look_us=versions.look(), modified_us=None)
    again = versions.of(CAT, look_us=versions.look(), modified_us=T0 + 2_000_000)
    assert put < deleted < again
    clock.at_us += 10_000_000
    assert versions.of(CAT, look_us=versions.look(), modified_us=None) == clock.at_us


def test_looks_have_an_order_even_within_a_microsecond_or_after_a_step_back() -> None:
    """A clock that stands still or is set back does not make two looks equal."""
    clock = Clock()
    versions = Versions(clock)
    looks = [versions.look() for _ in range(3)]
    clock.at_us -= 1_000_000
    looks.append(versions.look())
    assert looks == sorted(set(looks))


@dataclass
class Index:
    """What design §5 makes of events: the highest version wins, at equal ones the delete."""

    version: int = 0
    etag: str | None = None
    deleted: bool = False

    def apply(self, version: int, etag: str | None) -> None:
        if etag is None and version >= self.version:
            self.version, self.etag, self.deleted = version, None, True
        elif etag is not None and version > self.version:
            self.version, self.etag, self.deleted = version, etag, False


@dataclass
class Store:
    """One object of a store whose clock is off by so much; its times are whole seconds, as HTTP's are."""

    skew_us: int
    etag: str | None = None
    modified_us: int | None = None
    n_puts: int = field(default=0)

    def put(self, at_us: int) -> None:
        self.n_puts += 1
        self.etag, self.modified_us = f"e{self.n_puts}", (at_us + self.skew_us) // 1_000_000 * 1_000_000

    def delete(self) -> None:
        self.etag, self.modified_us = None, None


@pytest.mark.parametrize("skew_s", [-2.0, -0.4, 0.0, 0.4, 2.0])
def test_the_last_state_wins_however_events_and_looks_interleave(skew_s: float) -> None:
    """2,000 histories of puts and deletes within a second or so, notified late and out of order; two looks each."""
    chance = random.Random(int(skew_s * 10))
    for _ in range(2_000):
        clock, store, index = Clock(), Store(int(skew_s * 1e6)), Index()
        versions = Versions(clock)
        notified = 0
        events: list[tuple[int, str | None]] = []
        changes = chance.randint(1, 5)
        while changes or notified:
            clock.at_us += chance.choice([1, 300, 40_000, 400_000])
            if changes and (not notified or chance.random() < 0.5):
                changes -= 1
                notified += 1
                if store.etag is None or chance.random() < 0.5:
                    store.put(clock.at_us)
                else:
                    store.delete()
                continue
            notified -= 1
            look_us = versions.look()
            events.append((versions.of(CAT, look_us=look_us, modified_us=store.modified_us), store.etag))
        chance.shuffle(events)
        for version, etag in events + events:
            index.apply(version, etag)
        assert index.etag == store.etag, events


def test_what_was_found_is_said_in_an_event() -> None:
    """A created one with the store's own words, or a deleted one; both read back as they were written."""
    found = ObjectInfo("e1", 7, "image/jpeg", T0)
    for info in (found, None):
        event = event_of(CAT, info, version=now_us())
        _, value, headers = encode(event)
        assert parse(value, headers, at_us=now_us()) == event
        assert event.is_delete is (info is None)
    location = event_of(CAT, found, version=T0).location
    assert location is not None
    assert (location.bucket, location.key, location.etag) == ("pictures", "acme/cat.jpg", "e1")
    assert (location.size_bytes, location.content_type) == (7, "image/jpeg")
