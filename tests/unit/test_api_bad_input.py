"""Every kind of bad input: a 4xx with the one error body that names the field, and nothing reaches the index."""

from __future__ import annotations

import io
import json
from collections.abc import AsyncIterator
from dataclasses import replace
from typing import Any

import pytest
from PIL import Image

from embedder.index.filters import MAX_DEPTH, MAX_SIZE
from query_api.app import create_app
from query_api.deps import Limits
from streams.errors import EventError, Reason
from tests.api_rig import BUCKET, SPEC, TENANT, TOPIC, HashQueryEmbedder, RecordingIndex, ask, error_of, filled, picture

T = f"/v1/tenants/{TENANT}"
SEARCH, BATCH, UPLOAD, IMAGES, FACETS = (
    f"{T}/search",
    f"{T}/search/batch",
    f"{T}/search/upload",
    f"{T}/images",
    f"{T}/facets",
)
LOOKS = {"spec", "get", "count"}
"""What may be asked of the index before a request is refused: its shape, and whether something is there."""
MAX_PIXELS = 100_000
GOOD = {"positive": ["f0-m0"]}


class BoundedEmbedder(HashQueryEmbedder):
    """Refuses a bomb as the real one does, by its head."""

    def _open(self, data: bytes) -> Image.Image:
        image = super()._open(data)
        if image.width * image.height > MAX_PIXELS:
            raise EventError(Reason.IMAGE_TOO_LARGE, f"{image.width} x {image.height} pixels are too many")
        return image


def bomb() -> bytes:
    """Four megapixels in some hundred bytes."""
    out = io.BytesIO()
    Image.new("1", (2000, 2000)).save(out, "PNG")
    return out.getvalue()


def nested(depth: int) -> dict[str, Any]:
    return {"not": nested(depth - 1)} if depth > 1 else {"tags": ["red"]}


def searched(**body: Any) -> dict[str, Any]:
    return {"json": {**GOOD, **body}}


def raw(text: str | bytes) -> dict[str, Any]:
    data = text if isinstance(text, bytes) else text.encode()
    return {"content": data, "headers": {"Content-Type": "application/json"}}


def referred(key: str = "acme/f0-m0.jpg", bucket: str = BUCKET, **more: Any) -> dict[str, Any]:
    return {"json": {"location": {"bucket": bucket, "key": key}, **more}}


def formed(**data: str) -> dict[str, Any]:
    return {"files": {"file": ("x", picture(0, 0))}, "data": data}


def filtered(condition: Any) -> dict[str, Any]:
    return searched(filter=condition)


Row = tuple[str, str, dict[str, Any], int, str, str | None]

