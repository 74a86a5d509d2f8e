"""Search by examples, in batches, within filters, page by page; facets and filtered lists."""

from __future__ import annotations

import json
from typing import Any

import httpx
import numpy as np
import pytest
from starlette.applications import Starlette

from embedder.index.points import Bury
from tests.api_rig import SPEC, TENANT, VERSION, Rig, ask, error_of, filled, get, picture

SEARCH = f"/v1/tenants/{TENANT}/search"
IMAGES = f"/v1/tenants/{TENANT}/images"
FACETS = f"/v1/tenants/{TENANT}/facets"


def search(app: Starlette, **body: Any) -> httpx.Response:
    return ask(app, "POST", SEARCH, json=body)


def ids(answer: httpx.Response | dict[str, Any]) -> list[str]:
    body = answer.json() if isinstance(answer, httpx.Response) else answer
    return [hit["image_id"] for hit in body["hits"]]


def shelves() -> Rig:
    """Twelve pictures, three families, that differ in tags, attributes and times."""
    rig = Rig()
    for family in range(3):
        for member in range(4):
            rig.add(
                f"f{family}-m{member}",
                picture(family, member),
                tags=("even" if member % 2 == 0 else "odd", f"f{family}"),
                attributes={
                    "shelf": member,
                    "colour": ("red", "blue")[family % 2],
                    "framed": member == 3,
                    "taken_at": f"2026-01-0{member + 1}T00:00:00Z",
                },
            )
    return rig


def vector_of(rig: Rig, family: int, member: int) -> list[float]:
    return [float(x) for x in rig.embedder.embed(picture(family, member))]


# ---- examples ------------------------------------------------------------------------------------


def test_an_id_and_its_vector_ask_the_same_but_for_the_image_itself() -> None:
    """By id the image is left out; by its vector it comes first, with a cosine of 1."""
    rig = filled()
    app = rig.app()
    by_id, by_vector = search(app, positive=["f1-m0"]), search(app, positive=[vector_of(rig, 1, 0)])
    assert ids(by_vector) == ["f1-m0", *ids(by_id)][:10]
    assert by_vector.json()["hits"][0]["score"] == pytest.approx(1.0, abs=1e-5)
    assert set(ids(by_id)[:3]) == {"f1-m1", "f1-m2", "f1-m3"}
    assert ids(get(app, f"{IMAGES}/f1-m0/similar")) == ids(by_id)


def test_a_vector_of_any_length_asks_the_same() -> None:
    """Scores are cosines: a vector a thousand times as long changes nothing."""
    rig = filled()
    app, vector = rig.app(), np.asarray(vector_of(rig, 0, 0))
    assert ids(search(app, positive=[(1000 * vector).tolist()])) == ids(search(app, positive=[vector.tolist()]))


def test_negative_examples_push_away() -> None:
    """What is like the negative example falls behind; neither example is a hit."""
    app = filled().app()
    plain = ids(search(app, positive=["f0-m0"], limit=11))
    pushed = ids(search(app, positive=["f0-m0"], negative=["f1-m0"], limit=11))
    assert not {"f0-m0", "f1-m0"} & set(pushed)
    others = [f"f1-m{member}" for member in (1, 2, 3)]
    assert sum(pushed.index(one) for one in others) >= sum(plain.index(one) for one in others) - 3
    assert pushed[-1].startswith("f1-")


def test_hits_below_the_threshold_are_left_out() -> None:
    """Every hit scores at least that; the same holds for `similar` and for an upload."""
    app = filled().app()
    for answer in (
        search(app, positive=["f0-m0"], score_threshold=0.9),
        get(app, f"{IMAGES}/f0-m0/similar?score_threshold=0.9"),
        ask(app, "POST", SEARCH + "/upload?score_threshold=0.9", content=picture(0, 0)),
    ):
        scores = [hit["score"] for hit in answer.json()["hits"]]
        assert 1 <= len(scores) < 11
        assert min(scores) >= 0.9


def test_fields_bring_along_what_was_asked_for_and_nothing_else() -> None:
    """Each hit has those fields under `fields`; without any it has none."""
    app = shelves().app()
    hit = search(app, positive=["f0-m0"], fields=["tags", "attributes", "version"]).json()["hits"][0]
    assert set(hit) == {"image_id", "score", "fields"}
    assert set(hit["fields"]) == {"tags", "attributes", "version"}
    assert hit["fields"]["version"] == VERSION
    assert "f0" in hit["fields"]["tags"]
    assert "fields" not in search(app, positive=["f0-m0"]).json()["hits"][0]
    similar = get(app, f"{IMAGES}/f0-m0/similar?fields=tags&fields=etag").json()["hits"][0]
    assert set(similar["fields"]) == {"tags", "etag"}


