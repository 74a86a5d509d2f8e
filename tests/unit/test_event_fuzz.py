"""Whatever a record holds, parsing it ends with an event or an EventError; what is written is read."""

from __future__ import annotations

from datetime import UTC, datetime

from hypothesis import given, settings
from hypothesis import strategies as st

from streams.errors import EventError
from streams.event import MIN_VERSION, EventType, Headers, ImageEvent, Location, encode, key_of, parse
from tests.records import DATA, HEADERS, NOW_US, record

bounded = settings(max_examples=300, derandomize=True, database=None, deadline=None)

_json = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=20),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=5), inner, max_size=4),
    max_leaves=8,
)
_names = st.sampled_from([*HEADERS, "traceparent", "lookalike.first_published_us"])
_times = st.sampled_from([b"2026-01-01", b"0001-01-01T00:00:00+23:59", b"\xff", b""])
_headers = st.lists(st.tuples(_names, st.binary(max_size=30) | _times), max_size=4)


def harmless(value: bytes | None, headers: Headers) -> None:
    """Parsing ends with an event that can be written again, or with an EventError: nothing else."""
    try:
        event = parse(value, headers, at_us=NOW_US)
    except EventError:
        return
    assert MIN_VERSION <= event.version <= NOW_US + 300_000_000
    encode(event)


@bounded
@given(value=st.none() | st.binary(max_size=200), headers=_headers)
def test_any_bytes_are_harmless(value: bytes | None, headers: Headers) -> None:
    """Random values under good and random headers raise nothing but EventError."""
    harmless(value, headers)
    harmless(value, [*HEADERS.items(), *headers])


@bounded
@given(data=st.dictionaries(st.sampled_from([*DATA, "tags", "attributes", "more"]), _json), headers=_headers)
def test_any_json_is_harmless(data: dict[str, object], headers: Headers) -> None:
    """Good data with any of its fields replaced by any JSON raises nothing but EventError."""
    harmless(record(**data), [*HEADERS.items(), *headers])


@bounded
@given(cut=st.integers(0, len(record())), byte=st.integers(0, 255), drop=st.booleans())
def test_any_flipped_byte_is_harmless(cut: int, byte: int, drop: bool) -> None:
    """A record with one byte replaced, or cut off there, raises nothing but EventError."""
    value = record()[:cut] if drop else record()[:cut] + bytes([byte]) + record()[cut + 1 :]
    harmless(value, [*HEADERS.items()])


_text = st.text(st.characters(exclude_categories=["Cs"]), min_size=1, max_size=20)
_places = st.builds(Location, _text, _text, st.none() | _text, st.none() | st.integers(0, 2**53 - 1), st.none() | _text)
_attributes = st.dictionaries(
    st.from_regex(r"[A-Za-z_][A-Za-z0-9_]{0,62}", fullmatch=True),
    _text | st.booleans() | st.integers(-(2**53) + 1, 2**53 - 1) | st.floats(allow_nan=False, allow_infinity=False),
    max_size=4,
)
_events = st.builds(
    ImageEvent,
    event_id=_text,
    type=st.sampled_from(EventType),
    source=_text,
    time=st.datetimes(datetime(2000, 1, 2), datetime(2027, 1, 1), timezones=st.just(UTC)),
    tenant_id=st.from_regex(r"[a-z0-9][a-z0-9_-]{0,62}", fullmatch=True),
    image_id=st.from_regex(r"[A-Za-z0-9][A-Za-z0-9._~-]{0,127}", fullmatch=True),
    version=st.integers(MIN_VERSION, NOW_US),
    location=_places,
    tags=st.lists(_text, max_size=3).map(tuple),
    attributes=_attributes,
    traceparent=st.none() | _text,
    first_published_us=st.none() | st.integers(0, NOW_US),
)


@bounded
@given(event=_events)
def test_what_is_written_is_read(event: ImageEvent) -> None:
    """Every event comes back from its record as it was, under the key of its image."""
    key, value, headers = encode(event)
    assert parse(value, headers, at_us=NOW_US) == event
    assert key == key_of(event) == f"{event.tenant_id}/{event.image_id}".encode()
