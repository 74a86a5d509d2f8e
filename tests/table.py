"""The design's table of events, row by row, as scripts with what must come of them: for any index."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from streams.event import MIN_VERSION
from tests.interleavings import play
from tests.script import Action, Announce, Delete, Drain, Index, Pending, Redeliver, Repeat, Store


@dataclass(frozen=True)
class Case:
    """A row of the table: after `script` the outcomes (in order of entry) and what is stored are these."""

    fact: str
    script: Sequence[Action]
    outcomes: Sequence[str]
    state: str = "indexed"
    version: int = 1
    etag: str | None = "a"
    tags: tuple[str, ...] = ()
    note: tuple[int, str] | None = None


def empty(fact: str, script: Sequence[Action], outcomes: Sequence[str], *, note: tuple[int, str]) -> Case:
    """Nothing was ever applied; the note is all there is."""
    return Case(fact, script, outcomes, state="empty", version=0, etag=None, note=note)


def buried(
    fact: str,
    script: Sequence[Action],
    outcomes: Sequence[str],
    *,
    version: int = 1,
    note: tuple[int, str] | None = None,
) -> Case:
    """A tombstone."""
    return Case(fact, script, outcomes, state="deleted", version=version, etag=None, note=note)


ROWS: list[Case] = [
    Case("a first create is indexed", [Announce(0, 1)], ["indexed"]),
    Case(
        "a newer create replaces the picture",
        [Announce(0, 1), Drain(), Store(0, "b"), Announce(0, 2)],
        ["indexed", "indexed"],
        version=2,
        etag="b",
    ),
    Case(
        "an older create is superseded",
        [Announce(0, 2), Drain(), Store(0, "b"), Announce(0, 1)],
        ["indexed", "superseded"],
        version=2,
    ),
    Case(
        "a newer create of the very same object changes version and tags and fetches nothing",
        [Announce(0, 1), Drain(), Store(0, "b"), Announce(0, 2, etag="a", tags=("x",))],
        ["indexed", "unchanged"],
        version=2,
        tags=("x",),
    ),
    Case(
        "the same ETag under another key is another object",
        [Announce(0, 1), Store(1, "b"), Drain(), Announce(0, 2, key=1, etag="a")],
        ["indexed", "indexed"],
        version=2,
        etag="b",
    ),
    Case(
        "the same version without an ETag changes nothing",
        [Announce(0, 1), Drain(), Store(0, "b"), Announce(0, 1, tags=("x",))],
        ["indexed", "unchanged"],
    ),
    Case(
        "the same version with the stored ETag changes nothing",
        [Announce(0, 1), Drain(), Store(0, "b"), Announce(0, 1, etag="a", tags=("x",))],
        ["indexed", "unchanged"],
    ),
    Case(
        "the same version with another ETag changes nothing while the object is what is stored",
        [Announce(0, 1), Drain(), Announce(0, 1, etag="b", tags=("x",))],
        ["indexed", "unchanged"],
    ),
    Case(
        "the same version with another ETag replaces the picture when the object is another one",
        [Announce(0, 1), Drain(), Store(0, "b"), Announce(0, 1, etag="b", tags=("x",))],
        ["indexed", "indexed"],
        etag="b",
        tags=("x",),
    ),
    Case(
        "the picture that lies there is indexed under its own ETag",
        [Store(0, "b"), Announce(0, 1, etag="a")],
        ["indexed"],
        etag="b",
    ),
    buried("a delete leaves a tombstone", [Announce(0, 1), Drain(), Delete(0, 2)], ["indexed", "deleted"], version=2),
    buried("a delete of nothing leaves one too", [Delete(0, 1)], ["deleted"]),
    buried(
        "a delete wins a tie against what is stored", [Announce(0, 1), Drain(), Delete(0, 1)], ["indexed", "deleted"]
    ),
    buried(
        "a delete wins a tie against what comes later",
        [Delete(0, 1), Drain(), Announce(0, 1, etag="a")],
        ["deleted", "superseded"],
    ),
    Case(
        "an older delete is superseded", [Announce(0, 2), Drain(), Delete(0, 1)], ["indexed", "superseded"], version=2
    ),
    Case(
        "a create newer than the tombstone is indexed",
        [Delete(0, 1), Drain(), Announce(0, 2, etag="a")],
        ["deleted", "indexed"],
        version=2,
    ),
    Case(
        "a newer attempt that failed leaves the searchable picture",
        [Announce(0, 1), Drain(), Announce(0, 2), Drain("failed")],
        ["indexed", "failed"],
        note=(2, "failed"),
    ),
    empty(
        "an attempt that failed on nothing leaves an empty point that carries it",
        [Announce(0, 2), Drain("retrying")],
        ["retrying"],
        note=(2, "retrying"),
    ),
    buried(
        "an attempt that failed on a tombstone leaves the tombstone",
        [Delete(0, 1), Drain(), Announce(0, 2), Drain("failed")],
        ["deleted", "failed"],
        note=(2, "failed"),
    ),
    empty(
        "an older failure does not replace the note of a newer one",
        [Announce(0, 3), Drain("failed"), Announce(0, 2), Drain("retrying")],
        ["failed", "retrying"],
        note=(3, "failed"),
    ),
    empty(
        "retrying becomes failed",
        [Announce(0, 2), Drain("retrying"), Redeliver(0), Drain("failed")],
        ["retrying", "failed"],
        note=(2, "failed"),
    ),
    Case(
        "a picture that is applied drops the notes not newer than it",
        [Announce(0, 1), Drain("retrying"), Redeliver(0)],
        ["retrying", "indexed"],
    ),
    Case(
        "a picture that is applied keeps a newer note",
        [Announce(0, 2), Drain("failed"), Announce(0, 1)],
        ["failed", "indexed"],
        note=(2, "failed"),
    ),
    Case(
        "a refresh drops the notes not newer than it",
        [Announce(0, 1), Drain(), Announce(0, 2), Drain("failed"), Announce(0, 2, etag="a")],
        ["indexed", "failed", "unchanged"],
        version=2,
    ),
    Case(
        "a refresh keeps a newer note",
        [Announce(0, 1), Drain(), Announce(0, 3), Drain("failed"), Announce(0, 2, etag="a")],
        ["indexed", "failed", "unchanged"],
        version=2,
        note=(3, "failed"),
    ),
    buried(
        "a tombstone drops the notes not newer than it",
        [Announce(0, 2), Drain("failed"), Delete(0, 2)],
        ["failed", "deleted"],
        version=2,
    ),
    buried(
        "a tombstone keeps a newer note",
        [Announce(0, 3), Drain("failed"), Delete(0, 2)],
        ["failed", "deleted"],
        version=2,
        note=(3, "failed"),
    ),
    empty("pending is noted on nothing", [Pending(0, 1)], [], note=(1, "pending")),
    empty(
        "pending replaces the note of an older try",
        [Announce(0, 1), Drain("failed"), Pending(0, 2)],
        ["failed"],
        note=(2, "pending"),
    ),
    empty(
        "pending that comes late does not hide how the try went",
        [Announce(0, 2), Drain("failed"), Pending(0, 2)],
        ["failed"],
        note=(2, "failed"),
    ),
    Case("pending that comes after the picture is dropped", [Announce(0, 1), Drain(), Pending(0, 1)], ["indexed"]),
    Case(
        "a write that comes again after a newer one is refused",
        [Announce(0, 1), Drain(), Store(0, "b"), Announce(0, 2), Drain(), Repeat(0)],
        ["indexed", "indexed"],
        version=2,
        etag="b",
    ),
    Case(
        "a tombstone that comes again after a newer picture is refused",
        [Delete(0, 1), Drain(), Announce(0, 2), Drain(), Repeat(0)],
        ["deleted", "indexed"],
        version=2,
    ),
]


def check(case: Case, tenant_id: str, index: Index) -> None:
    """Play the case on an index that holds nothing of this tenant, and compare what the case says in so many words."""
    world = play(tenant_id, index, case.script)
    assert [flight.outcome for flight in world.flights] == list(case.outcomes)
    point = index.read("i0")
    assert point is not None
    assert (point.state, point.etag, point.tags) == (case.state, case.etag, case.tags)
    assert point.version == (MIN_VERSION + case.version if case.version else 0)
    note = None if point.attempt is None else (point.attempt.version - MIN_VERSION, point.attempt.state.value)
    assert note == case.note
    assert index.picture("i0") == case.etag
