"""The generations of a collection: a server cannot rename, so a migrated collection has another name than its spec.

The first one is called as the spec says, those that migrations made have a number behind a ``~``. No id of
a model or a preprocessing has that character, the server allows it, and it stands in a URL as it is
(RFC 3986, 2.3). Which of them is in use follows from the alias alone wherever it means one of them:
moving it is the one step in which a migration takes effect, and everything beside it is left over.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from qdrant_client import QdrantClient, models

from embedder.index.qdrant_server.schema import COPY, SCHEMA_KEY

SEPARATOR = "~"


@dataclass(frozen=True, slots=True)
class Generation:
    """One collection of ours on the server; `copy` while a migration has not put it in use."""

    name: str
    info: models.CollectionInfo

    @property
    def copy(self) -> bool:
        return bool((self.info.config.metadata or {}).get(COPY))

    @property
    def logical(self) -> str:
        """The name that its spec has."""
        return self.name.partition(SEPARATOR)[0]

    @property
    def number(self) -> int:
        return number_of(self.name)


def number_of(name: str) -> int:
    """1 for a name without a number; 0 where what follows is none, which no name of ours has."""
    _, found, number = name.partition(SEPARATOR)
    if not found:
        return 1
    return int(number) if number.isascii() and number.isdigit() else 0


def following(client: QdrantClient, logical: str) -> str:
    """The name of the next one: its number is higher than any there is, also than that of a copy at work."""
    names = [one.name for one in client.get_collections().collections]
    newest = max((number_of(name) for name in names if name.partition(SEPARATOR)[0] == logical), default=0)
    return f"{logical}{SEPARATOR}{newest + 1}"


def found(client: QdrantClient, logical: str | None = None) -> list[Generation]:
    """Those of one collection, the oldest first; without a name those of all, by name.

    What others keep on the server is left out, whatever it is called.
    """
    names = [one.name for one in client.get_collections().collections]
    wanted = [name for name in names if logical in {None, name.partition(SEPARATOR)[0]} and number_of(name)]
    generations = [Generation(name, client.get_collection(name)) for name in wanted]
    ours = [one for one in generations if SCHEMA_KEY in (one.info.config.metadata or {})]
    return sorted(ours, key=lambda one: (one.logical, one.number))


def in_use(generations: Sequence[Generation], aliased: str | None) -> Generation | None:
    """The one that is written to and searched: what the alias means, else the newest that was in use already.

    `generations` are those of one collection. A copy that the alias means is in use, though nobody came to
    say so in its metadata.
    """
    behind_alias = [one for one in generations if one.name == aliased]
    candidates = behind_alias or [one for one in generations if not one.copy]
    return candidates[-1] if candidates else None


def finish(client: QdrantClient, used: Generation, generations: Sequence[Generation]) -> None:
    """End what a migration that was killed has left of `used`; may be called at every start.

    Says that it is no copy any more, then removes those that it has replaced: they get no writes, so
    nobody may come back to them. A newer one is left alone: that may be a copy at work.
    """
    if used.copy:
        client.update_collection(used.name, metadata={**(used.info.config.metadata or {}), COPY: False})
    for one in generations:
        if one.number < used.number:
            client.delete_collection(one.name)
