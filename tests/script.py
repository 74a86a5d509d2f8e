"""What a random or a written test does to an index: a script is a list of these actions, plain data.

Every number in an action is taken modulo what there is, so any list is a valid script and shrinks well.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

import numpy as np
from hypothesis import strategies as st

from embedder.index.points import Point, Vector, Write, Written
from tests.oracle import Failure

THERE = "there"
BUCKET = "pictures"
ETAGS = ("a", "b", "c", "d")
KEYS = ("k0", "k1")
IMAGES = ("i0", "i1")
VECTOR_DIM = 8


def vector_of(etag: str) -> Vector:
    """The vector of the picture with this ETag; pictures with different ones are at right angles."""
    vector = np.zeros(VECTOR_DIM, dtype=np.float32)
    vector[ETAGS.index(etag)] = 1.0
    return vector


class Index(Protocol):
    """What is played on: the points of one tenant."""

    def read(self, image_id: str) -> Point | None: ...

    def write(self, write: Write) -> Written: ...

    def picture(self, image_id: str) -> str | None:
        """The ETag of the picture whose vector a search finds for this image, None where it finds none."""
        ...


@dataclass(frozen=True)
class Announce:
    """A created event enters; `etag` is what the producer says, THERE for what lies there now."""

    image: int
    version: int
    key: int = 0
    etag: str | None = None
    tags: tuple[str, ...] = ()


@dataclass(frozen=True)
class Delete:
    """A deleted event enters."""

    image: int
    version: int


@dataclass(frozen=True)
class Redeliver:
    """An event that entered before enters once more."""

    event: int


@dataclass(frozen=True)
class Store:
    """The object under `key` becomes another one."""

    key: int
    etag: str


@dataclass(frozen=True)
class Pending:
    """The API notes a picture that it has announced."""

    image: int
    version: int


@dataclass(frozen=True)
class Advance:
    """One event in flight does its next steps, or fails where it can."""

    flight: int
    failure: Failure | None = None
    steps: int = 1


@dataclass(frozen=True)
class Repeat:
    """A write of the past arrives once more, however late."""

    write: int


@dataclass(frozen=True)
class Drain:
    """Every event in flight comes to its end; each fails with `failure` where one is given and it can fail."""

    failure: Failure | None = None


Action = Announce | Delete | Redeliver | Store | Pending | Advance | Repeat | Drain


_versions = st.sampled_from([1, 1, 2, 2, 3])  # few of everything and most of it on one image, so that things meet
_etags = st.sampled_from(ETAGS[:2])
_told = st.sampled_from([None, THERE, THERE, THERE, *ETAGS[:2]])
_tags: st.SearchStrategy[tuple[str, ...]] = st.sampled_from([(), ("x",), ("y",)])
_failures: st.SearchStrategy[Failure | None] = st.sampled_from([None, None, None, None, "retrying", "failed"])
_images = st.sampled_from([0, 0, 0, 0, 1])
_keys = st.sampled_from([0, 0, 0, 1])
_picks = st.integers(0, 9)
_enter: list[st.SearchStrategy[Action]] = [
    st.builds(Announce, _images, _versions, _keys, _told, _tags),
    st.builds(Announce, _images, _versions, _keys, _told, _tags),
    st.builds(Announce, _images, _versions, _keys, _told, _tags),
    st.builds(Delete, _images, _versions),
    st.builds(Redeliver, _picks),
]
_meddle: list[st.SearchStrategy[Action]] = [
    st.builds(Store, _keys, _etags),
    st.builds(Pending, _images, _versions),
    st.builds(Repeat, _picks),
]
_advance: list[st.SearchStrategy[Action]] = [
    st.builds(Advance, st.integers(0, 3), _failures, st.integers(1, 4)),
    st.builds(Advance, st.integers(0, 3), st.none(), st.integers(1, 3)),
]
_actions = st.one_of(*_enter, *_meddle, *_advance * 4, st.builds(Drain))


FOUND: list[Action] = [Announce(0, 1), Drain()]
"""Picture a is stored."""
REFRESHING: list[Action] = [*FOUND, Announce(0, 2, etag="a", tags=("x",)), Advance(0)]
"""Picture a is stored; a newer event of the very same object has looked, its write is still to come."""
RECHECKING: list[Action] = [*FOUND, Store(0, "b"), Announce(0, 1, etag="b"), Advance(0, steps=3)]
"""Picture a is stored; the same version named b, which has been asked for and fetched; its write is still to come."""


def scripts() -> st.SearchStrategy[list[Action]]:
    """Random scripts of up to 40 actions, half of them steps of what is in flight; some start amid a race."""
    starts = st.sampled_from([[], FOUND, REFRESHING, RECHECKING])
    return st.builds(list.__add__, starts, st.lists(_actions, min_size=15, max_size=35))
