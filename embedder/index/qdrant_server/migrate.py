"""Build a collection on a server anew with other declared fields: payload indexes have to be there before any point.

A server cannot rename, so the copy is the next generation (`generations.py`), and the alias that is moved to it
is the one step in which everything changes. Before that step the old collection is in use and whole, whatever
ends the migration; behind it the new one is. What a kill leaves is put in order by the next migration, and by
a worker that starts.

Workers are to be stopped. Those that are not are noticed: the two collections never become equal, and nothing
is changed. At the end the old collection takes no writes (`fence`), so that what was compared stays as it was;
a worker that is refused repeats its writes later and loses none. Searches go on all the time.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

from qdrant_client import QdrantClient, models

from embedder.index.fields import Field
from embedder.index.qdrant_server.client import ALIAS_AGE_S
from embedder.index.qdrant_server.connect import Server
from embedder.index.qdrant_server.generations import Generation, following, put_in_use, remove_leftovers, remove_unmeant
from embedder.index.qdrant_server.pair import Pair
from embedder.index.qdrant_server.schema import complete, fence, is_fenced, lift_fence, make
from embedder.index.qdrant_server.transport import asked
from streams.errors import ConfigError, DependencyError

READY_S = 4 * 3600.0
"""Graphs of 100,000 points took a server 3 to 5 minutes on two shared cores: time for some millions."""
ANSWER_S = 60.0
"""For one call: removing a large collection takes longer than a write."""
LOOK_S, TOLD_S = 1.0, 10.0
SETTLED_S = 1.0
"""A write that was let through before the fence came up is applied by then."""


@dataclass(frozen=True, slots=True)
class Migrated:
    """What came of it: the name of the collection that is in use now, and how many points it has."""

    collection: str
    points: int


def migrate(
    server: Server,
    fields: Sequence[Field],
    *,
    told: Callable[[str], None],
    ready_s: float = READY_S,
    clock: Callable[[], float] = time.monotonic,
    pause: Callable[[float], None] = time.sleep,
) -> Migrated:
    """Migrate what the alias means, to `fields`; `told` hears how far it is. Blocks until the new graphs are built.

    Raises:
        ConfigError: there is no collection, or somebody writes to it; nothing was changed.
        DependencyError: the server does not answer, or is not ready after `ready_s`; nothing was changed, or the next
            migration or start of a worker finishes it.
    """
    with asked():
        source = _source(server)
        spec = replace(server.spec_of(source), fields=tuple(fields))
        remove_leftovers(server.client, spec.name, server.alias)
        client, copy = server.client, following(server.client, spec.name)
        both = Pair(client, server.transport(copy), source, copy, spec)
        waiting = Waiting(client, told, ready_s=ready_s, clock=clock, pause=pause)
        make(client, spec, copy, copied_for=server.alias)  # refused where another migration has just made it
        try:
            complete(client, spec, copy)
            both.copy_all(waiting.tell)
            both.catch_up()
            waiting.until_ready(copy)
            client.update_collection(source, strict_mode_config=fence())
            pause(SETTLED_S)
            n_points = both.catch_up()
            _commit(server, source, copy, n_points)
        except BaseException:
            _undo(server, source, copy)
            raise
        put_in_use(client, Generation(copy, client.get_collection(copy)))
        pause(2 * ALIAS_AGE_S)  # APIs believe the alias for a while: what they search has to be there
        remove_leftovers(client, spec.name, server.alias)
    return Migrated(copy, n_points)


def _source(server: Server) -> str:
    """What the alias means, open to writes again where a migration was killed behind its fence."""
    source = server.aliased()
    if source is None:
        raise ConfigError("there is no collection yet: start a worker, it makes one")
    lift_fence(server.client, source, server.client.get_collection(source))
    _check_alone(server, source)
    return source


def _check_alone(server: Server, source: str) -> None:
    """ConfigError where another alias means it too: its deployment would lose its collection, or have other fields."""
    if others := server.aliases().others_of(source):
        raise ConfigError(
            f"{source} is what other aliases mean as well ({', '.join(others)}): let them mean another collection, "
            "or remove them, and migrate again"
        )


def _commit(server: Server, source: str, copy: str, n_points: int) -> None:
    """Move the alias, if nobody has moved it, removed points or let writes through meanwhile.

    A worker that starts lifts the fence first and then looks where the alias is (`Server.ensure`); here the
    alias is moved first and then the fence looked at. So one of the two sees what the other one did.
    """
    _check_fenced(server, source)
    if server.aliased() != source:
        raise ConfigError(f"the alias {server.alias} was switched while {source} was copied: migrate again")
    _check_alone(server, source)
    if server.client.count(source, exact=True).count != n_points:  # the fence lets deletes through
        raise ConfigError(f"points of {source} were deleted while it was compared: migrate again")
    server.point_alias(copy)
    if server.aliased() != copy:
        raise ConfigError(f"{copy} was removed by somebody: is another migration at work?")
    try:
        _check_fenced(server, source)
    except ConfigError:
        server.point_alias(source)
        raise


def _check_fenced(server: Server, source: str) -> None:
    if not is_fenced(server.client.get_collection(source)):
        raise ConfigError(f"a worker was started while {source} was copied: stop the workers and migrate again")


def _undo(server: Server, source: str, copy: str) -> None:
    """Leave everything as it was, unless the alias means the copy already: then it is complete."""
    with asked():
        if server.aliased() == copy:
            return
        if server.client.collection_exists(source):
            lift_fence(server.client, source, server.client.get_collection(source))
        remove_unmeant(server.client, copy, server.alias)


class Waiting:
    """Tells how far it is every few seconds, and waits for the server."""

    def __init__(
        self,
        client: QdrantClient,
        told: Callable[[str], None],
        *,
        ready_s: float,
        clock: Callable[[], float],
        pause: Callable[[float], None],
    ) -> None:
        self._client = client
        self._told = told
        self._ready_s = ready_s
        self._clock = clock
        self._pause = pause
        self._last = clock()

    def tell(self, line: str) -> None:
        """`line`, if the last one is some seconds ago."""
        if self._clock() - self._last >= TOLD_S:
            self._last = self._clock()
            self._told(line)

    def until_ready(self, name: str) -> None:
        """Returns when the server has built its graphs: green twice, because a new task begins a moment later."""
        started, green = self._clock(), 0
        while green < 2:
            info = self._client.get_collection(name)
            if info.status == models.CollectionStatus.RED:
                raise DependencyError("index", f"the server cannot build {name}: {info.optimizer_status}")
            green = green + 1 if info.status == models.CollectionStatus.GREEN else 0
            if self._clock() - started > self._ready_s:
                raise DependencyError(
                    "index",
                    f"{name} is still {info.status.value} after {self._ready_s:g} s: migrate again with a longer "
                    "--timeout, or when the server has less to do",
                )
            self.tell(f"the server builds graphs: {info.indexed_vectors_count or 0} of {info.points_count or 0} points")
            self._pause(LOOK_S)
