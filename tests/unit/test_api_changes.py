"""Pictures posted and deleted: what is durable when, which versions win, what goes with an image."""

from __future__ import annotations

import json
from dataclasses import replace
from typing import Any

import httpx
import pytest
from starlette.applications import Starlette

from embedder.index.points import Attempt, AttemptState, Bury, Note, Point, State
from embedder.query_embedder import QueueFullError
from query_api import versions
from query_api.app import create_app
from query_api.deps import Limits
from streams.errors import DependencyError, QueryError, Reason
from streams.event import MAX_AHEAD_US, EventType, ImageEvent, Location, parse
from tests.api_rig import (
    BUCKET,
    PLACES,
    TENANT,
    TOPIC,
    VERSION,
    PromptProducer,
    Rig,
    ask,
    error_of,
    filled,
    get,
    picture,
)

IMAGES = f"/v1/tenants/{TENANT}/images"
NOW = VERSION + 1_000_000


class Changing:
    """The app with its clock at NOW and its broker and index where tests can break them."""

    def __init__(self, rig: Rig | None = None, *, limits: Limits | None = None) -> None:
        self.rig = rig or filled(1, 2)
        self.producer = PromptProducer(self.rig.log)
        self.index_is_down = False
        deps = self.rig.deps(limits=limits)
        self.app: Starlette = create_app(
            replace(deps, producer=self.producer, now_us=lambda: NOW, searcher=Mortal(self), writer=Mortal(self))
        )

    def post(self, data: bytes | None = None, **options: Any) -> httpx.Response:
        return ask(self.app, "POST", IMAGES, content=data, **options)

    def refer(self, **body: Any) -> httpx.Response:
        return ask(self.app, "POST", IMAGES, json=body)

    def delete(self, image_id: str, **params: Any) -> httpx.Response:
        return ask(self.app, "DELETE", f"{IMAGES}/{image_id}", params=params)

    def events(self) -> list[ImageEvent]:
        return [parse(r.value, r.headers, at_us=NOW) for r in self.rig.log.records(TOPIC)]

    def point(self, image_id: str) -> Point | None:
        return self.rig.index.get(TENANT, image_id)

    def stored_keys(self, bucket: str = BUCKET) -> set[str]:
        return {key for at, key in self.rig.objects.objects if at == bucket}

    def apply(self, image_id: str, data: bytes, version: int, location: Location) -> None:
        """What a worker makes of the event."""
        self.rig.add(image_id, data, version=version, key=location.key, put=False)


class Mortal:
    """The rig's index, which answers unless it is down."""

    def __init__(self, changing: Changing) -> None:
        self._changing = changing

    def __getattr__(self, name: str) -> Any:
        def call(*args: Any, **options: Any) -> Any:
            if self._changing.index_is_down:
                raise DependencyError("index", "no answer")
            return getattr(self._changing.rig.index, name)(*args, **options)

        return call


# ---- post: an upload -----------------------------------------------------------------------------


def test_an_upload_is_stored_announced_and_noted() -> None:
    """202 with version and place; the object has the bytes, the event names it, the status says pending."""
    api, data = Changing(), picture(3, 0)
    answer = api.post(data, params={"image_id": "new"}, headers={"Content-Type": "image/jpeg"})
    assert answer.status_code == 202
    body = answer.json()
    assert (body["image_id"], body["version"], body["pending"]) == ("new", NOW, True)
    assert answer.headers["location"] == f"{IMAGES}/new"
    place = body["location"]
    assert api.rig.objects.objects[BUCKET, place["key"]] == data
    assert place["key"] == f"{TENANT}/uploads/new/{NOW}"
    (event,) = api.events()
    assert (event.type, event.tenant_id, event.image_id, event.version) == (EventType.CREATED, TENANT, "new", NOW)
    assert event.location is not None
    assert (event.location.key, event.location.etag, event.location.size_bytes) == (
        place["key"],
        place["etag"],
        len(data),
    )
    api.rig.deps().grants.check(TENANT, event.location)
    status = get(api.app, f"{IMAGES}/new").json()
    assert (status["state"], status["attempt"]["state"], status["attempt"]["version"]) == ("empty", "pending", NOW)