@pytest.mark.parametrize(
    ("condition", "wanted"),
    [
        ({"tags": ["even"]}, lambda f, m: m % 2 == 0),
        ({"tags": ["f0", "f2"]}, lambda f, m: f != 1),
        ({"attribute": "colour", "in": ["blue"]}, lambda f, m: f == 1),
        ({"attribute": "framed", "in": [True]}, lambda f, m: m == 3),
        ({"attribute": "nobody_has_it", "in": ["x"]}, lambda f, m: False),
        ({"range": "shelf", "gte": 1, "lt": 3}, lambda f, m: 1 <= m < 3),
        ({"range": "taken_at", "gt": "2026-01-02T00:00:00Z"}, lambda f, m: m > 1),
        ({"range": "taken_at", "lte": "2026-01-02T01:00:00+01:00"}, lambda f, m: m <= 1),
        ({"range": "width_px", "gte": 320}, lambda f, m: True),
        ({"range": "indexed_at", "lt": "2020-01-01T00:00:00Z"}, lambda f, m: False),
        ({"not": {"tags": ["even"]}}, lambda f, m: m % 2 == 1),
        ({"all": [{"tags": ["even"]}, {"tags": ["f1"]}]}, lambda f, m: m % 2 == 0 and f == 1),
        ({"any": [{"range": "shelf", "gte": 3}, {"tags": ["f2"]}]}, lambda f, m: m >= 3 or f == 2),
        ({"all": [{"not": {"any": [{"tags": ["f0"]}, {"range": "shelf", "lt": 1}]}}]}, lambda f, m: f != 0 and m >= 1),
    ],
)
def test_a_filter_narrows_search_list_and_upload_alike(condition: dict[str, Any], wanted: Any) -> None:
    """Whatever the language can say holds for every hit, and every image that it holds for is a hit."""
    rig = shelves()
    app, text = rig.app(), json.dumps(condition)
    expected = {f"f{f}-m{m}" for f in range(3) for m in range(4) if wanted(f, m)}
    vector = vector_of(rig, 0, 0)
    assert set(ids(search(app, positive=[vector], filter=condition, limit=100))) == expected
    listed = get(app, IMAGES, params={"filter": text, "limit": 100}).json()["images"]
    assert {image["image_id"] for image in listed} == expected
    uploaded = ask(app, "POST", SEARCH + "/upload", params={"filter": text, "limit": 100}, content=picture(0, 0))
    assert set(ids(uploaded)) == expected


# ---- paging --------------------------------------------------------------------------------------


def test_pages_of_a_search_are_the_search() -> None:
    """Following next_cursor gives every hit once, in the order of one long page, and ends with null."""
    app = filled().app()
    whole = ids(search(app, positive=["f0-m0"], limit=100))
    page = search(app, positive=["f0-m0"], limit=4).json()
    seen = ids(page)
    while page["next_cursor"] is not None:
        page = search(app, positive=["f0-m0"], limit=4, cursor=page["next_cursor"]).json()
        seen += ids(page)
    assert seen == whole
    assert len(whole) == 11


@pytest.mark.parametrize(
    "other",
    [
        {"positive": ["f0-m1"]},
        {"positive": ["f0-m0", "f0-m1"]},
        {"positive": ["f0-m0"], "negative": ["f0-m1"]},
        {"positive": ["f0-m0"], "filter": {"tags": ["red"]}},
        {"positive": ["f0-m0"], "score_threshold": 0.1},
    ],
)
def test_a_cursor_of_another_query_is_refused(other: dict[str, Any]) -> None:
    """Whatever decides about the order is part of what a cursor is bound to."""
    app = filled().app()
    cursor = search(app, positive=["f0-m0"], limit=2).json()["next_cursor"]
    assert search(app, positive=["f0-m0"], limit=5, cursor=cursor).status_code == 200
    refused = search(app, **other, cursor=cursor)
    assert (refused.status_code, error_of(refused)["field"]) == (400, "cursor")
    assert "another query" in error_of(refused)["message"]


def test_a_lists_cursor_is_bound_to_its_list() -> None:
    """States and filter belong to it, and so does the tenant."""
    rig = filled()
    for n in range(3):
        rig.add(f"x{n}", picture(5, n), tenant_id="globex")
    app = rig.app()
    cursor = get(app, IMAGES, params={"limit": 2}).json()["next_cursor"]
    assert get(app, IMAGES, params={"limit": 3, "cursor": cursor}).status_code == 200
    for path, more in (
        (IMAGES, {"state": "indexed"}),
        (IMAGES, {"filter": '{"tags":["red"]}'}),
        ("/v1/tenants/globex/images", {}),
    ):
        refused = get(app, path, params={"cursor": cursor, **more})
        assert (refused.status_code, error_of(refused)["field"]) == (400, "cursor")


