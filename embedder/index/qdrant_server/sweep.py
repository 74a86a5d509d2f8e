"""Forgetting tombstones on a server that many write to: deleted only while they are what was found."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence

from qdrant_client import QdrantClient, models

from embedder.index.fields import Field
from embedder.index.payload import REVISION, from_payload
from embedder.index.points import State, Sweep, Write, point_id
from embedder.index.qdrant_server.expected import Expected, as_model
from embedder.index.qdrant_server.transport import Transport, asked
from embedder.index.qdrant_server.writes import write_all


def sweep(
    client: QdrantClient, transport: Transport, name: str, fields: Sequence[Field], *, before_us: int, limit: int
) -> int:
    """Forget up to `limit` tombstones made before `before_us`, of any tenant; returns how many were found.

    A delete forgets the version, so each is bound to the revision that was read: a tombstone that was
    replaced meanwhile stays. One that carries a note becomes an `empty` point, as any other write.
    """
    old = models.Filter(
        must=[
            models.FieldCondition(key="state", match=models.MatchValue(value=State.DELETED.value)),
            models.FieldCondition(key="indexed_at_us", range=models.Range(lt=float(before_us))),
        ]
    )
    with asked():
        records, _ = client.scroll(name, scroll_filter=old, limit=limit, with_payload=True)
    plain: list[models.Condition] = []
    noted: defaultdict[str, list[Write]] = defaultdict(list)
    for record in records:
        payload = record.payload or {}
        point = from_payload({name: value for name, value in payload.items() if name != REVISION})
        if point.attempt is None:
            number = str(point_id(point.tenant_id, point.image_id))
            plain.append(as_model(Expected(point.tenant_id, number, payload.get(REVISION))))
        else:
            noted[point.tenant_id].append(Sweep(point.image_id, before_us))
    if plain:  # never with an empty filter: that would be everything
        with asked():
            client.delete(name, points_selector=models.FilterSelector(filter=models.Filter(should=plain)), wait=True)
    for tenant_id, writes in noted.items():
        write_all(transport, tenant_id, writes, fields)
    return len(records)