def test_a_form_brings_tags_and_attributes() -> None:
    """Its part `image` is JSON of the same names that a reference has."""
    api = Changing()
    about = {"image_id": "new", "version": NOW - 5, "tags": ["a", "b"], "attributes": {"price": 3, "sold": True}}
    answer = ask(api.app, "POST", IMAGES, files={"file": ("x.jpg", picture(3, 0))}, data={"image": json.dumps(about)})
    assert answer.status_code == 202, answer.text
    (event,) = api.events()
    assert (event.version, event.tags, event.attributes) == (NOW - 5, ("a", "b"), {"price": 3, "sold": True})


def test_an_upload_without_an_id_is_named_by_its_bytes() -> None:
    """The same picture twice is one image, another picture is another, and so is another tenant's."""
    api = Changing()
    first, again, other = (api.post(data).json()["image_id"] for data in (picture(3, 0), picture(3, 0), picture(3, 1)))
    assert first == again != other
    theirs = ask(api.app, "POST", IMAGES.replace(TENANT, "globex"), content=picture(3, 0)).json()["image_id"]
    assert theirs not in (first, other)


def test_the_same_upload_again_changes_nothing() -> None:
    """Same id, version and bytes: the object keeps its ETag, and the events say the same."""
    api, asked = Changing(), {"image_id": "new", "version": NOW}
    first, again = api.post(picture(3, 0), params=asked), api.post(picture(3, 0), params=asked)
    assert (first.status_code, again.status_code) == (202, 202)
    assert first.json()["location"] == again.json()["location"]
    one, two = api.events()
    assert (one.version, one.location) == (two.version, two.location)


def test_another_picture_under_the_same_version_is_409_before_the_object_is_touched() -> None:
    """Both while the first is pending and once it is indexed; the object is what it was."""
    api, asked = Changing(), {"image_id": "new", "version": NOW}
    location = Location(**api.post(picture(3, 0), params=asked).json()["location"])
    for _ in range(2):
        refused = api.post(picture(3, 1), params=asked)
        assert (refused.status_code, error_of(refused)["code"]) == (409, "version_conflict")
        assert api.rig.objects.objects[BUCKET, location.key] == picture(3, 0)
        api.apply("new", picture(3, 0), NOW, location)
    assert len(api.events()) == 1
    assert api.post(picture(3, 0), params=asked).status_code == 202


def test_a_version_that_failed_for_good_may_be_sent_again_with_another_picture() -> None:
    """Nothing of it was ever searchable: who mends the file need not invent a version."""
    api, asked = Changing(), {"image_id": "new", "version": NOW}
    api.post(picture(3, 0), params=asked)
    failed = Attempt(NOW, AttemptState.FAILED, Reason.IMAGE_UNREADABLE, tries=1, at_us=NOW)
    api.rig.index.write(TENANT, [Note("new", failed)]).result()
    answer = api.post(picture(3, 1), params=asked)
    assert answer.status_code == 202
    assert api.rig.objects.objects[BUCKET, answer.json()["location"]["key"]] == picture(3, 1)


def test_an_older_version_is_409_and_touches_nothing() -> None:
    """Newer applied, or deleted with this very version: the event would be superseded."""
    api = Changing()
    api.rig.index.write(TENANT, [Bury("f0-m1", VERSION + 7, VERSION)]).result()
    before = dict(api.rig.objects.objects)
    for image_id, version in (("f0-m0", VERSION - 1), ("f0-m1", VERSION + 7), ("f0-m1", VERSION + 6)):
        refused = api.post(picture(3, 0), params={"image_id": image_id, "version": version})
        assert (refused.status_code, error_of(refused)["code"]) == (409, "version_superseded")
        assert error_of(refused)["field"] == "version"
    assert api.events() == []
    assert api.rig.objects.objects == before


