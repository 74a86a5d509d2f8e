"""What answers look like: headers, and JSON bodies from points and hits. Their schemas stand in `openapi`."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

import msgspec
from starlette.responses import Response

from embedder.index.points import Attempt, Point
from embedder.index.protocol import CollectionSpec, Hits

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


def status_of(point: Point, spec: CollectionSpec) -> Json:
    """Where an image is, what failed, when, why, and with which model."""
    location = None if point.location is None else msgspec.to_builtins(point.location)
    return {
        "tenant_id": point.tenant_id,
        **row_of(point),
        "model": spec.model_id,
        "collection": spec.name,
        "engine": point.engine,
        "location": location,
        "etag": point.etag,
        "sha256": point.sha256,
        "tags": point.tags,
        "attributes": dict(point.attributes),
        "created_at": time_of(point.created_at_us),
    }


def hits_of(hits: Hits, spec: CollectionSpec, *, took_s: float, request_id: str) -> Json:
    """The answer of a search."""
    return {
        "hits": [{"image_id": hit.image_id, "score": hit.score} for hit in hits.hits],
        "exact": hits.exact,
        "model": spec.model_id,
        "collection": spec.name,
        "took_ms": round(took_s * 1000, 3),
        "request_id": request_id,
    }
