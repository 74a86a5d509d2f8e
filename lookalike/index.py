"""Which index the settings mean: the process beside us, or a Qdrant server. The only place that chooses."""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol

from embedder.index.protocol import Administration, CollectionSpec, Maintenance, Searcher, Sweeper, Writer
from lookalike.addresses import Addresses
from lookalike.settings import Settings
from streams.errors import ConfigError

if TYPE_CHECKING:
    from embedder.index.qdrant_server.connect import Server

TIMEOUT_S = 10.0


class Index(Writer, Searcher, Maintenance, Sweeper, Protocol):
    """Everything one collection can be asked."""

    def ping(self) -> object:
        """Returns where it answers; DependencyError where it does not."""
        ...

    def close(self) -> None:
        """Hang up."""
        ...


def open_index(
    settings: Settings, addresses: Addresses, *, spec: CollectionSpec | None = None, timeout_s: float = TIMEOUT_S
) -> Index:
    """The index, not connected yet. With `spec` its collection is made with the first call, else the alias is asked.

    Raises:
        ConfigError: nothing says where it is.
    """
    if settings.index.qdrant_url is None:
        from embedder.index.service.client import IndexClient

        return IndexClient(addresses.index_socket(settings), spec=spec, timeout_s=timeout_s)
    from embedder.index.qdrant_server.client import ServerClient

    return ServerClient(server(settings, timeout_s=timeout_s), spec=spec)


class Administrator(Administration, Protocol):
    """What is done to whole collections."""

    def close(self) -> None:
        """Hang up."""
        ...


def open_administration(settings: Settings, addresses: Addresses) -> Administrator:
    """Whatever keeps the collections, not connected yet. ConfigError where nothing says where it is."""
    if settings.index.qdrant_url is not None:
        return server(settings)
    from embedder.index.service.client import IndexClient

    return IndexClient(addresses.index_socket(settings))


def server(settings: Settings, *, timeout_s: float = TIMEOUT_S) -> Server:
    """The Qdrant server of the settings. ConfigError where there is none."""
    from embedder.index.qdrant_server.connect import Server

    found = settings.index
    if found.qdrant_url is None:
        raise ConfigError("there is no Qdrant server: set LOOKALIKE_QDRANT_URL")
    return Server(
        found.qdrant_url,
        alias=found.qdrant_alias,
        api_key=None if found.qdrant_api_key is None else found.qdrant_api_key.get_secret_value(),
        ca_file=found.qdrant_ca_file,
        grpc_port=found.qdrant_grpc_port,
        timeout_s=timeout_s,
    )
