"""Pictures that come and go: every answer says what is durable by then."""

from __future__ import annotations

from collections.abc import Callable

import msgspec
from starlette.requests import Request
from starlette.responses import Response

from embedder.index.points import Bury, Point, Written
from embedder.index.protocol import CollectionSpec
from query_api import params, versions
from query_api.announce import Announcer
from query_api.answers import Json, answer
from query_api.bodies import FORM, JSON, decode_json, json_body, media_type, picture_of
from query_api.deps import Deps
from query_api.keys import Scope
from query_api.lookup import CurrentSpec, require_tenant
from query_api.openapi import answers, binary_body, parameters, ref
from query_api.operation import Operation
from query_api.params import image_not_found
from query_api.posting import NOTE_S, SOURCE, ImageBody, Posted, Posting, ReferenceBody
from query_api.threads import Slots, Threads
from query_api.thumbnail_store import ThumbnailStore
from streams.errors import DependencyError, QueryError
from streams.event import deleted


class Changes:
    """POST and DELETE below `/v1/tenants/{tenant}/images`."""

    def __init__(self, deps: Deps, *, threads: Threads, spec: CurrentSpec, thumbnails: ThumbnailStore) -> None:
        self._deps = deps
        self._threads = threads
        self._spec = spec
        self._slots = Slots(deps.limits.max_uploads, "uploads")
        self._announcer = Announcer(deps.producer, deps.topic)
        self._posting = Posting(
            objects=deps.objects,
            grants=deps.grants,
            places=deps.places,
            announcer=self._announcer,
            writer=deps.writer,
            embedder=deps.embedder,
            thumbnails=thumbnails,
            max_image_bytes=deps.limits.max_image_bytes,
            now_us=deps.now_us,
        )

    def operations(self) -> list[Operation]:
        images = "/v1/tenants/{tenant}/images"
        return [
            Operation("POST", images, "post", self.post, Scope.WRITE, POST),
            Operation("DELETE", images + "/{id}", "delete", self.delete, Scope.WRITE, DELETE),
        ]

    async def post(self, request: Request) -> Response:
        tenant_id = params.tenant_of(request)
        if media_type(request) == JSON:
            params.only(request, ())
            body = await json_body(request, ReferenceBody, max_bytes=self._deps.limits.max_json_bytes)
            posted = await self._threads.run(lambda: self._posting.refer(tenant_id, body, self._look(tenant_id)))
        else:
            with self._slots.take():
                posted = await self._upload(request, tenant_id)
        spec = await self._threads.run(self._known_spec)
        response = answer(request, _accepted(tenant_id, posted), spec, status=202)
        response.headers["Location"] = f"/v1/tenants/{tenant_id}/images/{posted.image_id}"
        return response

    async def delete(self, request: Request) -> Response:
        params.only(request, {"version"})
        tenant_id, image_id = params.tenant_of(request), params.image_of(request)
        given = params.version_of(request)
        body = await self._threads.run(lambda: self._delete(tenant_id, image_id, given))
        spec = await self._threads.run(self._known_spec)
        return answer(request, body, spec, status=202)

    async def _upload(self, request: Request, tenant_id: str) -> Posted:
        params.only(request, () if media_type(request) == FORM else {"image_id", "version"})
        picture = await picture_of(request, fields=("image",))
        if "image" in picture.fields:
            body = decode_json(picture.fields["image"].encode(), ImageBody, within="image")
        else:
            body = ImageBody(image_id=params.image_id_of(request), version=params.version_of(request))
        return await self._threads.run(
            lambda: self._posting.upload(tenant_id, body, picture.data, picture.content_type, self._look(tenant_id))
        )

    def _look(self, tenant_id: str) -> Callable[[str], Point | None]:
        """Asks the index about an image; None also where the index does not answer: an event needs no index."""
        return lambda image_id: self._stored(tenant_id, image_id)[0]

    def _stored(self, tenant_id: str, image_id: str) -> tuple[Point | None, bool]:
        try:
            return self._deps.searcher.get(tenant_id, image_id), True
        except DependencyError:
            return None, False

    def _known_spec(self) -> CollectionSpec | None:
        try:
            return self._spec.get()
        except DependencyError:
            return None

    def _delete(self, tenant_id: str, image_id: str, given: int | None) -> Json:
        """Event acknowledged → tombstone → objects gone. Twice is harmless."""
        now = self._deps.now_us()
        stored, answers_now = self._stored(tenant_id, image_id)
        version = versions.for_delete(given, stored, now_us=now)
        if stored is None and answers_now and given is None:
            require_tenant(self._deps.searcher, tenant_id)
            raise image_not_found(image_id)
        self._announcer.announce(deleted(tenant_id, image_id, version=version, source=SOURCE))
        search = self._bury(tenant_id, Bury(image_id, version, now))
        self._deps.places.remove_image(self._deps.objects, tenant_id, image_id, up_to_version=version)
        return {"tenant_id": tenant_id, "image_id": image_id, "version": version, "search": search}

    def _bury(self, tenant_id: str, write: Bury) -> str:
        try:
            receipt = self._deps.writer.write(tenant_id, [write]).result(NOTE_S)
        except (DependencyError, TimeoutError):
            return "pending"
        if receipt.written[0] is Written.SUPERSEDED:
            message = f"a picture newer than version {write.version} was applied meanwhile: it stays"
            raise QueryError(409, "version_superseded", message, field="version")
        return "gone"


def _accepted(tenant_id: str, posted: Posted) -> Json:
    place = posted.location
    return {
        "tenant_id": tenant_id,
        "image_id": posted.image_id,
        "version": posted.version,
        "pending": posted.pending,
        "location": msgspec.to_builtins(place),
    }


_REFERENCE = {"application/json": {"schema": ref("schemas", "ImageReference")}}

POST = {
    "summary": "Announce a picture: one that is sent, or one that lies in a bucket already",
    "description": (
        "202 when the object is stored and the broker has the event. The same id and version again changes nothing. "
        "A raw picture says its id and version in the query, a form in its part `image`, a reference in its body."
    ),
    "parameters": parameters("tenant", "image_id", "version"),
    "requestBody": binary_body(form="ImageFields", more=_REFERENCE),
    "responses": answers(
        "it will be searchable; `pending` is false where the index does not answer",
        "Accepted",
        *(400, 403, 404, 408, 409, 413, 415, 422, 429, 503, 504),
        status=202,
    ),
}
DELETE = {
    "summary": "Remove an image from the search, with what was uploaded for it",
    "description": (
        "202 when the broker has the event. `search` is `gone`, or `pending` where the index does not answer: the "
        "image leaves when the event is worked on. An image that is not known is 404, unless a version is given."
    ),
    "parameters": parameters("tenant", "id", "version"),
    "responses": answers("the image is deleted", "Deleted", 400, 404, 409, 503, 504, status=202),
}