UNKNOWN: list[Row] = [
    ("GET", "/v1/tenants/nobody/images", {}, 404, "tenant_not_found", "tenant"),
    ("POST", "/v1/tenants/NOBODY/search", {"json": GOOD}, 404, "tenant_not_found", "tenant"),
    ("POST", "/v1/tenants/nobody/search/upload", {"content": picture(0, 0)}, 404, "tenant_not_found", "tenant"),
    ("POST", "/v1/tenants/Nobody/images", {"content": picture(0, 0)}, 404, "tenant_not_found", "tenant"),
    ("DELETE", "/v1/tenants/nobody/images/x", {}, 404, "tenant_not_found", "tenant"),
    ("GET", f"{IMAGES}/absent", {}, 404, "image_not_found", "id"),
    ("GET", f"{IMAGES}/absent/thumbnail", {}, 404, "image_not_found", "id"),
    ("DELETE", f"{IMAGES}/absent", {}, 404, "image_not_found", "id"),
    ("POST", SEARCH, {"json": {"positive": ["../x"]}}, 404, "image_not_found", "positive.0"),
    ("POST", SEARCH, {"json": {**GOOD, "negative": ["f0-m1", ""]}}, 404, "image_not_found", "negative.1"),
]
VECTORS: list[Row] = [
    ("POST", SEARCH, {"json": {"positive": [[0.5] * (SPEC.dim - 1)]}}, 400, "vector_invalid", "positive.0"),
    ("POST", SEARCH, {"json": {"positive": [[]]}}, 400, "vector_invalid", "positive.0"),
    ("POST", SEARCH, {"json": {"positive": [[0.0] * SPEC.dim]}}, 400, "vector_invalid", "positive.0"),
    ("POST", SEARCH, {"json": {**GOOD, "negative": [[1e39] * SPEC.dim]}}, 400, "vector_invalid", "negative.0"),
    ("POST", SEARCH, raw('{"positive": [[NaN]]}'), 400, "invalid_body", None),
    ("POST", SEARCH, raw('{"positive": [[1e999]]}'), 400, "invalid_body", "positive.0.0"),
    ("POST", SEARCH, {"json": {"positive": [["0.5"] * SPEC.dim]}}, 400, "invalid_body", "positive.0.0"),
    (
        "POST",
        BATCH,
        {"json": {"searches": [GOOD, {"positive": [[0.0] * SPEC.dim]}]}},
        400,
        "vector_invalid",
        "searches.1.positive.0",
    ),
]
FILTERS: list[Row] = [
    ("POST", SEARCH, filtered({"range": "nobody_declared_it", "gte": 1}), 400, "unknown_field", "filter.range"),
    ("POST", SEARCH, filtered({"range": "sha256", "gte": 1}), 400, "unknown_field", "filter.range"),
    ("POST", SEARCH, filtered({"attribute": "no name", "in": ["x"]}), 400, "unknown_field", "filter.attribute"),
    ("POST", SEARCH, filtered({"attribute": "tenant_id=", "in": ["globex"]}), 400, "unknown_field", "filter.attribute"),
    ("POST", SEARCH, filtered({"attribute": "shelf", "in": ["3"]}), 400, "invalid_filter", "filter.attribute"),
    ("POST", SEARCH, filtered({"range": "shelf", "gte": "3"}), 400, "invalid_filter", "filter.gte"),
    ("POST", SEARCH, filtered({"range": "shelf", "gte": True}), 400, "invalid_filter", "filter.gte"),
    ("POST", SEARCH, filtered({"range": "shelf", "gte": 2**60}), 400, "invalid_filter", "filter.gte"),
    ("POST", SEARCH, filtered({"range": "taken_at", "lt": 1_700_000_000}), 400, "invalid_filter", "filter.lt"),
    ("POST", SEARCH, filtered({"range": "taken_at", "lt": "yesterday"}), 400, "invalid_filter", "filter.lt"),
    ("POST", SEARCH, filtered({"range": "shelf"}), 400, "invalid_filter", "filter"),
    ("POST", SEARCH, filtered({"range": "shelf", "gt": 1, "gte": 1}), 400, "invalid_filter", "filter"),
    ("POST", SEARCH, filtered({"attribute": "colour", "in": [3]}), 400, "invalid_filter", "filter.in.0"),
    ("POST", SEARCH, filtered({"attribute": "colour"}), 400, "invalid_filter", "filter.in"),
    ("POST", SEARCH, filtered({"tags": "red"}), 400, "invalid_filter", "filter.tags"),
    ("POST", SEARCH, filtered({"tags": []}), 400, "invalid_filter", "filter.tags"),
    ("POST", SEARCH, filtered({"tags": [""]}), 400, "invalid_filter", "filter.tags.0"),
    ("POST", SEARCH, filtered({}), 400, "invalid_filter", "filter"),
    ("POST", SEARCH, filtered([]), 400, "invalid_filter", "filter"),
    ("POST", SEARCH, filtered({"all": []}), 400, "invalid_filter", "filter.all"),
    ("POST", SEARCH, filtered({"tags": ["a"], "not": {"tags": ["b"]}}), 400, "invalid_filter", "filter"),
    ("POST", SEARCH, filtered({"tags": ["a"], "gte": 1}), 400, "invalid_filter", "filter.gte"),
    ("POST", SEARCH, filtered({"any": [{"tags": ["a"]}, {"state": "deleted"}]}), 400, "invalid_filter", "filter.any.1"),
    ("POST", SEARCH, filtered(nested(MAX_DEPTH + 1)), 400, "filter_too_large", "filter" + ".not" * MAX_DEPTH),
    ("POST", SEARCH, filtered({"tags": ["a"] * MAX_SIZE}), 400, "filter_too_large", "filter"),
    ("POST", SEARCH, filtered({"any": [{"tags": ["a"]}] * 100}), 400, "filter_too_large", "filter"),
    (
        "POST",
        SEARCH,
        raw('{"positive": ["x"], "filter": ' + '{"not":' * 5000 + "1" + "}" * 5001),
        400,
        "invalid_body",
        None,
    ),
    ("GET", IMAGES, {"params": {"filter": "{"}}, 400, "invalid_body", "filter"),
    ("GET", f"{FACETS}/tags", {"params": {"filter": '{"range":"x","gt":1}'}}, 400, "unknown_field", "filter.range"),
    (
        "POST",
        UPLOAD,
        {"params": {"filter": '{"tags":[]}'}, "content": picture(0, 0)},
        400,
        "invalid_filter",
        "filter.tags",
    ),
    ("GET", f"{FACETS}/shelf", {}, 400, "invalid_parameter", "field"),
    ("GET", f"{FACETS}/created_at", {}, 400, "invalid_parameter", "field"),
    ("GET", f"{FACETS}/no%20name", {}, 400, "unknown_field", "field"),
    ("POST", SEARCH, searched(fields=["vector"]), 400, "unknown_field", "fields"),
    ("GET", f"{IMAGES}/f0-m0/similar", {"params": {"fields": "tenant_id"}}, 400, "unknown_field", "fields"),
]
TYPES: list[Row] = [
    ("POST", SEARCH, {"json": {"positive": "f0-m0"}}, 400, "invalid_body", "positive"),
    ("POST", SEARCH, {"json": {}}, 400, "invalid_body", "positive"),
    ("POST", SEARCH, {"json": []}, 400, "invalid_body", None),
    ("POST", SEARCH, {"json": {"positive": []}}, 400, "invalid_body", "positive"),
    ("POST", SEARCH, {"json": {"positive": ["x"] * 65}}, 400, "invalid_body", "positive"),
    ("POST", SEARCH, searched(positve=["x"]), 400, "invalid_body", "positve"),
    ("POST", SEARCH, searched(score_threshold="high"), 400, "invalid_body", "score_threshold"),
    ("POST", SEARCH, searched(score_threshold=1.5), 400, "invalid_body", "score_threshold"),
    ("POST", SEARCH, raw("{"), 400, "invalid_body", None),
    ("POST", SEARCH, raw(""), 400, "invalid_body", None),
    ("POST", BATCH, {"json": {"searches": []}}, 400, "invalid_body", "searches"),
    ("POST", BATCH, {"json": {"searches": [GOOD] * 65}}, 400, "invalid_body", "searches"),
    ("POST", BATCH, {"json": {"searches": [GOOD, {**GOOD, "limit": "3"}]}}, 400, "invalid_body", "searches.1.limit"),
    (
        "GET",
        f"{IMAGES}/f0-m0/similar",
        {"params": {"score_threshold": "nan"}},
        400,
        "invalid_parameter",
        "score_threshold",
    ),
    ("POST", f"{IMAGES}?version=now", {"content": picture(0, 0)}, 400, "invalid_parameter", "version"),
    ("POST", f"{IMAGES}?version=5", {"content": picture(0, 0)}, 400, "invalid_parameter", "version"),
    ("POST", f"{IMAGES}?image_id=..", {"content": picture(0, 0)}, 400, "invalid_parameter", "image_id"),
    ("POST", f"{IMAGES}?tags=x", {"content": picture(0, 0)}, 400, "invalid_parameter", "tags"),
    ("POST", IMAGES, {"json": {"image_id": "x"}}, 400, "invalid_body", "location"),
    ("POST", IMAGES, {"json": {"location": {"bucket": BUCKET}}}, 400, "invalid_body", "location.key"),
    ("POST", IMAGES, referred(tags=["x"] * 65), 400, "invalid_body", "tags"),
    ("POST", IMAGES, referred(attributes={"a b": 1}), 400, "invalid_body", "attributes"),
    ("POST", IMAGES, referred(attributes={"a": [1]}), 400, "invalid_body", "attributes"),
    ("POST", IMAGES, formed(image="{"), 400, "invalid_body", "image"),
    ("POST", IMAGES, formed(image='{"version": "1"}'), 400, "invalid_body", "image.version"),
    ("POST", IMAGES, formed(imgae="{}"), 400, "invalid_body", "imgae"),
    ("DELETE", f"{IMAGES}/f0-m0?version=-1", {}, 400, "invalid_parameter", "version"),
]
LIMITS: list[Row] = [
    ("GET", f"{IMAGES}?limit=0", {}, 400, "invalid_parameter", "limit"),
    ("GET", f"{IMAGES}?limit=1000000", {}, 400, "invalid_parameter", "limit"),
    ("GET", f"{IMAGES}/f0-m0/similar?limit=1000000", {}, 400, "invalid_parameter", "limit"),
    ("GET", f"{FACETS}/tags?limit=101", {}, 400, "invalid_parameter", "limit"),
    ("POST", UPLOAD + "?limit=0", {"content": picture(0, 0)}, 400, "invalid_parameter", "limit"),
    ("POST", SEARCH, searched(limit=0), 400, "invalid_body", "limit"),
    ("POST", SEARCH, searched(limit=1_000_000), 400, "invalid_body", "limit"),
    ("POST", SEARCH, searched(limit=2**70), 400, "invalid_body", "limit"),
    ("POST", BATCH, {"json": {"searches": [{**GOOD, "limit": 0}]}}, 400, "invalid_body", "searches.0.limit"),
]
CURSORS: list[Row] = [
    ("GET", IMAGES, {"params": {"cursor": "f0-m0"}}, 400, "invalid_parameter", "cursor"),
    ("GET", IMAGES, {"params": {"cursor": ""}}, 400, "invalid_parameter", "cursor"),
    ("GET", IMAGES, {"params": {"cursor": "\u00e9"}}, 400, "invalid_parameter", "cursor"),
    ("POST", SEARCH, searched(cursor="kgo"), 400, "invalid_parameter", "cursor"),
    ("POST", SEARCH, searched(cursor="A" * 5000), 400, "invalid_parameter", "cursor"),
    (
        "POST",
        BATCH,
        {"json": {"searches": [GOOD, {**GOOD, "cursor": "x"}]}},
        400,
        "invalid_parameter",
        "searches.1.cursor",
    ),
]
PICTURES: list[Row] = [
    ("POST", UPLOAD, {"content": b"no picture"}, 422, "image_unreadable", None),
    ("POST", UPLOAD, {"content": bomb()}, 422, "image_too_large", None),
    ("POST", IMAGES, {"content": b"no picture"}, 422, "image_unreadable", None),
    ("POST", IMAGES, {"content": bomb()}, 422, "image_too_large", None),
    ("POST", IMAGES, {"content": b""}, 422, "image_empty", None),
    ("POST", IMAGES, referred("acme/absent"), 404, "image_missing", None),
    ("POST", IMAGES, referred("globex/x"), 403, "location_forbidden", "location.key"),
    ("POST", IMAGES, referred("acme/x", "etc"), 403, "location_forbidden", "location.bucket"),
    ("POST", IMAGES, {"files": {"picture": ("x", picture(0, 0))}}, 400, "invalid_body", "file"),
]


