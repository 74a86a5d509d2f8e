"""Everything on real processes: worker, index and broker die in the middle, and nothing is lost or repeated."""

from __future__ import annotations

import io
import json
import os
import signal
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pytest
from PIL import Image

from embedder.index.points import State
from embedder.index.query import like
from embedder.index.service.client import IndexClient
from embedder.objects.folder import FolderStore
from lookalike.addresses import find_addresses
from lookalike.commands.publish import publish_all
from lookalike.following import OutcomeFollower
from lookalike.local.runfile import RunFile
from lookalike.local.up import Running, UpOptions, start
from lookalike.pictures import name_picture
from lookalike.publishing import Publisher
from lookalike.settings import read_settings
from lookalike.standing import standing
from streams.errors import DependencyError
from streams.producer import KafkaProducer
from streams.report.outcomes import OutcomeState
from streams.topics import Lane, TopicNames
from tests.waiting import wait_until

N_PICTURES = 500
TENANT = "acme"
NAMES = TopicNames()


def _picture(n: int) -> bytes:
    """Picture number `n`: blurred noise of its own, small enough that decoding costs nothing."""
    noise = np.random.default_rng(n).integers(0, 255, (4, 6, 3), dtype=np.uint8)
    out = io.BytesIO()
    Image.fromarray(noise).resize((96, 64), Image.Resampling.BICUBIC).save(out, "JPEG", quality=90)
    return out.getvalue()


@pytest.fixture(scope="module")
def up(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Running]:
    """A running `up` in a folder of its own, stopped at the end."""
    data = tmp_path_factory.mktemp("up")
    with start(UpOptions(settings=read_settings(), data=data, port=0)) as running:
        yield running


@pytest.fixture
def index(up: Running) -> Iterator[IndexClient]:
    client = IndexClient(up.parts.index_socket, timeout_s=5.0)
    yield client
    client.close()


def _publish(up: Running, numbers: range) -> list[str]:
    producer = KafkaProducer(up.parts.client())
    store = FolderStore(up.parts.objects_dir)
    topic = NAMES.lane(Lane.LIVE)
    publisher = Publisher(tenant_id=TENANT, bucket="pictures", objects=store, producer=producer, topic=topic)
    ids = [publisher.publish(f"i{n}", f"{TENANT}/{n}.jpg", _picture(n)) for n in numbers]
    assert publisher.finish(60) == {}
    producer.close()
    return ids


def _indexed(index: IndexClient) -> int:
    try:
        return index.count(TENANT)[State.INDEXED]
    except DependencyError:
        return -1  # it is being restarted


def _kill(up: Running, name: str) -> int:
    """kill -9 of the process only, as the kernel's memory killer would do it; its old id."""
    (pid,) = [child.pid for child in up.status() if child.name == name]
    assert pid is not None
    os.kill(pid, signal.SIGKILL)
    return pid


def _all_images(index: IndexClient) -> list[tuple[str, State]]:
    found, cursor = [], None
    while True:
        page = index.list(TENANT, limit=100, cursor=cursor)
        found += [(point.image_id, point.state) for point in page.points]
        cursor = page.next_cursor
        if cursor is None:
            return found


@pytest.mark.timeout(600)
def test_every_picture_is_searchable_once_whoever_dies(up: Running, index: IndexClient) -> None:
    """500 pictures; worker, index process and Kafka are killed with -9, each in the middle.

    Result: all 500 are searchable, each exactly once, nothing was dead-lettered, and every process that
    died runs again.
    """
    with OutcomeFollower(up.parts.client(), NAMES.outcomes) as outcomes:
        events = _publish(up, range(N_PICTURES))
        killed: dict[str, int] = {}
        for name, after in (("worker-1", 80), ("index", 200), ("kafka", 320)):
            wait_until(lambda after=after: _indexed(index) >= after, timeout_s=180)  # type: ignore[misc]
            assert _indexed(index) < N_PICTURES, "it was not in the middle"
            killed[name] = _kill(up, name)
        wait_until(lambda: _indexed(index) == N_PICTURES, timeout_s=240)
        told = outcomes.wait(events, patience_s=120)
    assert {one.state for one in told.values()} <= {OutcomeState.INDEXED, OutcomeState.UNCHANGED}
    assert set(told) == set(events)
    assert sorted(_all_images(index)) == sorted((f"i{n}", State.INDEXED) for n in range(N_PICTURES))
    status = {child.name: child for child in up.status()}
    for name, old_pid in killed.items():
        assert status[name].restarts >= 1
        assert status[name].pid not in (None, old_pid)
    for n in range(0, N_PICTURES, 50):
        hits = index.search(TENANT, like(f"i{n}", limit=20)).hits
        assert len({hit.image_id for hit in hits}) == 20


