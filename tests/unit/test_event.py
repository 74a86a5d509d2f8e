"""What streams.event refuses, with which reason, and that nothing else ever leaves it."""

from __future__ import annotations

import json
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from streams.errors import EventError, Reason
from streams.event import (
    CREATED,
    DELETED,
    MIN_VERSION,
    Attribute,
    EventType,
    ImageEvent,
    Location,
    created,
    deleted,
    parse,
)
from tests.records import BAD_FIELDS, HEADERS, NOT_DATA, NOW_US, VERSION, place, record, with_raw


def read(value: bytes | None, **headers: bytes | None) -> ImageEvent:
    """Parse `value` under the usual headers, some of them replaced, those given as None left out."""
    named = HEADERS | headers
    return parse(value, [(name, text) for name, text in named.items() if text is not None], at_us=NOW_US)


def refused(value: bytes | None, **headers: bytes | None) -> EventError:
    return _refused(Reason.EVENT_INVALID, value, headers)


def unsupported(value: bytes | None, **headers: bytes | None) -> EventError:
    return _refused(Reason.EVENT_UNSUPPORTED, value, headers)


def _refused(reason: Reason, value: bytes | None, headers: dict[str, bytes | None]) -> EventError:
    with pytest.raises(EventError) as caught:
        read(value, **headers)
    assert caught.value.reason is reason
    assert caught.value.message
    return caught.value


# ---- what is read ----


def test_a_whole_record_is_read() -> None:
    """Every field and header of the contract arrives."""
    attributes: dict[str, Attribute] = {
        "colour": "red",
        "price": 9.5,
        "stock": 3,
        "new": True,
        "at": "2026-01-01T00:00:00Z",
    }
    value = record(tags=["a", "b"], attributes=attributes, **place(etag="e", size_bytes=7, content_type="image/png"))
    headers = {"traceparent": b"00-aa-bb-01", "lookalike.first_published_us": b"1749999999999999"}
    assert read(value, **headers) == ImageEvent(
        event_id="e-1",
        type=EventType.CREATED,
        source="camera",
        time=datetime(2026, 1, 1, tzinfo=UTC),
        tenant_id="acme",
        image_id="photo-1",
        version=VERSION,
        location=Location("pictures", "acme/photo-1.jpg", "e", 7, "image/png"),
        tags=("a", "b"),
        attributes=attributes,
        traceparent="00-aa-bb-01",
        first_published_us=1_749_999_999_999_999,
    )


def test_a_delete_needs_no_location() -> None:
    """A delete says only which image and which version."""
    event = read(record(location=...), ce_type=DELETED.encode())
    assert event.is_delete
    assert event.location is None


def test_unknown_fields_and_headers_are_no_error() -> None:
    """A producer of a later version of the contract is read as far as it is known."""
    value = record(colour_space={"deep": [1, {"x": None}]}, **place(region="eu"))
    assert read(value, ce_subject=b"photo", other=b"\xff\xfe").version == VERSION


def test_without_a_version_the_time_of_the_event_counts() -> None:
    """The default version is the event's time to the microsecond, in whatever zone it is written."""
    for text in (b"2026-01-01T02:00:00.123457+02:00", b"2026-01-01T00:00:00.123457Z"):
        for value in (record(version=...), record(version=None)):
            assert read(value, ce_time=text).version == 1_767_225_600_123_457


def test_the_bounds_of_a_version_are_allowed() -> None:
    """The year 2000 and five minutes ahead are the first and the last version that are read."""
    for version in (MIN_VERSION, NOW_US, NOW_US + 300_000_000):
        assert read(record(version=version)).version == version


def test_the_bounds_of_text_and_counts_are_allowed() -> None:
    """The longest ids, 64 tags and 32 attributes are read."""
    event = read(
        record(
            tenant_id="a" * 63,
            image_id="A" + "~" * 127,
            tags=["t"] * 64,
            attributes={f"a{number}": "v" * 256 for number in range(32)},
        )
    )
    assert (len(event.tenant_id), len(event.image_id), len(event.tags), len(event.attributes)) == (63, 128, 64, 32)


def test_of_a_field_given_twice_the_last_counts() -> None:
    """As for every other reader of JSON, so that no two readers see two images in one record."""
    value = with_raw(b'"image_id":"second"')
    assert read(value).image_id == json.loads(value)["image_id"] == "second"


# ---- what is refused ----


@pytest.mark.parametrize("value", NOT_DATA.values(), ids=NOT_DATA.keys())
def test_what_is_not_data_is_refused(value: bytes | None) -> None:
    """A value that is not the JSON object of the contract is `event_invalid`, whatever it is instead."""
    assert refused(value).field == "data"


