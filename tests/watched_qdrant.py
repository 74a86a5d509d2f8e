"""A Qdrant server whose every step can be watched, cut short, and raced: the real one, or the client's imitation."""

from __future__ import annotations

import uuid
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from typing import Any

from httpx import Headers
from qdrant_client import QdrantClient, models
from qdrant_client.http.exceptions import UnexpectedResponse

from embedder.index.protocol import CollectionSpec
from embedder.index.qdrant_server.connect import GRPC_PORT, Server
from embedder.index.qdrant_server.transport import ClientTransport, Stored, Transport
from tests import real_qdrant

STEPS = (
    "create_collection",
    "create_payload_index",
    "update_collection",
    "update_collection_aliases",
    "delete_collection",
    "delete",
    "scroll",
    "retrieve",
)
"""Calls of the client that are told of; with `upsert` of the transport they are all that a migration does."""
READS = ("scroll", "retrieve")


class ImitatedClient(QdrantClient):
    """The client's own imitation, with what it leaves out of a real server: payload schema and strict mode.

    Strict mode is held as the server's source has it (lib/collection/src/operations/verification/update.rs):
    an upsert has a largest batch, it and a change of payloads a largest size of all of them, and 0 bytes are exceeded.
    """

    def __init__(self) -> None:
        super().__init__(":memory:")
        self._schemas: dict[str, dict[str, models.PayloadIndexInfo]] = {}
        self._strict: dict[str, models.StrictModeConfig] = {}

    def create_collection(self, collection_name: str, **options: Any) -> bool:  # type: ignore[override]
        made = super().create_collection(collection_name, **options)
        self._schemas[collection_name] = {}
        self._strict[collection_name] = options.get("strict_mode_config") or models.StrictModeConfig()
        return made

    def update_collection(self, collection_name: str, **options: Any) -> bool:  # type: ignore[override]
        """Strict mode is changed where something is named; the rest stays."""
        changed = options.get("strict_mode_config")
        if changed is not None:
            named = changed.model_dump(exclude_none=True)
            self._strict[collection_name] = self._strict[collection_name].model_copy(update=named)
        super().update_collection(collection_name, **options)
        return True

    def create_payload_index(self, collection_name: str, field_name: str, **options: Any) -> models.UpdateResult:  # type: ignore[override]
        """Known from now on; an index made after the first point is one that gives no rows on a real server."""
        assert self.count(collection_name).count == 0, f"index on {field_name} made after the first point"
        info = models.PayloadIndexInfo(data_type=models.PayloadSchemaType.KEYWORD, points=0)
        self._schemas[collection_name][field_name] = info
        return models.UpdateResult(status=models.UpdateStatus.COMPLETED, operation_id=0)

    def get_collection(self, collection_name: str, **options: Any) -> models.CollectionInfo:
        info = super().get_collection(collection_name, **options)
        config = info.config.model_copy(update={"strict_mode_config": self._strict[collection_name]})
        return info.model_copy(update={"payload_schema": self._schemas[collection_name], "config": config})

    def upsert(self, collection_name: str, points: Any, **options: Any) -> models.UpdateResult:  # type: ignore[override]
        self._refuse_payloads(collection_name)
        largest = self._strict[collection_name].upsert_max_batchsize
        if largest is not None and len(points) > largest:
            raise refused(f"Limit exceeded {len(points)} > {largest}")
        return super().upsert(collection_name, points, **options)

    def overwrite_payload(self, collection_name: str, *args: Any, **options: Any) -> models.UpdateResult:
        self._refuse_payloads(collection_name)
        return super().overwrite_payload(collection_name, *args, **options)

    def _refuse_payloads(self, collection_name: str) -> None:
        if self._strict[collection_name].max_collection_payload_size_bytes == 0:
            raise refused("Max payload storage size limit reached")


def refused(why: str) -> UnexpectedResponse:
    """What strict mode answers."""
    return UnexpectedResponse(400, "Bad Request", why.encode(), Headers())


class Watched:
    """A client that tells of each of STEPS before it does it, and of the end of each with "done"."""

    def __init__(self, client: QdrantClient, before: Callable[[str], None]) -> None:
        self._client = client
        self._before = before

    def __getattr__(self, name: str) -> Any:
        call = getattr(self._client, name)
        if name not in STEPS:
            return call

        def told(*args: Any, **options: Any) -> Any:
            self._before(name)
            return call(*args, **options)

        return told


class WatchedTransport:
    """A transport that tells of each upsert before it does it."""

    def __init__(self, transport: Transport, before: Callable[[str], None]) -> None:
        self._transport = transport
        self._before = before

    def get(self, ids: Sequence[str], fields: Sequence[str] | None = None) -> dict[str, dict[str, Any]]:
        return self._transport.get(ids, fields)

    def upsert(self, points: Sequence[Stored]) -> None:
        self._before("upsert")
        self._transport.upsert(points)

    def overwrite(self, points: Sequence[Stored]) -> None:
        self._transport.overwrite(points)


class Rig:
    """Servers that all have the same collections; `spec` is what nobody else has there."""

    def __init__(self, spec: CollectionSpec, connect: Callable[[], Server], client: QdrantClient) -> None:
        self.spec = spec
        self.client = client
        self._connect = connect

    def server(self, before: Callable[[str], None] | None = None) -> Server:
        """One that tells of every step, or a plain one."""
        server = self._connect()
        if before is None:
            return server
        transport = server.transport
        server.client = Watched(server.client, before)  # type: ignore[assignment]
        server.transport = lambda name: WatchedTransport(transport(name), before)  # type: ignore[method-assign]
        return server

    def names(self) -> list[str]:
        """The collections there are, copies and leftovers included."""
        there = (one.name for one in self.client.get_collections().collections)
        return sorted(name for name in there if name.partition("~")[0] == self.spec.name)


class ImitatedServer(Server):
    """A server on a client's imitation, which has no stubs."""

    def __init__(self, client: QdrantClient) -> None:
        self.client = client
        self.alias = "lookalike"

    def transport(self, name: str) -> Transport:
        return ClientTransport(self.client, name)


STANDS = ("qdrant local", *(("qdrant server",) if real_qdrant.URL else ()))


@contextmanager
def rig(name: str, spec: CollectionSpec) -> Iterator[Rig]:
    """An empty server of this name; a real one is left as it was found."""
    if name == "qdrant local":
        client = ImitatedClient()
        yield Rig(spec, lambda: ImitatedServer(client), client)
        client.close()
        return
    own = uuid.uuid4().hex[:8]
    spec = replace(spec, model_id=f"{spec.model_id}-{own}")

    def connect() -> Server:
        assert real_qdrant.URL is not None
        port = int(real_qdrant.GRPC_PORT or GRPC_PORT)
        return Server(real_qdrant.URL, alias=f"test-{own}", api_key=real_qdrant.API_KEY, grpc_port=port, timeout_s=60)

    made = Rig(spec, connect, connect().client)
    try:
        yield made
    finally:
        for left in made.names():
            made.client.delete_collection(left)
        made.client.close()