def test_answers_come_over_http_from_what_was_indexed(up: Running) -> None:
    """The API that `up` serves lists, shows and compares a picture that was published to it."""
    with OutcomeFollower(up.parts.client(), NAMES.outcomes) as outcomes:
        outcomes.wait(_publish(up, range(2)))
    with httpx.Client(base_url=f"{up.api_url}/v1/tenants/{TENANT}") as http:
        status = http.get("/images/i0").json()
        assert status["state"] == "indexed"
        similar = http.get("/images/i0/similar", params={"limit": 1}).json()
        assert similar["hits"][0]["image_id"] != "i0"
        upload = http.post("/search/upload", content=_picture(1), headers={"content-type": "image/jpeg"})
        assert upload.json()["hits"][0]["image_id"] == "i1"
        assert upload.json()["hits"][0]["score"] > 0.999
        assert http.get("/images/never-heard-of").status_code == 404


def test_a_posted_picture_is_searchable_and_a_deleted_one_is_gone(up: Running) -> None:
    """From POST to hit and from DELETE to none, over HTTP alone: status pending or indexed, then deleted."""
    noise = np.random.default_rng(4711).integers(0, 255, (64, 96, 3), dtype=np.uint8)
    out = io.BytesIO()
    Image.fromarray(noise).save(out, "JPEG", quality=90)
    about: dict[str, Any] = {"image_id": "posted", "tags": ["fresh"], "attributes": {"colour": "grey"}}
    files = {"file": ("x.jpg", out.getvalue())}
    with httpx.Client(base_url=f"{up.api_url}/v1/tenants/poster", timeout=30) as http:
        first = http.post("/images", files=files, data={"image": json.dumps(about)})
        assert first.status_code == 202, first.text
        wait_until(lambda: http.get("/images/posted").json().get("state") == "indexed")
        about["version"] = first.json()["version"]
        again = http.post("/images", files=files, data={"image": json.dumps(about)})
        assert again.json()["location"] == first.json()["location"]
        search = {"positive": ["posted"], "filter": {"attribute": "colour", "in": ["grey"]}}
        assert http.post("/search", json=search).status_code == 200
        upload = http.post("/search/upload", content=out.getvalue(), params={"filter": '{"tags": ["fresh"]}'})
        assert [hit["image_id"] for hit in upload.json()["hits"]] == ["posted"]
        assert http.get("/facets/colour").json()["values"] == [{"value": "grey", "count": 1}]
        assert http.get("/images/posted/thumbnail").headers["content-type"] == "image/jpeg"
        deleted = http.delete("/images/posted")
        assert (deleted.status_code, deleted.json()["search"]) == (202, "gone")
        assert http.post("/search/upload", content=out.getvalue()).json()["hits"] == []
        assert http.get("/images/posted").json()["state"] == "deleted"
    left = [path for path in up.parts.objects_dir.rglob("*") if path.is_file() and "posted" in str(path)]
    assert left == []


def test_up_is_found_through_its_data_folder(up: Running) -> None:
    """Every other command finds the addresses in the data folder while it runs."""
    run = RunFile(up.parts.data).read()
    assert run is not None
    assert (run.bootstrap, run.api_url) == (up.parts.bootstrap, up.api_url)


def test_bad_files_are_reported_with_their_reasons_and_neighbours_are_indexed(up: Running, tmp_path: Path) -> None:
    """What `publish` was given is either searchable or failed with a typed reason that `status` counts."""
    jpeg, bomb, cmyk = _picture(0), io.BytesIO(), io.BytesIO()
    Image.new("1", (15_000, 14_000)).save(bomb, "PNG")  # 210 megapixels in a few kilobytes
    Image.new("CMYK", (64, 64), (10, 20, 30, 40)).save(cmyk, "JPEG")
    files = {
        "good.jpg": (jpeg, None),
        "cmyk.jpg": (cmyk.getvalue(), None),
        "wrong-extension.png": (jpeg, None),
        "empty.jpg": (b"", "image_empty"),
        "text.jpg": (b"<html>not a picture</html>", "image_unsupported"),
        "truncated.jpg": (jpeg[: len(jpeg) // 2], "image_unreadable"),
        "bomb.png": (bomb.getvalue(), "image_too_large"),
    }
    for name, (data, _reason) in files.items():
        (tmp_path / name).write_bytes(data)
    pictures = [name_picture("bad-input", tmp_path / name) for name in files]
    settings = read_settings()
    report = publish_all(settings, up.parts.data, "bad-input", pictures, wait=True, bulk=False)
    failed = {Path(one["file"]).name: one["reason"] for one in report["failed"]}
    assert failed == {name: reason for name, (_data, reason) in files.items() if reason is not None}
    assert report["outcomes"] == {"indexed": 3, "failed": 4}
    found = standing(settings, find_addresses(settings, up.parts.data))
    assert found["dead_letters"]["by_reason"] == dict.fromkeys(sorted(failed.values()), 1)


def test_stop_leaves_no_process_and_no_run_behind(tmp_path: Path) -> None:
    """After a stop in order nothing runs any more, and the folder says so."""
    with start(UpOptions(settings=read_settings(), data=tmp_path, port=0)) as running:
        pids = [child.pid for child in running.status()]
        assert all(pid is not None and _alive(pid) for pid in pids)
    wait_until(lambda: not any(_alive(pid) for pid in pids if pid is not None))
    assert RunFile(tmp_path).read() is None


def _alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    return True
