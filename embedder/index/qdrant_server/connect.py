"""From settings to a collection on a server."""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path

from qdrant_client import QdrantClient, models

from embedder.index.fields import parse_fields
from embedder.index.protocol import CollectionInfo, CollectionSpec
from embedder.index.qdrant_server.generations import Aliases, Generation, finish, found, in_use, read_aliases
from embedder.index.qdrant_server.index import ServerIndex
from embedder.index.qdrant_server.schema import check, create, lift_fence
from embedder.index.qdrant_server.transport import RawTransport, Transport, asked
from streams.errors import ConfigError, DependencyError

GRPC_PORT = 6334
_URL = re.compile(r"https?://")


class Server:
    """A server, and what is done to whole collections there. Connects with the first call. Thread-safe."""

    def __init__(
        self,
        url: str,
        *,
        alias: str,
        api_key: str | None = None,
        ca_file: Path | None = None,
        grpc_port: int = GRPC_PORT,
        timeout_s: float = 10.0,
    ) -> None:
        """`url` is the one of its REST port; points travel through `grpc_port` of the same host.

        Raises:
            ConfigError: the URL is none, or the certificates cannot be read.
        """
        if _URL.match(url) is None:
            raise ConfigError(f"LOOKALIKE_QDRANT_URL is {url!r}: write http://HOST:6333 or https://HOST:6333")
        self.alias = alias
        self._timeout_s = timeout_s
        extra: dict[str, object] = {}
        grpc_options: dict[str, object] = {}
        if ca_file is not None:
            extra["verify"] = str(ca_file)
            grpc_options["root_certificates"] = ca_file.read_bytes()
        self.client = QdrantClient(
            url=url,
            prefer_grpc=True,
            grpc_port=grpc_port,
            api_key=api_key,
            timeout=max(1, round(timeout_s)),
            grpc_options=grpc_options,
            check_compatibility=False,  # it asks the server in the constructor and warns on stderr
            **extra,  # type: ignore[arg-type]
        )

    def ensure(self, spec: CollectionSpec) -> ServerIndex:
        """The collection of this spec, made where it is not there; the first one becomes what the alias means.

        What a migration that was killed has left is put in order: the collection can be written to again,
        and what the new one has replaced is gone.

        Raises:
            ConfigError: it is there and is another one.
            DependencyError: the server does not answer.
        """
        with asked():
            aliases, generations = self.aliases(), found(self.client, spec.name)
            used = in_use(generations, aliases)
            name = spec.name if used is None else used.name
            create(self.client, spec, name)
            info = self.client.get_collection(name)
            check(name, info.config.metadata, spec)
            if lift_fence(self.client, name, info) and self._moved(spec, name):
                return self.ensure(spec)  # a migration took effect meanwhile: what is written here would be lost
            if aliases.current is None:
                self.point_alias(name)
            if used is not None:
                finish(self.client, used, generations, self.alias)
        return self._index(spec, name)

    def _moved(self, spec: CollectionSpec, name: str) -> bool:
        used = in_use(found(self.client, spec.name), self.aliases())
        return used is not None and used.name != name

    def current(self, known: ServerIndex | None = None) -> ServerIndex:
        """The collection behind the alias; `known` where it is still that. DependencyError where there is none yet."""
        with asked():
            name = self.aliased()
            if name is None:
                raise DependencyError("index", "there is no collection yet: start a worker, it makes one")
            if known is not None and known.name == name:
                return known
            return self._index(self.spec_of(name), name)

    def spec_of(self, name: str) -> CollectionSpec:
        """What a collection says of itself. ConfigError where it is none of ours."""
        return spec_in(name, self.client.get_collection(name))

    def aliased(self) -> str | None:
        """The name of the collection behind the alias."""
        return self.aliases().current

    def aliases(self) -> Aliases:
        """Those of every deployment on the server."""
        return read_aliases(self.client, self.alias)

    def switch(self, name: str) -> None:
        """Let the alias mean `name`, in one step for everybody. ConfigError where it is none that is in use."""
        with asked():
            aliases, generations = self.aliases(), found(self.client)
            used = _used(generations, aliases)
            if name not in used:
                raise _unknown(name)
            if aliases.current in used:  # what a migration has put in use says so before the alias stops saying it
                before = used[aliases.current]
                finish(self.client, before, _family(generations, before), self.alias)
            self.point_alias(name)

    def point_alias(self, name: str) -> None:
        """Let the alias mean this collection, whichever it is."""
        operations: list[models.AliasOperations] = []
        if self.aliased() is not None:
            operations.append(models.DeleteAliasOperation(delete_alias=models.DeleteAlias(alias_name=self.alias)))
        operations.append(
            models.CreateAliasOperation(create_alias=models.CreateAlias(collection_name=name, alias_name=self.alias))
        )
        self.client.update_collection_aliases(operations)

    # ---- Administration ----------------------------------------------------------------------------

    def collections(self) -> list[CollectionInfo]:
        with asked():
            aliases = self.aliases()
            used = _used(found(self.client), aliases)
        infos = {name: one.info for name, one in used.items()}
        return [
            CollectionInfo(
                name,
                spec_in(name, info),
                "qdrant",
                name == aliases.current,
                info.points_count or 0,
                max(0, (info.points_count or 0) - (info.indexed_vectors_count or 0)),
            )
            for name, info in infos.items()
        ]

    def create(self, spec: CollectionSpec) -> None:
        self.ensure(spec)

    def optimise(self, name: str) -> None:
        raise ConfigError(f"a Qdrant server builds the graphs of {name or 'a collection'} by itself")

    def drop(self, name: str) -> None:
        with asked():
            aliases = self.aliases()
            if name == aliases.current:
                raise ConfigError(f"{name} is what the alias means: switch to another collection first")
            if others := aliases.of(name):
                raise ConfigError(f"{name} is what another alias means ({', '.join(others)}): move that first")
            if not self.client.collection_exists(name):
                raise _unknown(name)
            self.client.delete_collection(name)

    def close(self) -> None:
        """Hang up."""
        self.client.close()

    def transport(self, name: str) -> Transport:
        """How points reach the collection of this name."""
        return RawTransport(self.client, name, timeout_s=self._timeout_s)

    def _index(self, spec: CollectionSpec, name: str) -> ServerIndex:
        return ServerIndex(self.client, self.transport(name), spec, name=name)


def spec_in(name: str, info: models.CollectionInfo) -> CollectionSpec:
    """What a collection says of itself. ConfigError where it is none of ours."""
    metadata = info.config.metadata or {}
    try:
        spec = CollectionSpec(
            str(metadata["model_id"]),
            str(metadata["preprocessing_id"]),
            int(metadata["dim"]),
            parse_fields(metadata["fields"]),
        )
    except (KeyError, TypeError, ValueError) as exc:
        raise ConfigError(f"collection {name} was not made by lookalike: it does not say what it holds") from exc
    check(name, metadata, spec)
    return spec


def _family(generations: Sequence[Generation], one: Generation) -> list[Generation]:
    return [other for other in generations if other.logical == one.logical]


def _used(generations: Sequence[Generation], aliases: Aliases) -> dict[str, Generation]:
    """Those that are in use, by name; of a collection with copies or leftovers it is one."""
    used = (in_use(_family(generations, one), aliases) for one in generations)
    return {one.name: one for one in used if one is not None}


def _unknown(name: str) -> ConfigError:
    return ConfigError(f"there is no collection {name!r} in use: lookalike index status lists them")
