"""What answers look like: headers, and JSON bodies from points and hits. Their schemas stand in `openapi`."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime
from typing import Any

import msgspec
from starlette.requests import Request
from starlette.responses import Response

from embedder.index.points import Attempt, Point, State
from embedder.index.protocol import CollectionSpec, Hit

Json = dict[str, Any]

HEADERS = {
    "X-Content-Type-Options": "nosniff",
    "Content-Security-Policy": "default-src 'none'; frame-ancestors 'none'",
    "Cross-Origin-Resource-Policy": "same-origin",  # another site must not even learn that a thumbnail loads
    "Referrer-Policy": "no-referrer",
    "Cache-Control": "no-store",
}
"""What every answer has, where it does not bring its own."""


class JsonResponse(Response):
    """JSON by msgspec; Starlette's own encoder is several times slower."""

    media_type = "application/json"

    def render(self, content: object) -> bytes:
        return msgspec.json.encode(content)


def time_of(at_us: int | None) -> str | None:
    """Microseconds since 1970 as RFC 3339, UTC."""
    return None if at_us is None else datetime.fromtimestamp(at_us / 1e6, tz=UTC).isoformat()


def attempt_of(attempt: Attempt | None) -> Json | None:
    """The newest try that was not applied: how far it came, why, how often, when."""
    if attempt is None:
        return None
    return {
        "version": attempt.version,
        "state": attempt.state,
        "reason": attempt.reason,
        "tries": attempt.tries,
        "at": time_of(attempt.at_us),
    }


def row_of(point: Point) -> Json:
    """An image in a list."""
    return {
        "image_id": point.image_id,
        "state": point.state,
        "version": point.version,
        "width_px": point.width_px,
        "height_px": point.height_px,
        "indexed_at": time_of(point.indexed_at_us),
        "attempt": attempt_of(point.attempt),
    }


def status_of(point: Point) -> Json:
    """Where an image is, what failed, when, and why."""
    return {"tenant_id": point.tenant_id, **row_of(point), **fields_of(point)}


def fields_of(point: Point) -> Json:
    """What is known of an indexed picture, by the names that `fields` asks for."""
    return {
        "version": point.version,
        "tags": point.tags,
        "attributes": dict(point.attributes),
        "width_px": point.width_px,
        "height_px": point.height_px,
        "created_at": time_of(point.created_at_us),
        "indexed_at": time_of(point.indexed_at_us),
        "location": None if point.location is None else msgspec.to_builtins(point.location),
        "etag": point.etag,
        "sha256": point.sha256,
        "engine": point.engine,
    }


FIELDS = tuple(fields_of(Point("", "", 0, State.EMPTY)))
"""What a hit may bring along."""


def hit_of(hit: Hit, fields: Sequence[str]) -> Json:
    """One hit; it has its point where `fields` are asked for."""
    row: Json = {"image_id": hit.image_id, "score": hit.score}
    if fields and hit.point is not None:
        known = fields_of(hit.point)
        row["fields"] = {name: known[name] for name in fields}
    return row


def answer(request: Request, body: Json, spec: CollectionSpec | None, *, status: int = 200) -> JsonResponse:
    """An answer about a tenant: its body, and what every such answer has. `spec` None: the index does not answer."""
    about = {
        "model": None if spec is None else spec.model_id,
        "collection": None if spec is None else spec.name,
        "took_ms": round(request.state.took_s() * 1000, 3),
        "request_id": request.state.request_id,
    }
    return JsonResponse({**body, **about}, status_code=status)