def test_a_new_picture_leaves_the_searchable_one_alone_until_it_is_applied() -> None:
    """Each version has an object of its own; what was replaced goes with the next upload."""
    api = Changing()
    places = []
    for n in range(3):
        answer = api.post(picture(3, n), params={"image_id": "new", "version": NOW + n})
        places.append(Location(**answer.json()["location"]))
        assert api.stored_keys() >= {place.key for place in places[-2:]}
        api.apply("new", picture(3, n), NOW + n, places[-1])
    assert {key for key in api.stored_keys() if "uploads" in key} == {place.key for place in places[1:]}


def test_the_indexed_picture_sent_again_is_not_stored_twice() -> None:
    """With new tags and no version it is the same object under a newer version: the worker fetches nothing."""
    api = Changing()
    location = Location(**api.post(picture(3, 0), params={"image_id": "new", "version": NOW - 9}).json()["location"])
    api.apply("new", picture(3, 0), NOW - 9, location)
    answer = api.post(picture(3, 0), params={"image_id": "new"})
    assert (answer.json()["version"], answer.json()["location"]["key"]) == (NOW, location.key)
    assert len([key for key in api.stored_keys() if "uploads/new/" in key]) == 1


@pytest.mark.parametrize(("data", "code"), [(b"no picture", "image_unreadable"), (b"", "image_empty")])
def test_what_is_no_picture_is_refused_at_once(data: bytes, code: str) -> None:
    """422 with the word that a dead letter would carry; nothing is stored or announced."""
    api = Changing()
    before = dict(api.rig.objects.objects)
    refused = api.post(data, params={"image_id": "new"})
    assert (refused.status_code, error_of(refused)["code"]) == (422, code)
    assert (api.events(), api.rig.objects.objects, api.point("new")) == ([], before, None)


def test_an_upload_is_looked_at_only_where_somebody_can() -> None:
    """An embedder that is down leaves it to the worker; one that is full says when to ask again."""
    api = Changing()
    api.rig.embedder.faults.append(DependencyError("embedder", "loading"))
    assert api.post(picture(3, 0), params={"image_id": "new"}).status_code == 202
    api.rig.embedder.faults.extend([QueueFullError("full")])
    refused = api.post(picture(3, 0), params={"image_id": "other"})
    assert (refused.status_code, error_of(refused)["code"]) == (429, "queue_full")
    assert refused.headers["retry-after"] == "1"
    assert len(api.events()) == 1


def test_an_uploads_thumbnail_is_there_before_it_is_indexed() -> None:
    """It was made when the upload was looked at: nobody makes it again."""
    api, data = Changing(), picture(3, 0)
    place = Location(**api.post(data, params={"image_id": "new"}).json()["location"])
    made = api.rig.embedder.n_thumbnails
    api.apply("new", data, NOW, place)
    assert get(api.app, f"{IMAGES}/new/thumbnail").status_code == 200
    assert api.rig.embedder.n_thumbnails == made == 1


# ---- post: a reference ---------------------------------------------------------------------------


def test_a_reference_is_announced_with_the_etag_that_is_there() -> None:
    """The object is not copied; its size and ETag are what the store says."""
    api, data = Changing(), picture(3, 0)
    info = api.rig.objects.put(BUCKET, f"{TENANT}/own.jpg", data)
    answer = api.refer(image_id="own", location={"bucket": BUCKET, "key": f"{TENANT}/own.jpg"}, tags=["x"])
    assert answer.status_code == 202, answer.text
    (event,) = api.events()
    assert event.location is not None
    assert (event.location.key, event.location.etag) == (f"{TENANT}/own.jpg", info.etag)
    assert event.location.size_bytes == len(data)
    assert event.tags == ("x",)
    assert not [key for key in api.stored_keys() if "uploads" in key]


