"""What is promised of any single write to an index, whatever event it comes from."""

from __future__ import annotations

from embedder.index.points import Bury, Note, Point, State, Write
from tests.oracle import Note as NoteRow
from tests.oracle import Row


def row_of(point: Point | None) -> Row | None:
    """A point as the oracle speaks of it."""
    if point is None:
        return None
    place = None if point.location is None else (point.location.bucket, point.location.key)
    note = None if point.attempt is None else NoteRow(point.attempt.version, point.attempt.state.value)
    return Row(point.state.value, point.version, point.etag, place, point.tags, note)


def check_step(before: Point | None, write: Write, after: Point | None) -> None:
    """What is promised of any single write, whatever the table says."""
    was, now = before or _NOTHING, after or _NOTHING
    assert now.version >= was.version, "versions never go back"
    if was.state is State.INDEXED and now.state is not State.INDEXED:
        assert isinstance(write, Bury), "a searchable picture leaves by a delete"
        assert write.version >= was.version, "and not by a late one"
    if was.state is State.DELETED and now.state is State.INDEXED:
        assert now.version > was.version, "nothing is resurrected"
    if isinstance(write, Note):
        parts = [(point.state, point.version, point.etag, point.tags) for point in (was, now)]
        assert parts[0] == parts[1], "a failed try changes nothing but the note"
    if now.attempt is not None:
        assert now.attempt.version > now.version, "a note is about something newer than what is applied"


_NOTHING = Point("", "", version=0, state=State.EMPTY)
