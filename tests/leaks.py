"""Attempts of one tenant to learn of another, made up from the published document of the API.

Every operation is asked as it is meant, with one value at a time replaced by one that is the victim's. What
a value means is told by the component that its schema refers to; a string of no such kind is replaced by
every text the victim has, so a new operation, parameter or field is attacked without anybody's help.

Nothing comes through where every answer is, byte by byte, that of a world in which the victim never was.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from typing import Any
from urllib.parse import quote

import httpx
from starlette.applications import Starlette

from embedder.index.points import Attempt, AttemptState, Bury, Note, Point
from query_api.app import create_app
from query_api.deps import Limits
from query_api.keys import Key, Scope, find, new_key
from streams.errors import Reason
from streams.event import Location, parse
from tests.api_rig import BUCKET, PLACES, TOPIC, VERSION, Rig, client_of, picture

US, VICTIM, NOBODY = "acme", "globex", "nobody"
OURS, THEIRS = "mine-0", "secret-0"
NOW = VERSION + 1_000_000
Json = dict[str, Any]
_NO_TIME = datetime(2026, 11, 25, tzinfo=UTC)
_STRIPPED = ("took_ms", "request_id", "latency_ms")


class Ring:
    """The keys of both tenants; `texts` by tenant."""

    def __init__(self) -> None:
        made = {tenant: new_key(tenant, Scope.WRITE, now=_NO_TIME) for tenant in (US, VICTIM)}
        self.texts = {tenant: one.text for tenant, one in made.items()}
        self._keys: dict[str, Key] = {one.key.id: one.key for one in made.values()}

    def start(self) -> None: ...

    def close(self) -> None: ...

    def check(self) -> None: ...

    def find(self, text: str) -> Key | None:
        return find(self._keys, text, now=_NO_TIME)


@dataclass
class World:
    """The API with our pictures, and those of the victim if there is one."""

    has_victim: bool
    ring: Ring
    rig: Rig = field(default_factory=Rig)

    def __post_init__(self) -> None:
        self._fill(US, "mine", 0)
        if self.has_victim:
            self._fill(VICTIM, "secret", 7)
        ticks = iter(range(NOW, NOW + 1_000_000))
        limits = Limits(max_json_bytes=1 << 20)
        deps = self.rig.deps(limits=limits)
        self.app: Starlette = create_app(replace(deps, keys=self.ring, now_us=lambda: next(ticks)))

    def _fill(self, tenant_id: str, name: str, family: int) -> None:
        """Pictures in every state, with tags and attributes of their own; one is an upload, one has a thumbnail."""
        for n in range(3):
            self.rig.add(
                f"{name}-{n}",
                picture(family, n),
                tenant_id=tenant_id,
                tags=("shared", f"tag-{name}"),
                attributes={"shelf": n + family, "codename": f"code-{name}", f"only_{name}": True},
            )
        upload = PLACES.upload(tenant_id, f"{name}-up", VERSION)
        self.rig.add(f"{name}-up", picture(family, 5), tenant_id=tenant_id, key=upload.key)
        failed = Attempt(VERSION, AttemptState.FAILED, Reason.IMAGE_UNREADABLE, tries=2, at_us=VERSION)
        gone = Bury(f"{name}-gone", VERSION, VERSION)
        self.rig.index.write(tenant_id, [Note(f"{name}-failed", failed), gone]).result()
        point = self.rig.index.get(tenant_id, f"{name}-0")
        assert point is not None
        assert point.etag is not None
        self.rig.objects.put(PLACES.thumbnail_bucket, PLACES.thumbnail(tenant_id, f"{name}-0", point.etag), b"small")

    def point(self, tenant_id: str, image_id: str) -> Point:
        found = self.rig.index.get(tenant_id, image_id)
        assert found is not None
        return found

    def belongings(self, tenant_id: str) -> Any:
        """Everything that a tenant has, to be compared before and after."""
        points = self.rig.index.list(tenant_id, limit=1000).points
        objects = {at: data for at, data in self.rig.objects.objects.items() if f"/{tenant_id}/" in f"/{at[1]}"}
        return points, objects

    def announced(self) -> set[str]:
        """The tenants of all events."""
        return {parse(r.value, r.headers, at_us=2 * NOW).tenant_id for r in self.rig.log.records(TOPIC)}


@dataclass(frozen=True)
class Request:
    """One request; `what` says for people which value is the victim's."""

    what: str
    method: str
    path: str
    options: Mapping[str, Any]

    async def ask(self, client: httpx.AsyncClient) -> tuple[int, Any, dict[str, str]]:
        """What comes back, without what is never twice the same."""
        answer = await client.request(self.method, self.path, **self.options)
        kind = answer.headers.get("content-type", "")
        body = _stripped(answer.json()) if kind.startswith("application/json") else answer.content
        dropped = {"x-request-id", "content-length", "retry-after"}
        return answer.status_code, body, {k: v for k, v in answer.headers.items() if k not in dropped}