@pytest.mark.parametrize(
    ("location", "status", "code"),
    [
        ({"bucket": BUCKET, "key": "acme/absent.jpg"}, 404, "image_missing"),
        ({"bucket": BUCKET, "key": "globex/secret.jpg"}, 403, "location_forbidden"),
        ({"bucket": BUCKET, "key": "globex/absent.jpg"}, 403, "location_forbidden"),
        ({"bucket": BUCKET, "key": "acme/../globex/secret.jpg"}, 403, "location_forbidden"),
        ({"bucket": "thumbnails", "key": "acme/x"}, 403, "location_forbidden"),
        ({"bucket": BUCKET, "key": "acme/f0-m0.jpg", "etag": "another"}, 409, "etag_conflict"),
    ],
)
def test_a_place_that_cannot_be_referred_to(location: dict[str, str], status: int, code: str) -> None:
    """Another tenant's place is forbidden whether or not something is there; nothing is announced."""
    api = Changing()
    api.rig.objects.put(BUCKET, "globex/secret.jpg", picture(9, 9))
    refused = api.refer(image_id="new", location=location)
    assert (refused.status_code, error_of(refused)["code"]) == (status, code)
    assert (api.events(), api.point("new")) == ([], None)


def test_a_stored_version_with_another_object_is_409() -> None:
    """The same version of the same object may be repeated, another object under it may not."""
    api = Changing()
    same = {"bucket": BUCKET, "key": f"{TENANT}/f0-m0.jpg"}
    assert api.refer(image_id="f0-m0", version=VERSION, location=same).status_code == 202
    api.rig.objects.put(BUCKET, f"{TENANT}/f0-m0.jpg", picture(3, 0))
    refused = api.refer(image_id="f0-m0", version=VERSION, location=same)
    assert (refused.status_code, error_of(refused)["code"]) == (409, "version_conflict")


# ---- versions ------------------------------------------------------------------------------------


def point(version: int, state: State = State.INDEXED, attempt: int | None = None) -> Point:
    note = None if attempt is None else Attempt(attempt, AttemptState.PENDING)
    return Point(TENANT, "x", version, state, attempt=note)


@pytest.mark.parametrize(
    ("stored", "created", "deleted"),
    [
        (None, NOW, NOW),
        (point(VERSION), NOW, NOW),
        (point(NOW + 50), NOW + 51, NOW + 50),
        (point(NOW + 50, State.DELETED), NOW + 51, NOW + 50),
        (point(VERSION, attempt=NOW + 70), NOW + 71, NOW + 70),
        (point(0, State.EMPTY, attempt=NOW + 70), NOW + 71, NOW + 70),
    ],
)
def test_without_a_given_version_the_newest_is_taken(stored: Point | None, created: int, deleted: int) -> None:
    """A post is newer than all that is known, tried or applied; a delete ends all of it."""
    assert versions.for_create(None, stored, now_us=NOW) == created
    assert versions.for_delete(None, stored, now_us=NOW) == deleted


