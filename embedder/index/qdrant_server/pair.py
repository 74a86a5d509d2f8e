"""A collection and its copy: every point is carried over, and what differs after that again."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from qdrant_client import QdrantClient, models

from embedder.index.payload import REVISION, from_payload, to_payload
from embedder.index.points import Vector
from embedder.index.protocol import CollectionSpec
from embedder.index.qdrant_server.expected import Expected
from embedder.index.qdrant_server.schema import MAX_BATCH, VECTOR
from embedder.index.qdrant_server.transport import Stored, Transport
from streams.errors import ConfigError

MAX_ROUNDS = 5
"""So often the two are compared: each time less can have been written meanwhile than the last time."""
MAX_PART_BYTES = 4 * 2**20
"""Vectors of one part. The client makes 32 bytes of Python of each 4: 256 vectors of 65,536 would be half a GiB."""


@dataclass(frozen=True, slots=True)
class Difference:
    """A point that is not the same in both: its revision in the copy, None where it is not there; `gone` in the old."""

    id: str
    copied: str | None
    gone: bool


class Pair:
    """A collection and its copy; nobody else writes to the copy."""

    def __init__(
        self, client: QdrantClient, transport: Transport, source: str, copy: str, spec: CollectionSpec
    ) -> None:
        """`spec` is the one of the copy."""
        self._client = client
        self._transport = transport
        self._source = source
        self._copy = copy
        self._fields = spec.fields
        self._part = part_of(spec.dim)

    def copy_all(self, told: Callable[[str], None]) -> None:
        """Every point there is now, with its vector where it has one, under its revision; `told` hears each part."""
        total, n_copied = self._client.get_collection(self._source).points_count or 0, 0
        offset: models.ExtendedPointId | None = None
        while True:
            records, offset = self._client.scroll(
                self._source, limit=self._part, offset=offset, with_payload=True, with_vectors=[VECTOR]
            )
            self._put(records, {})
            n_copied += len(records)
            told(f"{n_copied} of about {total} points are copied")
            if offset is None:
                return

    def catch_up(self) -> int:
        """Compare, and copy again what differs, until nothing does; returns the number of points.

        Raises:
            ConfigError: something differs each time, so somebody writes.
        """
        for _ in range(MAX_ROUNDS):
            n_points, n_different = 0, 0
            different: list[Difference] = []
            for one in self._compared():
                n_points += 1
                if one is None:
                    continue
                n_different += 1
                different.append(one)
                if len(different) == self._part:
                    self._repair(different)
                    different = []
            self._repair(different)
            if not n_different:
                return n_points
        raise ConfigError(f"pictures are written to {self._source} all the time: stop the workers and migrate again")

    def _compared(self) -> Iterator[Difference | None]:
        """Each point of either, in the order of ids that a server scrolls in; None for one that is the same in both."""
        old, new = self._revisions(self._source), self._revisions(self._copy)
        left, right = next(old, None), next(new, None)
        while left is not None or right is not None:
            if right is None or (left is not None and left[0] < right[0]):
                assert left is not None
                yield Difference(left[0], None, gone=False)
                left = next(old, None)
            elif left is None or right[0] < left[0]:
                yield Difference(right[0], right[1], gone=True)
                right = next(new, None)
            else:
                yield None if left == right else Difference(left[0], right[1], gone=False)
                left, right = next(old, None), next(new, None)

    def _revisions(self, name: str) -> Iterator[tuple[str, str | None]]:
        offset: models.ExtendedPointId | None = None
        while True:
            records, offset = self._client.scroll(
                name, limit=4 * MAX_BATCH, offset=offset, with_payload=[REVISION], with_vectors=False
            )
            for record in records:
                yield str(record.id), (record.payload or {}).get(REVISION)
            if offset is None:
                return

    def _repair(self, different: Sequence[Difference]) -> None:
        copied = {one.id: one.copied for one in different if not one.gone}
        if copied:
            records = self._client.retrieve(self._source, list(copied), with_payload=True, with_vectors=[VECTOR])
            self._put(records, copied)
        gone: list[models.ExtendedPointId] = [one.id for one in different if one.gone]
        if gone:
            self._client.delete(self._copy, points_selector=models.PointIdsList(points=gone), wait=True)

    def _put(self, records: Sequence[models.Record], copied: dict[str, str | None]) -> None:
        """Put points into the copy; `copied` has the revision of those that are there already."""
        if records:
            self._transport.upsert([self._stored(record, copied.get(str(record.id))) for record in records])

    def _stored(self, record: models.Record, copied: str | None) -> Stored:
        """The payload is made anew: from the attributes comes what the new fields declare."""
        payload = dict(record.payload or {})
        point = from_payload(payload)
        made = to_payload(point, self._fields)
        if REVISION in payload:
            made[REVISION] = payload[REVISION]
        return Stored(Expected(point.tenant_id, str(record.id), copied), made, _vector(record))


def part_of(dim: int) -> int:
    """How many points travel at once with vectors of this length."""
    return max(1, min(MAX_BATCH, MAX_PART_BYTES // (4 * dim)))


def _vector(record: models.Record) -> Vector | None:
    vectors = record.vector
    if not isinstance(vectors, dict) or VECTOR not in vectors:
        return None
    return np.asarray(vectors[VECTOR], np.float32)