def _stripped(body: Any) -> Any:
    if isinstance(body, dict):
        return {name: _stripped(value) for name, value in body.items() if name not in _STRIPPED}
    return [_stripped(one) for one in body] if isinstance(body, list) else body


class Attempts:
    """All attempts, from the document; what is the victim's comes from a world that has one."""

    def __init__(self, document: Json, world: World, cursors: list[str]) -> None:
        self._document = document
        self._key = {"Authorization": f"Bearer {world.ring.texts[US]}"}
        self._theirs = {"Authorization": f"Bearer {world.ring.texts[VICTIM]}"}
        ours, theirs = world.point(US, OURS), world.point(VICTIM, THEIRS)
        assert ours.location is not None
        assert theirs.location is not None
        assert theirs.etag is not None
        assert theirs.sha256 is not None
        embed = world.rig.embedder.embed
        thumbnail = PLACES.thumbnail(VICTIM, THEIRS, theirs.etag)
        upload = PLACES.upload(VICTIM, "secret-up", VERSION).key
        self._benign: dict[str, Any] = {
            "ImageId": OURS,
            "Version": NOW + 5,
            "Cursor": "kgo",
            "Vector": embed(picture(0, 0)).tolist(),
            "Example": OURS,
            "Filter": {"tags": ["shared"]},
            "ObjectPlace": _place(ours.location.key),
        }
        ids = [THEIRS, "secret-up", "secret-gone", "secret-failed", f"{VICTIM}.{THEIRS}", f"{VICTIM}~{THEIRS}"]
        vectors = [embed(picture(7, n)).tolist() for n in range(2)]
        self._hostile: dict[str, list[Any]] = {
            "ImageId": ids,
            "Version": [VERSION, VERSION + 1],
            "Cursor": cursors,
            "Vector": vectors,
            "Example": [*ids, *vectors],
            "Filter": _filters(),
            "ObjectPlace": [
                _place(theirs.location.key),
                _place(theirs.location.key, etag=theirs.etag),
                _place(f"{VICTIM}/absent.jpg"),
                _place(f"{US}/../{theirs.location.key}"),
                _place(f"./{theirs.location.key}"),
                _place(f"{US}//../{theirs.location.key}"),
                _place(f"{US}\\..\\{theirs.location.key}"),
                _place(upload),
                _place(thumbnail, PLACES.thumbnail_bucket),
                _place(f"{US}/x", f"{BUCKET}/{VICTIM}"),
                _place(f"/{theirs.location.key}"),
            ],
        }
        self._texts = [*ids[:2], VICTIM, "tag-secret", "code-secret", theirs.etag, theirs.sha256, theirs.location.key]
        self._picture = picture(7, 0)

    def all(self) -> Iterator[Request]:
        """Every operation below a tenant, with each of its values replaced, under our key, theirs on us, and none."""
        for path, item in self._document["paths"].items():
            for method, operation in item.items():
                if "{tenant}" in path:
                    yield from self._of_operation(method.upper(), path, operation)
                else:
                    yield Request("beside the tenants", method.upper(), path, {"headers": self._key})

    def _of_operation(self, method: str, path: str, operation: Json) -> Iterator[Request]:
        shown = [self._resolved(one) for one in operation.get("parameters", ())]
        parts = {one["name"]: self._one(one["schema"]) for one in shown if one["in"] == "path"}
        parts["tenant"] = US
        body = next(iter(self._bodies(operation, hostile=False)), {})

        def request(what: str, parts: Json, body: Json, query: Json | None = None, key: Json | None = None) -> Request:
            filled = path
            for name, value in parts.items():
                filled = filled.replace(f"{{{name}}}", quote(str(value), safe=""))
            headers = {**(self._key if key is None else key), **body.get("headers", {})}
            options = {**body, "params": query or {}, "headers": headers}
            return Request(f"{operation['operationId']}: {what}", method, filled, options)

        for other in self._other_tenants(parts):
            yield request(f"tenant {other['tenant']}", other, body)
        for key in ({}, {"Authorization": "Bearer lk_000000000000_" + "a" * 43}):
            yield request("no key", {**parts, "tenant": VICTIM}, body, key=key)
        for one in shown:
            for value in self._values(one) if one["name"] != "tenant" else ():
                if one["in"] == "path":
                    yield request(f"path {one['name']}", {**parts, one["name"]: value}, body)
                else:
                    yield request(f"query {one['name']}", parts, body, {one["name"]: value})
        for hostile in self._bodies(operation, hostile=True):
            yield request("body", parts, hostile)

    def _other_tenants(self, parts: Json) -> Iterator[Json]:
        for tenant_id in (VICTIM, NOBODY, f"{VICTIM}/../{US}", f"{US}%2F..%2F{VICTIM}"):
            yield {**parts, "tenant": tenant_id}
            if "id" in parts:
                yield {**parts, "tenant": tenant_id, "id": THEIRS}

    def _values(self, parameter: Json) -> Iterator[Any]:
        if "content" in parameter:
            for value in self._variants(parameter["content"]["application/json"]["schema"]):
                yield json.dumps(value)
        else:
            yield from self._variants(parameter["schema"])

    def _bodies(self, operation: Json, *, hostile: bool) -> Iterator[Json]:
        content = operation.get("requestBody", {}).get("content", {})
        for kind, described in content.items():
            schema = described["schema"]
            if kind == "application/json":
                for value in self._variants(schema) if hostile else [self._one(schema)]:
                    yield {"json": value}
            elif kind == "multipart/form-data":
                about = schema["properties"].get("image")
                for value in self._variants(about) if hostile and about else []:
                    yield {"files": {"file": ("x", self._picture)}, "data": {"image": json.dumps(value)}}
            else:
                data = self._picture if hostile else picture(0, 0)
                yield {"content": data, "headers": {"Content-Type": kind.replace("*", "jpeg")}}

    # ---- values of a schema ------------------------------------------------------------------------

    def _resolved(self, schema: Json) -> Json:
        while "$ref" in schema:
            _, _, kind, name = schema["$ref"].split("/")
            schema = self._document["components"][kind][name]
        return schema

    def _one(self, schema: Json) -> Any:
        """A value as it is meant, of ours."""
        name = schema.get("$ref", "").rpartition("/")[2]
        if name in self._benign:
            return self._benign[name]
        schema = self._resolved(schema)
        for word in ("anyOf", "oneOf"):
            if word in schema:
                return self._one(schema[word][0])
        if "enum" in schema:
            return schema["enum"][0]
        kind = schema.get("type")
        kind = kind[0] if isinstance(kind, list) else kind
        if kind == "object":
            return {part: self._one(schema["properties"][part]) for part in schema.get("required", ())}
        if kind == "array":
            return [self._one(schema["items"])]
        plain = {"string": "tags", "integer": schema.get("minimum", 1), "number": 0.1, "boolean": True}
        return plain[str(kind)]

    def _variants(self, schema: Json) -> Iterator[Any]:
        """Values in which one place is the victim's."""
        name = schema.get("$ref", "").rpartition("/")[2]
        if name in self._hostile:
            yield from self._hostile[name]
            return
        schema = self._resolved(schema)
        for part in (*schema.get("anyOf", ()), *schema.get("oneOf", ())):
            yield from self._variants(part)
        kinds = schema.get("type", ())
        if "object" in kinds:
            yield from self._variants_of_object(schema)
        elif "array" in kinds:
            for value in self._variants(schema["items"]):
                yield from ([value], [self._one(schema["items"]), value])
        elif "string" in kinds and "enum" not in schema and schema.get("format") != "binary":
            yield from self._texts

    def _variants_of_object(self, schema: Json) -> Iterator[Json]:
        base = self._one(schema)
        for part, of_part in schema.get("properties", {}).items():
            for value in self._variants(of_part):
                yield {**base, part: value}
        more = schema.get("additionalProperties")
        for value in self._variants(more) if isinstance(more, dict) else ():
            yield {"codename": value}