@pytest.mark.parametrize("data", BAD_FIELDS.values(), ids=BAD_FIELDS.keys())
def test_a_wrong_field_is_refused(data: dict[str, object]) -> None:
    """One wrong field makes the event `event_invalid`, and the message or the field names it."""
    error = refused(record(**data))
    name = next(iter(data))
    assert error.field == name or name in error.message, (error.field, error.message)


def test_a_message_stays_short() -> None:
    """What a dead letter says does not carry a megabyte of somebody's value."""
    for data in ({"image_id": "a" * 5_000_000}, {"attributes": {"n" * 100_000: 1}}, {"version": 10**300}):
        assert len(refused(record(**data)).message) < 500
    for headers in ({"ce_type": b"t" * 100_000}, {"ce_time": b"9" * 100_000}, {"ce_specversion": b"1" * 100_000}):
        with pytest.raises(EventError) as caught:
            read(record(), **headers)
        assert len(caught.value.message) < 500


# ---- headers ----


@pytest.mark.parametrize("name", sorted(HEADERS))
@pytest.mark.parametrize("text", [None, b"", b"\xff\xfe"], ids=["missing", "empty", "not UTF-8"])
def test_a_missing_or_broken_header_is_refused(name: str, text: bytes | None) -> None:
    """Each CloudEvents attribute is needed, as UTF-8, and the error names it."""
    assert refused(record(), **{name: text}).field == name


def test_headers_without_a_value_count_as_missing() -> None:
    """Kafka allows a header whose value is null."""
    headers: list[tuple[str, Any]] = [*HEADERS.items(), ("ce_id", None)]
    with pytest.raises(EventError) as caught:
        parse(record(), headers, at_us=NOW_US)
    assert caught.value.field == "ce_id"


@pytest.mark.parametrize("name", ["traceparent", "lookalike.first_published_us"])
def test_our_own_headers_are_checked(name: str) -> None:
    """What travels with the event is read as strictly as the event."""
    assert refused(record(), **{name: b"\xff"}).field == name


@pytest.mark.parametrize("text", [b"", b"soon", b"-5", b"1e15", b"1" * 40, "٣".encode()])
def test_a_first_publish_time_is_a_number(text: bytes) -> None:
    """Freshness is measured from it, so nothing else passes."""
    assert refused(record(), **{"lookalike.first_published_us": text}).field == "lookalike.first_published_us"


@pytest.mark.parametrize("text", [b"now", b"2026-13-01T00:00:00Z", b"1767225600", b"2026-01-01T25:00:00Z", b"Z"])
def test_a_time_that_is_none_is_refused(text: bytes) -> None:
    """`ce_time` is a point in time, whether the version is taken from it or not."""
    for value in (record(), record(version=...)):
        assert refused(value, ce_time=text).field == "ce_time"


@pytest.mark.parametrize("text", [b"1999-12-31T23:59:59Z", b"0001-01-01T00:00:00+23:59", b"9999-12-31T23:59:59-23:59"])
def test_a_time_that_is_no_version_is_refused_as_one(text: bytes) -> None:
    """The bounds of the version hold for the default as well, to the ends of the calendar."""
    assert refused(record(version=...), ce_time=text).field == "version"


@pytest.mark.parametrize(
    ("headers", "field"),
    [
        ({"ce_type": b"lookalike.image.created.v2"}, "ce_type"),
        ({"ce_type": b"LOOKALIKE.IMAGE.CREATED.V1"}, "ce_type"),
        ({"ce_type": CREATED.encode() + b"\n"}, "ce_type"),
        ({"ce_specversion": b"0.3"}, "ce_specversion"),
    ],
)
def test_what_this_version_does_not_know_is_unsupported(headers: dict[str, bytes], field: str) -> None:
    """Another type, or another CloudEvents version, is told apart from a broken event."""
    assert unsupported(record(), **headers).field == field


def test_an_unknown_type_is_unsupported_whatever_its_data() -> None:
    """Its data may follow rules that this version cannot know."""
    unsupported(b'{"anything": 1}', ce_type=b"lookalike.image.rotated.v1")
    unsupported(None, ce_type=b"lookalike.image.rotated.v1")


# ---- what is made ----


def test_new_events_are_of_now() -> None:
    """The version of a new event is now unless it is given, and each has an id of its own."""
    before = datetime.now(UTC) - timedelta(milliseconds=1)
    one, two = created("acme", "i", Location("b", "k")), deleted("acme", "i")
    for event in (one, two):
        assert before <= event.time <= datetime.now(UTC) + timedelta(milliseconds=1)
        assert event.version == event.first_published_us
        assert abs(event.version - event.time.timestamp() * 1e6) <= 1
    assert one.event_id != two.event_id
    assert (created("a", "i", Location("b", "k"), version=5).version, deleted("a", "i", version=6).version) == (5, 6)