def _typed(content_type: str, data: bytes = b"{}") -> dict[str, Any]:
    return {"content": data, "headers": {"Content-Type": content_type}}


MEDIA: list[Row] = [
    ("POST", SEARCH, _typed("text/plain"), 415, "unsupported_media_type", "content-type"),
    ("POST", SEARCH, {"content": b'{"positive": ["f0-m0"]}'}, 415, "unsupported_media_type", "content-type"),
    ("POST", BATCH, _typed("application/xml"), 415, "unsupported_media_type", "content-type"),
    ("POST", UPLOAD, _typed("application/x-www-form-urlencoded"), 415, "unsupported_media_type", "content-type"),
    ("POST", UPLOAD, _typed("application/json"), 415, "unsupported_media_type", "content-type"),
    ("POST", IMAGES, _typed("video/mp4"), 415, "unsupported_media_type", "content-type"),
    ("POST", UPLOAD, _typed("multipart/form-data"), 400, "bad_request", None),
]
TEXT: list[Row] = [
    ("POST", SEARCH, raw(b'{"positive": ["\xff"]}'), 400, "invalid_body", None),
    ("POST", SEARCH, raw(b'{"positive": ["\\ud800"]}'), 400, "invalid_body", None),
    ("POST", BATCH, raw(b"\xfe\xff"), 400, "invalid_body", None),
    ("POST", IMAGES, raw(b'{"location": {"bucket": "\xc3", "key": "acme/x"}}'), 400, "invalid_body", None),
    ("GET", f"{IMAGES}/%FF", {}, 404, "image_not_found", "id"),
    ("GET", f"{IMAGES}?cursor=%FF", {}, 400, "invalid_parameter", "cursor"),
    ("GET", f"{IMAGES}?filter=%FF", {}, 400, "invalid_body", "filter"),
    ("GET", f"{IMAGES}?%FF=1", {}, 400, "invalid_parameter", "\ufffd"),
    ("GET", "/v1/tenants/%FF/images", {}, 404, "tenant_not_found", "tenant"),
]
ROWS = [*UNKNOWN, *VECTORS, *FILTERS, *TYPES, *LIMITS, *CURSORS, *PICTURES, *MEDIA, *TEXT]


