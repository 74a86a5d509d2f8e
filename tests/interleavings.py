"""Plays the worker's part on any index: events of a few images meet in an order that a script gives.

A script is plain data (see the actions below), so a failing one can be kept as a test. After every
write the index is compared with :class:`tests.oracle.Oracle` and with what is promised of each step;
:func:`play` ends with what must hold once every event has ended, however they met.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Literal

from embedder.index.points import (
    Attempt,
    AttemptState,
    Bury,
    Note,
    PutVector,
    Refresh,
    Step,
    Write,
    Written,
    plan,
)
from streams.errors import Reason
from streams.event import MIN_VERSION, ImageEvent, Location, created, deleted
from tests.oracle import Ended, Failure, Looked, Oracle, Outcome, Row, settled
from tests.promises import check_step, row_of
from tests.script import (
    BUCKET,
    IMAGES,
    KEYS,
    THERE,
    Action,
    Advance,
    Announce,
    Delete,
    Drain,
    Index,
    Pending,
    Redeliver,
    Repeat,
    Store,
    vector_of,
)

Phase = Literal["look", "head", "fetch", "write", "failing", "note", "ended"]


@dataclass(eq=False)
class Flight:
    """One delivery of an event on its way."""

    event: ImageEvent
    phase: Phase = "look"
    looked: Looked | None = None
    found_etag: str | None = None
    all_found: set[str] = field(default_factory=set)
    failure: Failure | None = None
    outcome: Outcome | None = None


@dataclass
class World:
    """The objects, the events in flight and the index they meet on."""

    tenant_id: str
    index: Index
    truth: Oracle = field(default_factory=Oracle)
    objects: dict[str, str] = field(default_factory=lambda: dict.fromkeys(KEYS, "a"))
    flights: list[Flight] = field(default_factory=list)
    pending: list[tuple[str, int]] = field(default_factory=list)
    writes: list[tuple[Write, Callable[[], bool | None]]] = field(default_factory=list)
    clock_us: int = MIN_VERSION

    # ---- actions ----

    def act(self, action: Action) -> None:
        match action:
            case Announce():
                key = KEYS[action.key % len(KEYS)]
                location = Location(BUCKET, key, self.objects[key] if action.etag == THERE else action.etag)
                image_id, version = IMAGES[action.image % len(IMAGES)], MIN_VERSION + action.version
                event = created(self.tenant_id, image_id, location, version=version, tags=action.tags)
                self.flights.append(Flight(event))
            case Delete():
                image_id = IMAGES[action.image % len(IMAGES)]
                self.flights.append(Flight(deleted(self.tenant_id, image_id, version=MIN_VERSION + action.version)))
            case Redeliver() if self.flights:
                self.flights.append(Flight(self.flights[action.event % len(self.flights)].event))
            case Store():
                self.objects[KEYS[action.key % len(KEYS)]] = action.etag
            case Pending():
                self._note_pending(IMAGES[action.image % len(IMAGES)], MIN_VERSION + action.version)
            case Advance() if under_way := [flight for flight in self.flights if flight.phase != "ended"]:
                for _ in range(action.steps):
                    self.advance(under_way[action.flight % len(under_way)], failure=action.failure)
            case Drain():
                self.drain(failure=action.failure)
            case Repeat() if self.writes:
                self._write_once(*self.writes[action.write % len(self.writes)])
            case _:
                pass  # nothing there yet to advance or to repeat

    def _note_pending(self, image_id: str, version: int) -> None:
        self.pending.append((image_id, version))

        def land() -> None:
            self.truth.land_pending(self.tenant_id, image_id, version)

        self._write(Note(image_id, Attempt(version, AttemptState.PENDING, at_us=self._tick())), land)

    # ---- one step of one event ----

    def advance(self, flight: Flight, *, failure: Failure | None = None) -> None:
        """The flight's next step; `failure` counts only where a create fetches, embeds or has not yet written."""
        may_fail = flight.phase in {"head", "fetch"} or (flight.phase == "write" and flight.found_etag is not None)
        if failure is not None and may_fail:
            flight.phase, flight.failure = "failing", failure
            return
        match flight.phase:
            case "look":
                self._look(flight)
            case "head":
                self._head(flight)
            case "fetch":
                flight.found_etag, flight.phase = self._there(flight), "write"
                flight.all_found.add(flight.found_etag)
            case "write":
                self._finish(flight)
            case "failing":
                self._fail(flight)
            case "note":
                self._note_failure(flight)
            case "ended":
                pass

    def _look(self, flight: Flight) -> None:
        step = plan(flight.event, self.index.read(flight.event.image_id))
        flight.looked, flight.found_etag = self.truth.look(flight.event), None
        assert step.value == flight.looked.step, (flight.event, flight.looked)
        match step:
            case Step.UNCHANGED | Step.SUPERSEDED:
                flight.phase, flight.outcome = "ended", flight.looked.step  # type: ignore[assignment]  # the two words
            case Step.EMBED:
                flight.phase = "fetch"
            case Step.RECHECK:
                flight.phase = "head"
            case Step.REFRESH | Step.BURY:
                flight.phase = "write"

    def _head(self, flight: Flight) -> None:
        assert flight.looked is not None
        flight.outcome = self.truth.recheck(flight.looked, self._there(flight))
        flight.phase = "fetch" if flight.outcome is None else "ended"

    def _finish(self, flight: Flight) -> None:
        """Write; what is refused looks again."""
        event, looked, etag = flight.event, flight.looked, flight.found_etag
        assert looked is not None

        def land() -> bool:
            if event.is_delete:
                outcome = self.truth.land_delete(event)
            elif etag is None:
                outcome = self.truth.land_refresh(event, looked)
            else:
                outcome = self.truth.land_picture(event, looked, etag)
            if flight.phase != "ended":
                flight.phase, flight.outcome = "look" if outcome is None else "ended", outcome
            return outcome is not None

        self._write(self._write_of(event, looked, etag), land)

    def _write_of(self, event: ImageEvent, looked: Looked, etag: str | None) -> Write:
        at_us, image_id, version = self._tick(), event.image_id, event.version
        if event.is_delete:
            return Bury(image_id, version, at_us)
        assert event.location is not None
        if etag is None:
            assert event.location.etag is not None
            return Refresh(image_id, version, event.location, event.location.etag, event.tags)
        return PutVector(
            image_id=image_id,
            version=version,
            vector=vector_of(etag),
            location=event.location,
            etag=etag,
            sha256=etag * 64,
            indexed_at_us=at_us,
            tags=event.tags,
            replaces_etag=looked.read.etag if looked.step == "recheck" else None,
        )

    def _fail(self, flight: Flight) -> None:
        """Looked up again before anything is reported: what is stored by now may have made the try idle."""
        stored = self.index.read(flight.event.image_id)
        if stored is not None and stored.version >= flight.event.version:
            flight.phase, flight.outcome = "ended", "superseded"
        else:
            flight.phase = "note"  # the retry record or dead letter is acknowledged here

    def _note_failure(self, flight: Flight) -> None:
        event, failure = flight.event, flight.failure
        assert failure is not None

        def land() -> bool:
            outcome = self.truth.land_failure(event, failure)
            if flight.phase != "ended":
                flight.phase, flight.outcome = "ended", outcome
            return outcome != "superseded"

        attempt = Attempt(event.version, AttemptState(failure), Reason.IMAGE_MISSING, tries=1, at_us=self._tick())
        self._write(Note(event.image_id, attempt), land)

    def _there(self, flight: Flight) -> str:
        assert flight.event.location is not None
        return self.objects[flight.event.location.key]

    def _tick(self) -> int:
        self.clock_us += 1
        return self.clock_us

    # ---- every write, checked ----

    def _write(self, write: Write, land: Callable[[], bool | None]) -> None:
        """The write arrives, and arrives once more at once: the second changes nothing."""
        self.writes.append((write, land))
        written = self._write_once(write, land)
        after = self.index.read(write.image_id)
        assert self.index.write(write) is written, write
        assert self.index.read(write.image_id) == after, write

    def _write_once(self, write: Write, land: Callable[[], bool | None]) -> Written:
        before = {image_id: self.index.read(image_id) for image_id in IMAGES}
        written = self.index.write(write)
        expected = land()
        assert expected is None or expected == (written is Written.APPLIED), (write, written)
        self._check_rows()
        for image_id, point in before.items():
            if image_id == write.image_id:
                check_step(point, write, self.index.read(image_id))
            else:
                assert self.index.read(image_id) == point, "another image is left alone"
        return written

    def _check_rows(self) -> None:
        for image_id in IMAGES:
            row, point = self.truth.row(self.tenant_id, image_id), self.index.read(image_id)
            assert row_of(point) == row, (image_id, point)
            assert self.index.picture(image_id) == (None if row is None else row.etag), image_id

    # ---- the end ----

    def drain(self, *, failure: Failure | None = None) -> None:
        """Every event in flight comes to its end: each SUPERSEDED write looks again, and that ends."""
        for _ in range(10 * len(self.flights) + 10):
            under_way = [flight for flight in self.flights if flight.phase != "ended"]
            if not under_way:
                return
            for flight in under_way:
                self.advance(flight, failure=failure)
        raise AssertionError(f"these events never end: {under_way}")

    def check_settled(self) -> None:
        """However the events met, the highest version won, a delete won a tie, and failures only left notes."""
        for image_id in IMAGES:
            ended = [_ended(flight) for flight in self.flights if flight.event.image_id == image_id]
            pending = [version for noted, version in self.pending if noted == image_id]
            must = settled(ended, pending=pending)
            row = row_of(self.index.read(image_id)) or Row()
            assert (row.state, row.version) == (must.state, must.version), (row, must)
            assert (row.etag in must.etags) if must.etags else row.etag is None, (row, must)
            assert (row.note in must.notes) if must.notes else row.note is None, (row, must)


def _ended(flight: Flight) -> Ended:
    """A create may show what it found (also where that write was refused and came again late), or what it named."""
    named = None if flight.event.location is None else flight.event.location.etag
    etags = flight.all_found if named is None else flight.all_found | {named}
    return Ended(flight.event, flight.failure, frozenset(etags))


def play(tenant_id: str, index: Index, script: Sequence[Action]) -> World:
    """Run `script` on an index that holds nothing of this tenant, then let every event end; checked throughout."""
    world = World(tenant_id, index)
    for action in script:
        world.act(action)
    world.drain()
    world.check_settled()
    return world