def _place(key: str, bucket: str = BUCKET, **more: str) -> Json:
    return {"bucket": bucket, "key": key, **more}


def _filters() -> list[Json]:
    """Conditions that only the victim's pictures meet, that everything meets, and that try to leave the tenant."""
    return [
        {"tags": ["tag-secret"]},
        {"tags": [VICTIM, THEIRS]},
        {"attribute": "codename", "in": ["code-secret"]},
        {"attribute": "only_secret", "in": [True]},
        {"attribute": "tenant_id", "in": [VICTIM]},
        {"attribute": "image_id", "in": [THEIRS]},
        {"range": "shelf", "gte": 7},
        {"range": "tenant_id", "gte": 0},
        {"range": "width_px", "gte": 0},
        {"not": {"attribute": "tenant_id", "in": [US]}},
        {"not": {"tags": ["tag-mine"]}},
        {"any": [{"tags": ["tag-secret"]}, {"range": "width_px", "gte": 0}]},
        {"not": {"all": [{"tags": ["tag-mine"]}, {"range": "width_px", "gte": 0}]}},
        {"any": [{"not": {"tags": ["shared"]}}, {"tags": ["shared"]}]},
    ]


def client(world: World) -> httpx.AsyncClient:
    """Asks the world's API in this process."""
    return client_of(world.app)


def location_of(world: World, tenant_id: str, image_id: str) -> Location:
    """Where a picture lies."""
    place = world.point(tenant_id, image_id).location
    assert place is not None
    return place