@pytest.mark.parametrize("row", ROWS, ids=[f"{row[0]}-{row[4]}-{n}" for n, row in enumerate(ROWS)])
def test_bad_input_is_refused_before_it_reaches_the_index(row: Row) -> None:
    """A 4xx, the code, the field; the index is asked for its shape and for existence at most, the log is empty."""
    method, path, options, status, code, field = row
    rig = filled(1, 2)
    rig.embedder = BoundedEmbedder()
    rig.objects.put(BUCKET, "globex/x", picture(9, 9))
    objects = dict(rig.objects.objects)
    index: Any = RecordingIndex(rig.index)
    app = create_app(replace(rig.deps(), searcher=index, writer=index))
    response = ask(app, method, path, **options)
    error = error_of(response)
    assert (response.status_code, error["code"]) == (status, code), error
    assert error["field"] == field, error
    assert set(index.calls) <= (LOOKS | {"list"} if row is ROWS[0] else LOOKS)  # an empty list is what tells
    assert rig.log.records(TOPIC) == []
    assert rig.objects.objects == objects


def test_a_cursor_of_another_query_is_refused_before_the_index_is_asked() -> None:
    """One that was given out, for another question."""
    rig = filled(1, 3)
    index: Any = RecordingIndex(rig.index)
    app = create_app(replace(rig.deps(), searcher=index))
    cursor = ask(app, "POST", SEARCH, json={**GOOD, "limit": 1}).json()["next_cursor"]
    index.calls.clear()
    refused = ask(app, "POST", SEARCH, json={"positive": ["f0-m1"], "cursor": cursor})
    assert (refused.status_code, error_of(refused)["field"]) == (400, "cursor")
    assert index.calls == []


