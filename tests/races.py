"""The races that the design names, as scripts with what must come of them: for any index."""

from __future__ import annotations

from tests.script import RECHECKING, REFRESHING, Action, Advance, Announce, Delete, Drain, Redeliver, Store
from tests.table import Case, buried

_FETCHED: list[Action] = [Advance(0), Advance(0)]
"""The oldest event in flight looks and fetches; its write is still to come."""
_WRITTEN = Advance(0)

RACES: list[Case] = [
    Case(
        "a recheck writes only over the picture that it saw",
        [
            *RECHECKING,
            Store(0, "c"),
            Announce(0, 1, etag="c"),
            Advance(1, steps=4),  # overtaken by c
        ],
        ["indexed", "unchanged", "indexed"],
        etag="c",
    ),
    Case(
        "two first creates of one version: the later one looks again",
        [Announce(0, 1, etag="a"), Announce(0, 1, etag="b"), *_FETCHED, Store(0, "b"), Advance(1, steps=3), _WRITTEN],
        ["unchanged", "indexed"],
        etag="b",
    ),
    buried(
        "a picture fetched before the delete is not resurrected after it",
        [Announce(0, 1), *_FETCHED, Delete(0, 2), Advance(1, steps=2), _WRITTEN],
        ["superseded", "deleted"],
        version=2,
    ),
    Case(
        "an older picture written late does not set back a newer one",
        [Announce(0, 1), *_FETCHED, Store(0, "b"), Announce(0, 2), Advance(1, steps=3), _WRITTEN],
        ["superseded", "indexed"],
        version=2,
        etag="b",
    ),
    Case(
        "a refresh of a picture that was replaced meanwhile fetches after all",
        [
            Announce(0, 1),
            Drain(),
            Announce(0, 3, etag="a"),
            Advance(0),  # planned: the same object
            Store(0, "b"),
            Announce(0, 2),
            Advance(1, steps=3),
            Store(0, "c"),
            _WRITTEN,
        ],
        ["indexed", "indexed", "indexed"],
        version=3,
        etag="c",
    ),
    Case(
        "a refresh of a picture that was deleted meanwhile fetches after all",
        [Announce(0, 1), Drain(), Announce(0, 3, etag="a"), Advance(0), Delete(0, 2), Advance(1, steps=2), _WRITTEN],
        ["indexed", "indexed", "deleted"],
        version=3,
    ),
    Case(
        "a refresh written late does not set back a newer one of the same picture",
        [*REFRESHING, Announce(0, 3, etag="a", tags=("y",)), Advance(1, steps=2), _WRITTEN],
        ["indexed", "superseded", "unchanged"],
        version=3,
        tags=("y",),
    ),
    Case(
        "of two refreshes to one version the first gives the tags",
        [*REFRESHING, Announce(0, 2, etag="a", tags=("y",)), Advance(1, steps=2), _WRITTEN],
        ["indexed", "unchanged", "unchanged"],
        version=2,
        tags=("y",),
    ),
    Case(
        "a recheck written late does not set back a refresh of the picture that it saw",
        [*RECHECKING, Announce(0, 2, etag="a"), Advance(1, steps=2), _WRITTEN],
        ["indexed", "superseded", "unchanged"],
        version=2,
    ),
    Case(
        "a failure of a version that is applied by now is superseded",
        [Announce(0, 1), Redeliver(0), *_FETCHED, Advance(1, steps=3), Advance(0, "failed")],
        ["superseded", "indexed"],
    ),
    Case(
        "a failure whose note comes after a newer picture is superseded",
        [Announce(0, 1), *_FETCHED, Advance(0, "failed"), Advance(0), Announce(0, 2), Advance(1, steps=3)],
        ["superseded", "indexed"],
        version=2,
    ),
    buried(
        "a failure of the version of a tombstone is superseded",
        [Announce(0, 1), *_FETCHED, Advance(0, "failed"), Advance(0), Delete(0, 1), Advance(1, steps=2)],
        ["superseded", "deleted"],
    ),
]
