"""The table of docs/semantics.md on a server that many write to: read, decide, write on condition, read back.

A server applies one update of a shard after the other, and a conditional update looks at what is stored
then. So every point carries a `revision`, new with each write: what was decided on one revision is
written only while that one is still there. The server does not tell what its condition left out; the
revision that is read back does, and what lost is decided again on what is stored by then. A point is
new only where its id does not exist yet, which the server checks by itself.
"""

from __future__ import annotations

import uuid
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from embedder.index.fields import Field
from embedder.index.payload import REVISION, from_payload, to_payload
from embedder.index.points import Point, PutVector, Vector, Write, Written, apply, point_id
from embedder.index.qdrant_server.expected import Expected
from embedder.index.qdrant_server.schema import MAX_BATCH
from embedder.index.qdrant_server.transport import Stored, Transport
from embedder.index.query import unit
from streams.errors import DependencyError

MAX_ROUNDS = 20
"""Each round somebody's write went through, so a loser this late fights with twenty others over one image."""


@dataclass(frozen=True, slots=True)
class Known:
    """A point as it was read, and the revision that has to be there still; both None where there is none."""

    id: str
    point: Point | None
    revision: str | None


@dataclass(frozen=True, slots=True)
class Decision:
    """What is to be stored of one image: `with_vector` says that `vector` is put, or removed where it is None."""

    known: Known
    point: Point
    with_vector: bool
    vector: Vector | None


def write_all(transport: Transport, tenant_id: str, writes: Sequence[Write], fields: Sequence[Field]) -> list[Written]:
    """Apply `writes` in order; what became of each. May be called twice, by any number of processes.

    Raises:
        DependencyError: the server does not answer, or others change the same images all the time.
    """
    results: list[Written] = []
    for start in range(0, len(writes), MAX_BATCH):
        results += _write_part(transport, tenant_id, writes[start : start + MAX_BATCH], fields)
    return results


def _write_part(
    transport: Transport, tenant_id: str, writes: Sequence[Write], fields: Sequence[Field]
) -> list[Written]:
    results: dict[int, Written] = {}
    left = dict(enumerate(writes))
    for _ in range(MAX_ROUNDS):
        known = _read(transport, tenant_id, [write.image_id for write in left.values()])
        decided = decide(tenant_id, left, known, results)
        lost = _store(transport, tenant_id, decided, fields)
        left = {number: write for number, write in left.items() if write.image_id in lost}
        if not left:
            return [results[number] for number in range(len(writes))]
    raise DependencyError("index", "others change the same images all the time: try again")


def _read(transport: Transport, tenant_id: str, image_ids: Sequence[str]) -> dict[str, Known]:
    ids = {image_id: str(point_id(tenant_id, image_id)) for image_id in image_ids}
    payloads = transport.get(list(ids.values()))
    return {image_id: _known(number, payloads.get(number)) for image_id, number in ids.items()}


def _known(number: str, payload: dict[str, Any] | None) -> Known:
    if payload is None:
        return Known(number, None, None)
    return Known(number, from_payload(payload), payload.get(REVISION))


def decide(
    tenant_id: str, writes: Mapping[int, Write], known: Mapping[str, Known], results: dict[int, Written]
) -> list[Decision]:
    """What is to be stored after all of `writes`, one decision an image; what becomes of each goes into `results`."""
    points = {image_id: one.point for image_id, one in known.items()}
    vectors: dict[str, Vector | None] = {}
    changed: dict[str, None] = {}
    for number, write in writes.items():
        change = apply(tenant_id, points[write.image_id], write)
        results[number] = change.written
        if not change.changed:
            continue
        points[write.image_id] = change.point
        changed[write.image_id] = None
        if change.vector is not None:
            vectors[write.image_id] = write.vector if isinstance(write, PutVector) else None
    return [
        Decision(known[image_id], point, image_id in vectors, vectors.get(image_id))
        for image_id in changed
        if (point := points[image_id]) is not None
    ]


def _store(transport: Transport, tenant_id: str, decided: Sequence[Decision], fields: Sequence[Field]) -> set[str]:
    """Write on condition and read back; the images whose decision was overtaken."""
    if not decided:
        return set()
    revision = uuid.uuid4().hex
    whole: list[Stored] = []
    payloads: list[Stored] = []
    for one in decided:
        stored = Stored(
            Expected(tenant_id, one.known.id, one.known.revision),
            {**to_payload(one.point, fields), REVISION: revision},
            None if one.vector is None else unit(one.vector),
        )
        (whole if one.with_vector or one.known.point is None else payloads).append(stored)
    if whole:
        transport.upsert(whole)
    if payloads:
        transport.overwrite(payloads)
    there = transport.get([one.known.id for one in decided], [REVISION])
    return {one.point.image_id for one in decided if there.get(one.known.id, {}).get(REVISION) != revision}