@pytest.mark.parametrize("version", [0, 1, VERSION // 1000, VERSION * 1000, 2**53, NOW + MAX_AHEAD_US + 1])
def test_what_is_no_version_is_400(version: int) -> None:
    """Seconds, milliseconds and nanoseconds sent by mistake, and times far ahead, are refused."""
    for check in (versions.for_create, versions.for_delete):
        with pytest.raises(QueryError) as caught:
            check(version, None, now_us=NOW)
        assert (caught.value.status, caught.value.field) == (400, "version")


# ---- delete --------------------------------------------------------------------------------------


def test_a_deleted_image_is_gone_from_the_search_at_once() -> None:
    """202 `gone`: the event is in the log, the tombstone in the index, no hit, no thumbnail."""
    api = Changing()
    get(api.app, f"{IMAGES}/f0-m0/thumbnail")
    answer = api.delete("f0-m0")
    assert (answer.status_code, answer.json()["search"], answer.json()["version"]) == (202, "gone", NOW)
    (event,) = api.events()
    assert (event.type, event.image_id, event.version) == (EventType.DELETED, "f0-m0", NOW)
    stored = api.point("f0-m0")
    assert stored is not None
    assert (stored.state, stored.version) == (State.DELETED, NOW)
    assert get(api.app, f"{IMAGES}/f0-m1/similar").json()["hits"] == []
    assert get(api.app, f"{IMAGES}/f0-m0/thumbnail").status_code == 409


def test_an_uploads_object_goes_with_it_a_references_stays() -> None:
    """All versions of the upload, and every thumbnail; what the tenant put itself is not ours to remove."""
    api = Changing()
    for n in range(2):
        api.post(picture(3, n), params={"image_id": "new", "version": NOW - 9 + n})
    assert len([key for key in api.stored_keys() if "uploads/new/" in key]) == 2
    assert api.stored_keys("thumbnails")
    assert api.delete("new").status_code == 202
    assert not [key for key in api.stored_keys() if "uploads" in key]
    assert not api.stored_keys("thumbnails")
    get(api.app, f"{IMAGES}/f0-m0/thumbnail")
    assert api.delete("f0-m0").status_code == 202
    assert f"{TENANT}/f0-m0.jpg" in api.stored_keys()
    assert not api.stored_keys("thumbnails")


def test_a_delete_again_is_a_delete() -> None:
    """Twice is harmless; what is pending and newer than the clock is ended as well."""
    api = Changing()
    api.post(picture(3, 0), params={"image_id": "new", "version": NOW + 60})
    assert [api.delete("new").json()["version"] for _ in range(2)] == [NOW + 60, NOW + 60]
    assert [event.version for event in api.events()] == [NOW + 60] * 3


def test_an_unknown_image_is_404_unless_a_version_is_given() -> None:
    """A mistyped id is told; who names a version means an event that may be on its way."""
    api = Changing()
    unknown = api.delete("absent")
    assert (unknown.status_code, error_of(unknown)["code"]) == (404, "image_not_found")
    assert api.events() == []
    assert api.delete("absent", version=NOW).status_code == 202


def test_a_newer_picture_stays() -> None:
    """A delete with an older version is 409, and neither index nor object is touched."""
    api = Changing()
    refused = api.delete("f0-m0", version=VERSION - 1)
    assert (refused.status_code, error_of(refused)["code"]) == (409, "version_superseded")
    assert api.events() == []
    stored = api.point("f0-m0")
    assert stored is not None
    assert stored.state is State.INDEXED


def test_an_upload_newer_than_a_late_delete_keeps_its_object() -> None:
    """Objects go up to the version of the delete, not beyond."""
    api = Changing()
    api.post(picture(3, 0), params={"image_id": "new", "version": NOW + 5})
    assert api.delete("new", version=NOW).status_code == 202
    assert f"{TENANT}/uploads/new/{NOW + 5}" in api.stored_keys()


# ---- what is down --------------------------------------------------------------------------------


def test_a_broker_that_does_not_confirm_is_503_and_nothing_is_noted() -> None:
    """Neither post nor delete promises anything; the same request again is good."""
    api = Changing()
    api.producer.faults.append(DependencyError("broker", "no answer"))
    posted = api.post(picture(3, 0), params={"image_id": "new", "version": NOW})
    assert (posted.status_code, error_of(posted)["code"]) == (503, "broker_unavailable")
    assert api.point("new") is None
    assert api.post(picture(3, 0), params={"image_id": "new", "version": NOW}).status_code == 202
    api.producer.faults.append(DependencyError("broker", "no answer"))
    assert api.delete("f0-m0").status_code == 503
    stored = api.point("f0-m0")
    assert stored is not None
    assert stored.state is State.INDEXED
    assert get(api.app, f"{IMAGES}/f0-m0/thumbnail").status_code == 200


def test_an_index_that_is_down_does_not_keep_events_out() -> None:
    """A post is accepted without its note; a delete says that the search follows. Model and collection are null."""
    api = Changing()
    api.index_is_down = True
    posted = api.post(picture(3, 0), params={"image_id": "new"}).json()
    assert (posted["pending"], posted["version"], posted["model"], posted["collection"]) == (False, NOW, None, None)
    deleted = api.delete("f0-m0")
    assert (deleted.status_code, deleted.json()["search"]) == (202, "pending")
    assert [event.type for event in api.events()] == [EventType.CREATED, EventType.DELETED]
    assert get(api.app, f"{IMAGES}/f0-m0").status_code == 503


def test_a_store_that_is_down_announces_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    """The object comes first: without it there is no event."""
    api = Changing()

    def fails(*_: object, **__: object) -> None:
        raise DependencyError("bucket", "no answer")

    monkeypatch.setattr(api.rig.objects, "put", fails)
    refused = api.post(picture(3, 0), params={"image_id": "new"})
    assert (refused.status_code, error_of(refused)["code"]) == (503, "bucket_unavailable")
    assert (api.events(), api.point("new")) == ([], None)


def test_uploads_above_the_bound_are_429() -> None:
    """As for query pictures: what waits takes no memory."""
    api = Changing(limits=Limits(max_uploads=0))
    refused = api.post(picture(3, 0))
    assert (refused.status_code, error_of(refused)["code"]) == (429, "queue_full")


# ---- thumbnails and tenants ----------------------------------------------------------------------


def test_a_thumbnail_is_made_once_for_all_processes() -> None:
    """Another process finds it in the bucket; a newer picture's replaces it there."""
    rig = filled(1, 1)
    for _ in range(3):
        assert get(rig.app(), f"{IMAGES}/f0-m0/thumbnail").status_code == 200
    assert rig.embedder.n_thumbnails == 1
    (kept,) = [key for bucket, key in rig.objects.objects if bucket == "thumbnails"]
    assert kept.startswith(f"{TENANT}/f0-m0/")
    rig.add("f0-m0", picture(4, 4), version=VERSION + 1)
    assert get(rig.app(), f"{IMAGES}/f0-m0/thumbnail").status_code == 200
    (newer,) = [key for bucket, key in rig.objects.objects if bucket == "thumbnails"]
    assert newer != kept
    assert rig.embedder.n_thumbnails == 2


def test_a_bucket_of_thumbnails_that_fails_costs_no_answer(monkeypatch: pytest.MonkeyPatch) -> None:
    """They are made again; the log says so."""
    rig = filled(1, 1)

    def fails(*_: object, **__: object) -> None:
        raise DependencyError("bucket", "no such bucket")

    monkeypatch.setattr(rig.objects, "put", fails)
    assert get(rig.app(), f"{IMAGES}/f0-m0/thumbnail").status_code == 200


def test_a_tenants_uploads_and_thumbnails_are_removed_and_nobody_elses() -> None:
    """What `tenant delete` takes along; pictures that the tenant put itself stay."""
    api = Changing()
    api.rig.add("theirs", picture(9, 9), tenant_id="globex")
    for tenant_id in (TENANT, "globex"):
        ask(api.app, "POST", IMAGES.replace(TENANT, tenant_id), content=picture(3, 0))
    get(api.app, f"{IMAGES}/f0-m0/thumbnail")
    assert PLACES.remove_tenants_uploads(api.rig.objects, TENANT) == 1
    assert PLACES.remove_tenants_thumbnails(api.rig.objects, TENANT) == 2
    assert api.stored_keys() >= {f"{TENANT}/f0-m0.jpg", "globex/theirs.jpg"}
    assert {key.partition("/")[0] for key in api.stored_keys() if "uploads" in key} == {"globex"}
    assert {key.partition("/")[0] for key in api.stored_keys("thumbnails")} == {"globex"}
    assert PLACES.remove_tenants_uploads(api.rig.objects, TENANT) == 0
    assert PLACES.remove_tenants_thumbnails(api.rig.objects, TENANT) == 0
