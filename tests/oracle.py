"""What the design's table of events says must be stored: written from the table alone, to judge the code that does it.

It knows nothing of ``embedder.index.points`` and shares no code with it. Three ways to use it:

* step by step (`look`, then one of the `land_*`), where a test decides how events interleave;
* :meth:`Oracle.apply_event`, where each event runs alone from its look to its end;
* :func:`settled`, where only the ends are known (a whole worker, any interleaving): what must be
  stored however the events met.

A picture is named by its ETag: the same ETag is the same bytes, hence the same vector.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, replace
from typing import Literal

from streams.event import ImageEvent

State = Literal["indexed", "deleted", "empty"]
Outcome = Literal["indexed", "unchanged", "superseded", "deleted", "retrying", "failed"]
NoteState = Literal["pending", "retrying", "failed"]
Failure = Literal["retrying", "failed"]
Step = Literal["embed", "refresh", "recheck", "bury", "unchanged", "superseded"]


@dataclass(frozen=True)
class Note:
    """The newest try that was not applied."""

    version: int
    state: NoteState


@dataclass(frozen=True)
class Row:
    """What must be stored of one image; `etag` and `place` (bucket, key) are of the searchable picture."""

    state: State = "empty"
    version: int = 0
    etag: str | None = None
    place: tuple[str, str] | None = None
    tags: tuple[str, ...] = ()
    note: Note | None = None


@dataclass(frozen=True)
class Looked:
    """What an event found: the table's row for it, and what was read."""

    step: Step
    read: Row


class Oracle:
    """The stored rows of any number of images, changed by the table's rules only."""

    def __init__(self) -> None:
        self._rows: dict[tuple[str, str], Row] = {}

    def row(self, tenant_id: str, image_id: str) -> Row | None:
        """What must be stored, None for nothing."""
        return self._rows.get((tenant_id, image_id))

    # ---- the column "event" meets the column "stored" ----

    def look(self, event: ImageEvent) -> Looked:
        """Which row of the table an event falls in."""
        read = self._read(event)
        return Looked(_deleted_row(event, read) if event.is_delete else _created_row(event, read), read)

    def recheck(self, looked: Looked, there_etag: str) -> Outcome | None:
        """After a HEAD: the object is what is stored → nothing. None: embed it."""
        return "unchanged" if there_etag == looked.read.etag else None

    # ---- the column "write": None means that it was refused and the event looks again ----

    def land_picture(self, event: ImageEvent, looked: Looked, etag: str) -> Outcome | None:
        """The picture found at the event's location was embedded and is written now."""
        now = self._read(event)
        if now.version < event.version:
            return self._store_picture(event, etag)
        if now.version > event.version or now.state != "indexed":
            return None
        if now.etag == etag:
            return "indexed"  # a step done twice changes nothing
        if looked.step == "recheck" and now.etag == looked.read.etag:
            return self._store_picture(event, etag)
        return None

    def land_refresh(self, event: ImageEvent, looked: Looked) -> Outcome | None:
        """Version, tags and attributes only, where state, ETag and location are still those read."""
        now, read = self._read(event), looked.read
        same = (now.state, now.etag, now.place) == (read.state, read.etag, read.place)
        if not same or now.version > event.version:
            return None
        if now.version < event.version:
            self._store(event, replace(now, version=event.version, tags=event.tags))
        return "unchanged"

    def land_delete(self, event: ImageEvent) -> Outcome | None:
        """A tombstone: the vector is gone."""
        now = self._read(event)
        if now.version > event.version:
            return None
        self._store(event, Row("deleted", event.version, note=now.note))
        return "deleted"

    def land_failure(self, event: ImageEvent, state: Failure) -> Outcome:
        """A created failed: the attempt only, unless something as new is stored by now."""
        now = self._read(event)
        if now.version >= event.version:
            return "superseded"
        if now.note is None or event.version >= now.note.version:
            self._store(event, replace(now, note=Note(event.version, state)))
        return state

    def land_pending(self, tenant_id: str, image_id: str, version: int) -> None:
        """The API's note after it has announced a picture: pending comes first, so it replaces no try as new."""
        now = self._rows.get((tenant_id, image_id), Row())
        if now.version < version and (now.note is None or now.note.version < version):
            self._rows[tenant_id, image_id] = replace(now, note=Note(version, "pending"))

    # ---- an event alone ----

    def apply_event(
        self, event: ImageEvent, *, there_etag: str | None = None, failure: Failure | None = None
    ) -> Outcome:
        """One event from its look to its end with nothing in between.

        `there_etag` is what lies at its location; `failure` how it fails where it has to fetch.
        """
        looked = self.look(event)
        outcome: Outcome | None
        match looked.step:
            case "unchanged" | "superseded":
                return looked.step
            case "bury":
                outcome = self.land_delete(event)
            case "refresh":
                outcome = self.land_refresh(event, looked)
            case "embed" | "recheck" if failure is not None:
                return self.land_failure(event, failure)
            case "embed" | "recheck":
                assert there_etag is not None, "an event that fetches needs to be told what is there"
                outcome = self.recheck(looked, there_etag) if looked.step == "recheck" else None
                outcome = outcome or self.land_picture(event, looked, there_etag)
        assert outcome is not None, "alone, no write can be refused"
        return outcome

    def _read(self, event: ImageEvent) -> Row:
        return self._rows.get((event.tenant_id, event.image_id), Row())

    def _store_picture(self, event: ImageEvent, etag: str) -> Outcome:
        assert event.location is not None
        place = (event.location.bucket, event.location.key)
        self._store(event, Row("indexed", event.version, etag, place, event.tags, self._read(event).note))
        return "indexed"

    def _store(self, event: ImageEvent, row: Row) -> None:
        """Attempts not newer than what is applied are dropped."""
        served = row.note is not None and row.note.version <= row.version
        self._rows[event.tenant_id, event.image_id] = replace(row, note=None) if served else row


