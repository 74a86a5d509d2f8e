"""From settings to a collection on a server."""

from __future__ import annotations

import re
from pathlib import Path

from qdrant_client import QdrantClient, models

from embedder.index.fields import parse_fields
from embedder.index.protocol import CollectionInfo, CollectionSpec
from embedder.index.qdrant_server.index import ServerIndex
from embedder.index.qdrant_server.schema import check, create
from embedder.index.qdrant_server.transport import RawTransport, asked
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

        Raises:
            ConfigError: it is there and is another one.
            DependencyError: the server does not answer.
        """
        with asked():
            create(self.client, spec)
            check(spec.name, self.client.get_collection(spec.name).config.metadata, spec)
            if self.aliased() is None:
                self.switch(spec.name)
        return self._index(spec)

    def current(self, known: ServerIndex | None = None) -> ServerIndex:
        """The collection behind the alias; `known` where it is still that. DependencyError where there is none yet."""
        with asked():
            name = self.aliased()
            if name is None:
                raise DependencyError("index", "there is no collection yet: start a worker, it makes one")
            if known is not None and known.spec().name == name:
                return known
            return self._index(self.spec_of(name))

    def spec_of(self, name: str) -> CollectionSpec:
        """What a collection says of itself. ConfigError where it is none of ours."""
        metadata = self.client.get_collection(name).config.metadata or {}
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

    def aliased(self) -> str | None:
        """The name of the collection behind the alias."""
        found = self.client.get_aliases().aliases
        return next((one.collection_name for one in found if one.alias_name == self.alias), None)

    def switch(self, name: str) -> None:
        """Let the alias mean `name`, in one step for everybody. ConfigError where there is none."""
        if not self.client.collection_exists(name):
            raise ConfigError(f"there is no collection {name!r}: lookalike index status lists them")
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
            current = self.aliased()
            names = sorted(one.name for one in self.client.get_collections().collections)
            infos = {name: self.client.get_collection(name) for name in names}
        return [
            CollectionInfo(
                self.spec_of(name),
                "qdrant",
                name == current,
                info.points_count or 0,
                max(0, (info.points_count or 0) - (info.indexed_vectors_count or 0)),
            )
            for name, info in infos.items()
            if "lookalike_schema" in (info.config.metadata or {})
        ]

    def create(self, spec: CollectionSpec) -> None:
        self.ensure(spec)

    def optimise(self, name: str) -> None:
        raise ConfigError(f"a Qdrant server builds the graphs of {name or 'a collection'} by itself")

    def drop(self, name: str) -> None:
        with asked():
            if name == self.aliased():
                raise ConfigError(f"{name} is what the alias means: switch to another collection first")
            if not self.client.collection_exists(name):
                raise ConfigError(f"there is no collection {name!r}: lookalike index status lists them")
            self.client.delete_collection(name)

    def close(self) -> None:
        """Hang up."""
        self.client.close()

    def _index(self, spec: CollectionSpec) -> ServerIndex:
        return ServerIndex(self.client, RawTransport(self.client, spec.name, timeout_s=self._timeout_s), spec)
