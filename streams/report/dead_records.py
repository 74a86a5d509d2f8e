"""Reading dead letters back: which there are, what they say, and the record that a replay sends."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from streams.errors import DependencyError
from streams.event import COLLECTION_HEADER, FIRST_PUBLISHED_HEADER, Headers
from streams.onward import DEAD_PREFIX, Origin, travelling
from streams.tail import Tail, TailRecord, extent

PATIENCE_S = 30.0


@dataclass(frozen=True, slots=True)
class DeadRecord:
    """One dead letter. `place` (partition:offset) names it in `images.dead`; `at_ms` is the broker's time of it.

    What is not there (a letter that another program wrote) is "".
    """

    record: TailRecord
    dead: Mapping[str, str]
    collection: str

    @classmethod
    def of(cls, record: TailRecord) -> DeadRecord:
        named = {name: value.decode(errors="replace") for name, value in record.headers}
        dead = {name[len(DEAD_PREFIX) :]: text for name, text in named.items() if name.startswith(DEAD_PREFIX)}
        return cls(record, dead, named.get(COLLECTION_HEADER, ""))

    @property
    def place(self) -> str:
        return f"{self.record.partition}:{self.record.offset}"

    @property
    def at_ms(self) -> int:
        return self.record.timestamp_ms

    @property
    def reason(self) -> str:
        return self.dead.get("reason", "")

    @property
    def tenant_id(self) -> str:
        return self._ids()[0]

    @property
    def image_id(self) -> str:
        return self._ids()[1]

    @property
    def event_id(self) -> str:
        return next((v.decode(errors="replace") for n, v in self.record.headers if n == "ce_id"), "")

    @property
    def is_delete(self) -> bool:
        return any(n == "ce_type" and b".deleted." in v for n, v in self.record.headers)

    def _ids(self) -> tuple[str, str]:
        tenant_id, _, image_id = (self.record.key or b"").decode(errors="replace").partition("/")
        return tenant_id, image_id

    def replay_headers(self) -> Headers:
        """The headers of the record that is sent again: version (the event's time) and first publish are kept.

        Without a collection: every group looks at it, and those to whom it is nothing new fetch nothing.
        """
        first = next((int(v) for n, v in self.record.headers if n == FIRST_PUBLISHED_HEADER and v.isdigit()), None)
        here = Origin(
            self.dead.get("topic", ""),
            _whole(self.dead.get("partition")),
            _whole(self.dead.get("offset")),
            _whole(self.dead.get("timestamp_ms")),
        )
        return travelling(self.record.headers, origin=here, first_published_us=first)


def read_dead(
    client: Mapping[str, Any], topic: str, *, clock: Callable[[], float] = time.monotonic
) -> Iterator[DeadRecord]:
    """Every dead letter that is kept now, oldest first per partition; those that come meanwhile are not waited for.

    Raises:
        DependencyError: the broker does not answer.
        ConfigError: there is no such topic.
    """
    there = extent(client, topic)
    left = {number: end for number, end in there.next_offset.items() if end > there.first_offset[number]}
    deadline = clock() + PATIENCE_S
    with Tail(client, topic, start={number: there.first_offset[number] for number in left}) as tail:
        while left:
            records = tail.poll(wait_s=0.5)
            if records:
                deadline = clock() + PATIENCE_S
            elif clock() > deadline:
                raise DependencyError("broker", f"topic {topic} could not be read for {PATIENCE_S:.0f} s")
            for record in records:
                end = left.get(record.partition)
                if end is not None and record.offset < end:
                    yield DeadRecord.of(record)
                if end is not None and record.offset + 1 >= end:
                    del left[record.partition]


def _whole(text: str | None) -> int:
    return int(text) if text is not None and text.isdigit() and len(text) <= 19 else 0