def _created_row(event: ImageEvent, read: Row) -> Step:
    assert event.location is not None
    etag, place = event.location.etag, (event.location.bucket, event.location.key)
    if read.version > event.version or (read.version == event.version and read.state == "deleted"):
        return "superseded"
    if read.version == event.version:
        return "unchanged" if etag in {None, read.etag} else "recheck"
    as_stored = etag is not None and (read.etag, read.place) == (etag, place)
    return "refresh" if read.state == "indexed" and as_stored else "embed"


def _deleted_row(event: ImageEvent, read: Row) -> Step:
    return "bury" if read.version <= event.version else "superseded"


# ---- only the ends are known -------------------------------------------------------------------


@dataclass(frozen=True)
class Ended:
    """An event that has ended: `failure` where its last try failed; else `etags` that it may have made searchable."""

    event: ImageEvent
    failure: Failure | None = None
    etags: frozenset[str] = frozenset()


@dataclass(frozen=True)
class Settled:
    """What must be stored of one image: `etags` and `notes` are what is allowed, empty for none."""

    state: State = "empty"
    version: int = 0
    etags: frozenset[str] = frozenset()
    notes: frozenset[Note] = frozenset()


def settled(ended: Iterable[Ended], *, pending: Iterable[int] = ()) -> Settled:
    """What must be stored of one image after all its events, in whatever order they met.

    The highest version that did not fail wins, a delete wins a tie; what failed leaves a note where
    it is newer. `pending` are the versions that the API noted.
    """
    ends = list(ended)
    applied = [end for end in ends if end.failure is None]
    version = max((end.event.version for end in applied), default=0)
    newest = [end for end in applied if end.event.version == version]
    notes = _allowed_notes(ends, pending, version=version)
    if not newest:
        return Settled(notes=notes)
    if any(end.event.is_delete for end in newest):
        return Settled("deleted", version, notes=notes)
    return Settled("indexed", version, frozenset().union(*(end.etags for end in newest)), notes)


def _allowed_notes(ends: list[Ended], pending: Iterable[int], *, version: int) -> frozenset[Note]:
    tries = {Note(end.event.version, end.failure) for end in ends if end.failure is not None}
    newer = [note for note in tries if note.version > version]
    announced = [at for at in pending if at > version]
    newest = max([note.version for note in newer] + announced, default=0)
    told = frozenset(note for note in newer if note.version == newest)
    return told or frozenset(Note(at, "pending") for at in announced if at == newest)
