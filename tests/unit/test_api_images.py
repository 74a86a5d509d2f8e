"""What the API says about a tenant's images."""

from __future__ import annotations

from embedder.index.points import Attempt, AttemptState, Bury, Note
from streams.errors import Reason
from tests.api_rig import TENANT, VERSION, Rig, error_of, filled, get, picture

IMAGES = f"/v1/tenants/{TENANT}/images"


def test_a_list_is_paged_and_every_image_is_on_exactly_one_page() -> None:
    """Following next_cursor gives every image once, and ends with null."""
    app = filled().app()
    page = get(app, f"{IMAGES}?limit=5").json()
    seen = [image["image_id"] for image in page["images"]]
    while page["next_cursor"] is not None:
        page = get(app, IMAGES, params={"limit": 5, "cursor": page["next_cursor"]}).json()
        assert len(page["images"]) <= 5
        seen += [image["image_id"] for image in page["images"]]
    assert sorted(seen) == sorted(f"f{family}-m{member}" for family in range(3) for member in range(4))


def test_a_list_shows_deleted_images_only_when_asked() -> None:
    """Tombstones are no images; `state` picks what a list shows, and may be repeated."""
    rig = filled(1, 2)
    rig.index.write(TENANT, [Bury("f0-m0", VERSION + 1, VERSION + 1)]).result()
    app = rig.app()
    assert [image["image_id"] for image in get(app, IMAGES).json()["images"]] == ["f0-m1"]
    deleted = get(app, f"{IMAGES}?state=deleted").json()["images"]
    assert [(image["image_id"], image["state"]) for image in deleted] == [("f0-m0", "deleted")]
    assert len(get(app, f"{IMAGES}?state=deleted&state=indexed").json()["images"]) == 2


def test_status_tells_where_when_and_with_which_model() -> None:
    """The status of an indexed image names its location, times, sizes, model and engine."""
    status = get(filled().app(), f"{IMAGES}/f1-m2").json()
    assert status["state"] == "indexed"
    assert status["version"] == VERSION
    assert status["model"] == "hash"
    assert status["collection"] == "hash--test"
    assert status["engine"] == "hash"
    assert status["location"]["key"] == "acme/f1-m2.jpg"
    assert status["tags"] == ["red"]
    assert status["attributes"] == {"shelf": 3}
    assert (status["width_px"], status["height_px"]) == (320, 240)
    assert status["indexed_at"] == "2023-11-14T22:13:20+00:00"
    assert status["attempt"] is None


def test_status_tells_what_failed_why_and_how_often() -> None:
    """An image that was never indexed is known by its failed attempt."""
    rig = Rig()
    attempt = Attempt(VERSION, AttemptState.FAILED, Reason.IMAGE_UNREADABLE, tries=3, at_us=VERSION)
    rig.index.write(TENANT, [Note("broken", attempt)]).result()
    status = get(rig.app(), f"{IMAGES}/broken").json()
    assert status["state"] == "empty"
    assert status["attempt"] == {
        "version": VERSION,
        "state": "failed",
        "reason": "image_unreadable",
        "tries": 3,
        "at": "2023-11-14T22:13:20+00:00",
    }


def test_similar_gives_the_family_first_and_never_the_image_itself() -> None:
    """The best hits of a picture are the others of its family, with falling scores."""
    answer = get(filled().app(), f"{IMAGES}/f1-m0/similar?limit=3").json()
    assert {hit["image_id"] for hit in answer["hits"]} == {"f1-m1", "f1-m2", "f1-m3"}
    scores = [hit["score"] for hit in answer["hits"]]
    assert scores == sorted(scores, reverse=True)
    assert set(answer) == {"hits", "exact", "next_cursor", "model", "collection", "took_ms", "request_id"}
    assert answer["exact"] is True


def test_an_image_without_a_vector_has_no_look_alikes() -> None:
    """409 names the state, and the attempt's reason where there is one."""
    rig = filled(1, 1)
    attempt = Attempt(VERSION, AttemptState.FAILED, Reason.IMAGE_TOO_SMALL, tries=1, at_us=VERSION)
    rig.index.write(TENANT, [Note("tiny", attempt), Bury("f0-m0", VERSION + 1, VERSION + 1)]).result()
    response = get(rig.app(), f"{IMAGES}/tiny/similar")
    assert response.status_code == 409
    assert error_of(response)["code"] == "image_not_indexed"
    assert "image_too_small" in error_of(response)["message"]
    assert "deleted" in error_of(get(rig.app(), f"{IMAGES}/f0-m0/similar"))["message"]


def test_another_tenants_image_is_not_found() -> None:
    """Every route answers for a foreign image exactly as for one that does not exist."""
    rig = filled(1, 1)
    rig.add("theirs", picture(9, 9), tenant_id="globex")
    app = rig.app()
    for path in ("", "/similar", "/thumbnail"):
        foreign = error_of(get(app, f"{IMAGES}/theirs{path}"))
        missing = error_of(get(app, f"{IMAGES}/absent{path}"))
        assert foreign["code"] == missing["code"] == "image_not_found"
        assert foreign["message"] == missing["message"].replace("absent", "theirs")


def test_an_unknown_tenant_is_told_apart_from_an_unknown_image() -> None:
    """A tenant without any point is `tenant_not_found`, one with only tombstones has an empty list."""
    rig = Rig()
    rig.index.write("gone", [Bury("x", VERSION, VERSION)]).result()
    app = rig.app()
    for path in ("", "/x", "/x/similar", "/x/thumbnail"):
        response = get(app, f"/v1/tenants/nobody/images{path}")
        assert (response.status_code, error_of(response)["code"]) == (404, "tenant_not_found")
    page = get(app, "/v1/tenants/gone/images").json()
    assert (page["images"], page["next_cursor"]) == ([], None)