@pytest.mark.parametrize("path", [SEARCH, BATCH, UPLOAD, IMAGES])
@pytest.mark.parametrize("chunked", [False, True])
def test_a_body_past_its_limit_is_413(path: str, chunked: bool) -> None:
    """Declared or in chunks; JSON has a limit of its own below that of pictures."""

    async def chunks() -> AsyncIterator[bytes]:
        for _ in range(8):
            yield b" " * 512

    rig = filled(1, 2)
    index: Any = RecordingIndex(rig.index)
    as_json = path in (SEARCH, BATCH)
    limits = Limits(max_body_bytes=1 << 20 if as_json else 2048, max_json_bytes=2048)
    app = create_app(replace(rig.deps(limits=limits), searcher=index, writer=index))
    headers = {"Content-Type": "application/json"} if as_json else {}
    response = ask(app, "POST", path, content=chunks() if chunked else b" " * 4096, headers=headers)
    assert (response.status_code, error_of(response)["code"]) == (413, "body_too_large")
    assert set(index.calls) <= LOOKS
    assert rig.log.records(TOPIC) == []


def test_the_longest_body_that_is_allowed_is_read() -> None:
    """Exactly the limit is no error."""
    body = json.dumps(GOOD).encode()
    app = filled(1, 2).app(limits=Limits(max_json_bytes=len(body) + 7))
    for extra, status in ((7, 200), (8, 413)):
        padded = body + b" " * extra
        assert ask(app, "POST", SEARCH, **_typed("application/json", padded)).status_code == status
