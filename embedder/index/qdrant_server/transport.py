"""How points reach a collection: the client's raw gRPC stubs, or the client itself where there are none.

The client costs more than the server does, and of its stubs what is handed over one by one: vectors and conditions
go in as bytes and messages (docs/index.md has the figures). Searches go through the client: they are small.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, Protocol

import grpc as grpcio  # type: ignore[import-untyped]
import numpy as np
from qdrant_client import QdrantClient, grpc, models
from qdrant_client.conversions.conversion import grpc_to_payload, json_to_value
from qdrant_client.http.exceptions import ApiException

from embedder.index.points import Vector
from embedder.index.qdrant_server.expected import Expected, any_of, as_message, as_model
from embedder.index.qdrant_server.schema import VECTOR
from streams.errors import DependencyError


@dataclass(frozen=True, slots=True)
class Stored:
    """A point as it goes in, and on which condition: `vector` None leaves it without one."""

    expected: Expected
    payload: dict[str, Any]
    vector: Vector | None


class Transport(Protocol):
    """Blocks; thread-safe. Every call raises DependencyError where the server does not answer."""

    def get(self, ids: Sequence[str], fields: Sequence[str] | None = None) -> dict[str, dict[str, Any]]:
        """The payloads of the points that exist, by id; only `fields` of them where given."""
        ...

    def upsert(self, points: Sequence[Stored]) -> None:
        """Put whole points; one that exists is replaced only where it is what was expected."""
        ...

    def overwrite(self, points: Sequence[Stored]) -> None:
        """Replace the payloads of those that are what was expected; vectors stay."""
        ...


@contextmanager
def asked() -> Iterator[None]:
    """The client's errors as ours: what was asked for was checked before, so it is the server that is unwell."""
    try:
        yield
    except grpcio.RpcError as exc:
        raise DependencyError("index", f"the Qdrant server failed: {_told(exc)}") from exc
    except ApiException as exc:
        raise DependencyError("index", f"the Qdrant server failed: {exc}") from exc


def _told(error: grpcio.RpcError) -> str:
    code = getattr(error, "code", None)
    details = getattr(error, "details", None)
    return f"{code().name}: {details()}" if callable(code) and callable(details) else str(error)


class RawTransport:
    """The stubs of a client that prefers gRPC. Writes wait for the server and go through the shard's leader."""

    def __init__(self, client: QdrantClient, collection: str, *, timeout_s: float) -> None:
        self._client = client
        self._collection = collection
        self._timeout_s = timeout_s
        self._strong = grpc.WriteOrdering(type=grpc.WriteOrderingType.Strong)

    def get(self, ids: Sequence[str], fields: Sequence[str] | None = None) -> dict[str, dict[str, Any]]:
        if not ids:
            return {}
        wanted = grpc.WithPayloadSelector(enable=True)
        if fields is not None:
            wanted = grpc.WithPayloadSelector(include=grpc.PayloadIncludeSelector(fields=list(fields)))
        request = grpc.GetPoints(
            collection_name=self._collection, ids=[grpc.PointId(uuid=one) for one in ids], with_payload=wanted
        )
        with asked():
            answer = self._client.grpc_points.Get(request, timeout=self._timeout_s)
        return {one.id.uuid: grpc_to_payload(one.payload) for one in answer.result}

    def upsert(self, points: Sequence[Stored]) -> None:
        request = grpc.UpsertPoints(
            collection_name=self._collection,
            wait=True,
            points=[_struct(point) for point in points],
            ordering=self._strong,
            update_filter=any_of([point.expected for point in points]),
        )
        with asked():
            self._client.grpc_points.Upsert(request, timeout=self._timeout_s)

    def overwrite(self, points: Sequence[Stored]) -> None:
        operations = [
            grpc.PointsUpdateOperation(
                overwrite_payload=grpc.PointsUpdateOperation.OverwritePayload(
                    payload=_values(point.payload),
                    points_selector=grpc.PointsSelector(filter=as_message(point.expected)),
                )
            )
            for point in points
        ]
        request = grpc.UpdateBatchPoints(
            collection_name=self._collection, wait=True, operations=operations, ordering=self._strong
        )
        with asked():
            self._client.grpc_points.UpdateBatch(request, timeout=self._timeout_s)


def _struct(point: Stored) -> grpc.PointStruct:
    named = {}
    if point.vector is not None:
        named[VECTOR] = grpc.Vector(dense=dense(point.vector))
    return grpc.PointStruct(
        id=grpc.PointId(uuid=point.expected.id),
        payload=_values(point.payload),
        vectors=grpc.Vectors(vectors=grpc.NamedVectors(vectors=named)),
    )


def dense(vector: Vector) -> grpc.DenseVector:
    """The message from its own bytes: a packed field of floats *is* the vector's memory.

    Handing 1280 floats over one by one costs 40 µs. Field 1, wire type 2, the length as a varint
    (https://protobuf.dev/programming-guides/encoding/).
    """
    floats = np.ascontiguousarray(vector, "<f4").tobytes()
    message: grpc.DenseVector = grpc.DenseVector.FromString(b"\x0a" + _varint(len(floats)) + floats)
    return message


def _varint(number: int) -> bytes:
    made = bytearray()
    while number > 0x7F:
        made.append(number & 0x7F | 0x80)
        number >>= 7
    made.append(number)
    return bytes(made)


def _values(payload: dict[str, Any]) -> dict[str, grpc.Value]:
    return {name: json_to_value(value) for name, value in payload.items()}


class ClientTransport:
    """The client's own calls: for its local mode, which has no stubs."""

    def __init__(self, client: QdrantClient, collection: str) -> None:
        self._client = client
        self._collection = collection

    def get(self, ids: Sequence[str], fields: Sequence[str] | None = None) -> dict[str, dict[str, Any]]:
        wanted: bool | list[str] = True if fields is None else list(fields)
        with asked():
            records = self._client.retrieve(self._collection, list(ids), with_payload=wanted)
        return {str(record.id): record.payload or {} for record in records}

    def upsert(self, points: Sequence[Stored]) -> None:
        made = [
            models.PointStruct(
                id=point.expected.id,
                vector={} if point.vector is None else {VECTOR: point.vector.tolist()},
                payload=point.payload,
            )
            for point in points
        ]
        any_holds = models.Filter(should=[as_model(point.expected) for point in points])
        with asked():
            self._client.upsert(self._collection, made, wait=True, update_filter=any_holds)

    def overwrite(self, points: Sequence[Stored]) -> None:
        for point in points:
            with asked():
                self._client.overwrite_payload(
                    self._collection, point.payload, points=as_model(point.expected), wait=True
                )
