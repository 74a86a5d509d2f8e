"""Trying later: what a retry record says, and keeping one in hand until its time."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from streams.consume.offsets import PartitionOffsets
from streams.consume.retry import (
    DUE_HEADER,
    HISTORY_HEADER,
    MAX_HELD,
    MAX_HELD_BYTES,
    TRIES_HEADER,
    WAKE_BEFORE_US,
    Attempted,
    NotYetDue,
    RetryNote,
    RetrySteps,
    due_us,
    read_note,
    retry_headers,
)
from streams.consume.source import Delivery
from streams.event import COLLECTION_HEADER, FIRST_PUBLISHED_HEADER
from streams.onward import ORIGIN_HEADER, Origin, other_collection
from streams.topics import RETRY_LANES, Lane

ROUND = Attempted(1, "live", "fetch", "image_missing", "RetryableError", "not there", 3, "w1")


def _delivery(
    offset: int = 0, *, partition: int = 0, size: int = 1, headers: list[tuple[str, bytes]] | None = None
) -> Delivery:
    owner = PartitionOffsets("images.live", partition)
    return Delivery(
        Lane.LIVE, "images.live", partition, offset, b"", b"x" * size, headers or [], 1_700_000_000_000, owner
    )


def test_steps_lead_through_the_three_lanes_and_end() -> None:
    """Live and bulk lead to 30 s, then 5 min, then 30 min, then nowhere."""
    steps = RetrySteps.of()
    assert steps.after(Lane.LIVE) is steps.after(Lane.BULK) is Lane.RETRY_30S
    assert [steps.after(lane) for lane in RETRY_LANES] == [Lane.RETRY_5M, Lane.RETRY_30M, None]
    assert RetrySteps.of(()).after(Lane.LIVE) is None


def test_note_survives_its_headers_and_first_facts_are_kept() -> None:
    """Tries and history come back; a second retry keeps the first publish time and the first place."""
    delivery = _delivery(7, headers=[("ce_id", b"1"), (COLLECTION_HEADER, b"old"), (DUE_HEADER, b"1")])
    headers = retry_headers(delivery, due_at_us=5, note=RetryNote(3, (ROUND,)), collection="c1")
    assert read_note(headers) == RetryNote(3, (ROUND,))
    named = dict(headers)
    assert (named["ce_id"], named[DUE_HEADER], named[COLLECTION_HEADER]) == (b"1", b"5", b"c1")
    assert len(named) == len(headers)
    again = Delivery(Lane.RETRY_30S, "images.retry.30s", 2, 9, b"", b"", headers, 1_800_000_000_000, delivery.ownership)
    second = dict(retry_headers(again, due_at_us=6, note=RetryNote(), collection="c1"))
    assert second[FIRST_PUBLISHED_HEADER] == b"1700000000000000"
    assert Origin.of(list(second.items())) == Origin("images.live", 0, 7, 1_700_000_000_000)
    assert not other_collection(headers, "c1")
    assert other_collection(headers, "c2")


@pytest.mark.parametrize("raw", [b"", b"{", b"\xff", b"[1]", b"null", b"[" * 100_000])
def test_history_somebody_else_wrote_counts_as_none(raw: bytes) -> None:
    """Headers are open to every producer: what cannot be read is an empty note, never an error."""
    assert read_note([(HISTORY_HEADER, raw), (TRIES_HEADER, b"-1")]) == RetryNote()


@settings(deadline=None)  # a busy machine is no failure
@given(st.binary(max_size=40))
def test_due_time_is_never_beyond_the_longest_delay(raw: bytes) -> None:
    """Whatever the header says, a record waits no longer than the longest delay after it was appended."""
    assert due_us([(DUE_HEADER, raw)], appended_ms=1000, longest_us=50) <= 1_000_050


@settings(deadline=None)  # a busy machine is no failure
@given(st.binary(max_size=60))
def test_origin_somebody_else_wrote_is_read_or_ignored(raw: bytes) -> None:
    """An origin header is four parts or nothing; no bytes make it raise."""
    found = Origin.of([(ORIGIN_HEADER, raw)])
    assert found is None or isinstance(found.offset, int)


@settings(deadline=None)  # a busy machine is no failure
@given(st.lists(st.tuples(st.integers(0, 2), st.integers(0, 100)), max_size=30), st.lists(st.integers(0, 100)))
def test_nothing_comes_out_early_or_out_of_order(records: list[tuple[int, int]], looks: list[int]) -> None:
    """Each record comes out once, not before its time, and per partition in the order of its offsets."""
    held = NotYetDue()
    due = {}
    for offset, (partition, at_us) in enumerate(records):
        held.hold(_delivery(offset, partition=partition), at_us)
        due[offset] = at_us
    out = []
    for now in [*sorted(looks), 1000]:
        taken = held.take_due(now, 1000)
        assert all(due[one.offset] <= now for one in taken)
        out += taken
    assert len(held) == 0
    for partition in range(3):
        own = [one.offset for one in out if one.partition == partition]
        assert own == [offset for offset, record in enumerate(records) if record[0] == partition]


def test_long_wait_pauses_the_partition_and_it_wakes_in_time() -> None:
    """A partition sleeps while its first record has long to wait, and is awake before that is due."""
    held = NotYetDue()
    held.hold(_delivery(), 10_000_000)
    assert held.sleeping(0) == {0}
    assert held.sleeping(10_000_000 - WAKE_BEFORE_US) == set()


def test_what_is_held_is_bounded_by_number_and_bytes() -> None:
    """Full by number or by bytes there is no room, and every partition that waits sleeps."""
    many, large = NotYetDue(), NotYetDue()
    for offset in range(MAX_HELD):
        many.hold(_delivery(offset), 0)
    large.hold(_delivery(size=MAX_HELD_BYTES), 0)
    for held in (many, large):
        assert held.room() == 0
        assert held.sleeping(0) == {0}
    large.take_due(1, 1)
    assert large.room() == MAX_HELD


def test_partition_that_goes_takes_its_records_along() -> None:
    """What is held of a revoked partition is forgotten: the next owner is given it again."""
    held = NotYetDue()
    held.hold(_delivery(partition=0), 0)
    held.hold(_delivery(partition=1), 0)
    held.forget([0])
    assert [one.partition for one in held.take_due(1, 9)] == [1]