def test_the_same_filter_written_otherwise_goes_on() -> None:
    """The order of names in an object means nothing."""
    app = shelves().app()
    first = search(app, positive=["f0-m0"], filter={"range": "shelf", "gte": 0, "lt": 9}, limit=2).json()
    again = {"lt": 9, "range": "shelf", "gte": 0}
    assert search(app, positive=["f0-m0"], filter=again, cursor=first["next_cursor"]).status_code == 200


# ---- batch ---------------------------------------------------------------------------------------


def test_a_batch_is_its_searches_in_one_round_trip() -> None:
    """Results in order, each as if it had been asked alone; the index is asked once."""
    rig = filled()
    app = rig.app()
    searches = [{"positive": [f"f{family}-m0"], "limit": 3} for family in range(3)]
    alone = [ids(search(app, **one)) for one in searches]
    asked: list[int] = []
    whole = rig.index.search_batch

    def noted(tenant_id: str, queries: Any) -> Any:
        asked.append(len(queries))
        return whole(tenant_id, queries)

    rig.index.search_batch = noted  # type: ignore[method-assign]
    answer = ask(app, "POST", SEARCH + "/batch", json={"searches": searches})
    assert [ids(result) for result in answer.json()["results"]] == alone
    assert asked == [3]


def test_one_missing_example_spoils_one_search() -> None:
    """Its error stands in its place, with the field that names it; the others are answered."""
    rig = filled()
    rig.index.write(TENANT, [Bury("f2-m0", VERSION + 1, VERSION + 1)]).result()
    body = {"searches": [{"positive": ["absent"]}, {"positive": ["f0-m0"]}, {"positive": ["f2-m0"]}]}
    missing, found, deleted = ask(rig.app(), "POST", SEARCH + "/batch", json=body).json()["results"]
    assert (missing["error"]["code"], missing["error"]["field"]) == ("image_not_found", "searches.0.positive")
    assert found["hits"]
    assert deleted["error"]["code"] == "image_not_indexed"


# ---- facets --------------------------------------------------------------------------------------


def test_facets_count_tags_and_attributes() -> None:
    """By falling count, then by name; within a filter; deleted images do not count."""
    rig = shelves()
    app = rig.app()
    tags = get(app, FACETS + "/tags").json()
    assert [(v["value"], v["count"]) for v in tags["values"]] == [
        ("even", 6), ("odd", 6), ("f0", 4), ("f1", 4), ("f2", 4),
    ]  # fmt: skip
    assert tags["complete"] is True
    colours = get(app, FACETS + "/colour", params={"filter": '{"tags": ["even"]}'}).json()["values"]
    assert colours == [{"value": "red", "count": 4}, {"value": "blue", "count": 2}]
    assert get(app, FACETS + "/framed").json()["values"][0] == {"value": "false", "count": 9}
    assert len(get(app, FACETS + "/tags?limit=2").json()["values"]) == 2
    rig.index.write(TENANT, [Bury("f1-m0", VERSION + 1, VERSION + 1)]).result()
    assert {"value": "f1", "count": 3} in get(app, FACETS + "/tags").json()["values"]
    assert get(app, FACETS + "/nobody_has_it").json()["values"] == []


# ---- every answer --------------------------------------------------------------------------------


def test_every_answer_about_a_tenant_says_with_what_and_how_long() -> None:
    """Model, collection, time and request id, on whatever is asked; the id is that of the header."""
    app = filled().app()
    for answer in (
        get(app, IMAGES),
        get(app, IMAGES + "/f0-m0"),
        get(app, IMAGES + "/f0-m0/similar"),
        get(app, FACETS + "/tags"),
        search(app, positive=["f0-m0"]),
        ask(app, "POST", SEARCH + "/batch", json={"searches": [{"positive": ["f0-m0"]}]}),
        ask(app, "POST", SEARCH + "/upload", content=picture(0, 0)),
        ask(app, "POST", IMAGES, content=picture(0, 0)),
        ask(app, "DELETE", IMAGES + "/f0-m0"),
    ):
        body = answer.json()
        assert answer.status_code in (200, 202), body
        assert (body["model"], body["collection"]) == ("hash", SPEC.name)
        assert body["took_ms"] >= 0
        assert body["request_id"] == answer.headers["x-request-id"]


@pytest.mark.parametrize("body", [{"positive": ["x"]}, {"positive": [[1.0] * SPEC.dim]}])
def test_a_search_in_an_unknown_tenant_is_404(body: dict[str, Any]) -> None:
    """By id and by vector, alone and in a batch: no empty answer where there is no tenant."""
    app = filled(1, 1).app()
    for path, asked in (("/search", body), ("/search/batch", {"searches": [body]})):
        response = ask(app, "POST", "/v1/tenants/nobody" + path, json=asked)
        assert (response.status_code, error_of(response)["code"]) == (404, "tenant_not_found")
