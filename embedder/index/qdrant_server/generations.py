"""The generations of a collection: a server cannot rename, so a migrated collection has another name than its spec.

The first one is called as the spec says, those that migrations made have a number behind a ``~``. No id of
a model or a preprocessing has that character, the server allows it, and it stands in a URL as it is
(RFC 3986, 2.3). Which of them is in use follows from the alias alone wherever it means one of them:
moving it is the one step in which a migration takes effect, and everything beside it is left over.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from qdrant_client import QdrantClient, models

from embedder.index.qdrant_server.schema import COPY, SCHEMA_KEY

SEPARATOR = "~"


@dataclass(frozen=True, slots=True)
class Aliases:
    """What the aliases on a server mean: `own` is this deployment's, others may share the server."""

    own: str
    means: Mapping[str, str]

    @property
    def current(self) -> str | None:
        """The collection behind our own."""
        return self.means.get(self.own)

    def of(self, name: str) -> list[str]:
        """Every alias that means this collection, whoever's."""
        return sorted(alias for alias, meant in self.means.items() if meant == name)

    def others_of(self, name: str) -> list[str]:
        """The aliases but ours that mean it."""
        return [alias for alias in self.of(name) if alias != self.own]


def read_aliases(client: QdrantClient, own: str) -> Aliases:
    """As they are now."""
    return Aliases(own, {one.alias_name: one.collection_name for one in client.get_aliases().aliases})


@dataclass(frozen=True, slots=True)
class Generation:
    """One collection of ours on the server."""

    name: str
    info: models.CollectionInfo

    @property
    def copied_for(self) -> str | None:
        """The alias whose migration makes it; None once it says that it is in use."""
        alias = (self.info.config.metadata or {}).get(COPY)
        return str(alias) if alias else None

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


def in_use(generations: Sequence[Generation], aliases: Aliases) -> Generation | None:
    """The one that is written to and searched: what our alias means, else the newest that was in use already.

    `generations` are those of one collection. A copy that the alias of its migration means is in use, though
    nobody came to say so in its metadata.
    """
    behind_alias = [one for one in generations if one.name == aliases.current]
    candidates = behind_alias or [
        one for one in generations if one.copied_for is None or aliases.means.get(one.copied_for) == one.name
    ]
    return candidates[-1] if candidates else None


def put_in_use(client: QdrantClient, used: Generation) -> None:
    """Let it say itself that it is in use, so that it stays so when the alias is switched away."""
    if used.copied_for is not None:
        client.update_collection(used.name, metadata={**(used.info.config.metadata or {}), COPY: False})


def finish(client: QdrantClient, used: Generation, generations: Sequence[Generation], own: str) -> None:
    """End what a migration that was killed has left of `used`; may be called at every start.

    Says that it is in use, then removes those that it has replaced: they get no writes, so nobody may come
    back to them. Left alone are a newer one, which may be a copy at work, another deployment's copy, and
    whatever any alias means.
    """
    put_in_use(client, used)
    for one in generations:
        if one.number < used.number and one.copied_for in {None, own}:
            remove_unmeant(client, one.name, own)


def remove_leftovers(client: QdrantClient, logical: str, own: str) -> None:
    """Remove what migrations of the alias `own` that were cut short have left of this collection."""
    generations = found(client, logical)
    aliases = read_aliases(client, own)  # in this order: a copy may come into use meanwhile
    used = in_use(generations, aliases)
    for one in generations:
        if one.copied_for == own and one is not used:
            remove_unmeant(client, one.name, own)
    if used is not None:
        finish(client, used, generations, own)


def remove_unmeant(client: QdrantClient, name: str, own: str) -> None:
    """Delete a collection, unless an alias means it now: somebody's searches go there."""
    if not read_aliases(client, own).of(name):
        client.delete_collection(name)
