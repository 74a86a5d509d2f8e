"""Our records and the CloudEvents SDK's are the same, in both directions (CloudEvents 1.0, Kafka's binary mode)."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

import pytest
from cloudevents.http import CloudEvent
from cloudevents.kafka import KafkaMessage, from_binary, to_binary, to_structured

from streams.errors import EventError, Reason
from streams.event import CREATED, DELETED, EventType, ImageEvent, Location, encode, parse

NOW_US = 1_800_000_000_000_000
VERSION = 1_750_000_000_000_000
EVENTS = [
    ImageEvent(
        event_id="e-1",
        type=EventType.CREATED,
        source="https://shop.example/camera",
        time=datetime(2026, 1, 2, 3, 4, 5, 678_901, tzinfo=UTC),
        tenant_id="acme",
        image_id="photo-1",
        version=VERSION,
        location=Location("pictures", "acme/höhe 1.jpg", "e", 7, "image/jpeg"),
        tags=("a", "ü"),
        attributes={"price": 9.5, "stock": 3, "new": True, "colour": "red"},
        traceparent="00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01",
        first_published_us=VERSION,
    ),
    ImageEvent(
        event_id="e-2",
        type=EventType.DELETED,
        source="lookalike",
        time=datetime(2026, 1, 2, tzinfo=UTC),
        tenant_id="acme",
        image_id="photo-1",
        version=VERSION + 1,
    ),
]


@pytest.mark.parametrize("event", EVENTS, ids=lambda event: str(event.type))
def test_the_sdk_reads_what_we_write(event: ImageEvent) -> None:
    """The SDK finds the same attributes and the same data in our record."""
    key, value, headers = encode(event)
    assert len(dict(headers)) == len(headers), "no header twice"
    read = from_binary(KafkaMessage(dict(headers), key, value))
    attributes = read.get_attributes()
    assert attributes["id"] == event.event_id
    assert attributes["source"] == event.source
    assert attributes["type"] == event.type.value
    assert attributes["specversion"] == "1.0"
    assert attributes["datacontenttype"] == "application/json"
    assert datetime.fromisoformat(attributes["time"]) == event.time
    assert attributes["partitionkey"] == key
    data: Any = read.get_data()
    assert (data["tenant_id"], data["image_id"], data["version"]) == ("acme", "photo-1", event.version)
    assert data.get("tags", []) == list(event.tags)
    assert data.get("attributes", {}) == event.attributes
    if event.location is not None:
        assert Location(**data["location"]) == event.location
    else:
        assert "location" not in data


@pytest.mark.parametrize("type_", [CREATED, DELETED])
def test_we_read_what_the_sdk_writes(type_: str) -> None:
    """A producer that uses the SDK with its defaults is read in full."""
    attributes = {"id": "e-3", "source": "shop", "type": type_, "time": "2026-01-02T03:04:05.678901+00:00"}
    data = {
        "tenant_id": "acme",
        "image_id": "photo-1",
        "version": VERSION,
        "location": {"bucket": "pictures", "key": "acme/höhe 1.jpg"},
        "tags": ["ü"],
        "attributes": {"price": 9.5},
    }
    sent = CloudEvent({**attributes, "datacontenttype": "application/json", "subject": "photo"}, data)
    message = to_binary(sent, key_mapper=lambda event: f"acme/{event['subject']}")
    value = message.value if isinstance(message.value, bytes) else message.value.encode()
    assert parse(value, list(message.headers.items()), at_us=NOW_US) == ImageEvent(
        event_id="e-3",
        type=EventType(type_),
        source="shop",
        time=datetime(2026, 1, 2, 3, 4, 5, 678_901, tzinfo=UTC),
        tenant_id="acme",
        image_id="photo-1",
        version=VERSION,
        location=Location("pictures", "acme/höhe 1.jpg"),
        tags=("ü",),
        attributes={"price": 9.5},
    )


def test_what_the_sdk_fills_in_is_enough() -> None:
    """The SDK gives id, time and specversion itself; its time is then the version."""
    sent = CloudEvent(
        {"source": "shop", "type": CREATED, "datacontenttype": "application/json"},
        {"tenant_id": "acme", "image_id": "i", "location": {"bucket": "b", "key": "acme/i"}},
    )
    message = to_binary(sent)
    assert isinstance(message.value, bytes)
    event = parse(message.value, list(message.headers.items()), at_us=4_000_000_000_000_000)
    assert event.event_id == sent["id"]
    assert event.version == round(datetime.fromisoformat(sent["time"]).timestamp() * 1e6)


def test_structured_mode_is_refused_not_misread() -> None:
    """The other way to put an event into a record is not read yet: it names the header that is missing."""
    data = {"tenant_id": "acme", "image_id": "i", "location": {"bucket": "b", "key": "acme/i"}}
    message = to_structured(CloudEvent({"source": "shop", "type": CREATED}, data))
    value = message.value if isinstance(message.value, bytes) else message.value.encode()
    with pytest.raises(EventError) as caught:
        parse(value, list(message.headers.items()), at_us=NOW_US)
    assert caught.value.reason is Reason.EVENT_INVALID
    assert caught.value.field == "ce_specversion"
