"""The whole path on a real S3 server: published or announced by its bucket, indexed, shown; whoever dies."""

from __future__ import annotations

import io
import json
import os
import signal
import subprocess
import sys
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import httpx
import numpy as np
import pytest
from minio import Minio
from minio.commonconfig import CopySource
from PIL import Image

from embedder.index.points import State
from embedder.index.service.client import IndexClient
from lookalike.addresses import find_addresses
from lookalike.commands.doctor import examine
from lookalike.commands.publish import publish_all
from lookalike.local.s3 import S3Address
from lookalike.local.up import Running, UpOptions, start
from lookalike.pictures import name_picture
from lookalike.settings import read_settings
from lookalike.standing import standing
from lookalike.stores import open_store
from streams.group import group_lag
from streams.producer import KafkaProducer
from streams.tail import extent
from streams.topics import Lane, TopicNames
from tests import notifications
from tests.waiting import wait_until

BUCKET, TENANT = "pictures", "walkin"
NAMES = TopicNames()
GROUP = "lookalike-normalizer"
N_UPLOADS = 300


def _picture(n: int) -> bytes:
    """Picture number `n`: blurred noise of its own, small enough that decoding costs nothing."""
    noise = np.random.default_rng(n).integers(0, 255, (4, 6, 3), dtype=np.uint8)
    out = io.BytesIO()
    Image.fromarray(noise).resize((96, 64), Image.Resampling.BICUBIC).save(out, "JPEG", quality=90)
    return out.getvalue()


@pytest.fixture(scope="module")
def up(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Running]:
    """A running `up` whose pictures lie in S3."""
    data = tmp_path_factory.mktemp("up-s3")
    with start(UpOptions(settings=read_settings(), data=data, port=0, objects="s3")) as running:
        yield running


@pytest.fixture
def index(up: Running) -> Iterator[IndexClient]:
    client = IndexClient(up.parts.index_socket, timeout_s=5.0)
    yield client
    client.close()


@pytest.fixture
def uploader(up: Running) -> Minio:
    """Somebody else's program, which knows nothing of lookalike."""
    address = _address(up)
    host = address.endpoint.removeprefix("http://")
    return Minio(endpoint=host, access_key=address.access_key, secret_key=address.secret_key, secure=False)


def _address(up: Running) -> S3Address:
    assert up.parts.s3 is not None
    return up.parts.s3.address


def _upload(uploader: Minio, key: str, data: bytes) -> None:
    uploader.put_object(BUCKET, key, io.BytesIO(data), len(data), content_type="image/jpeg")


def _notify(up: Running, *events: tuple[str, str]) -> None:
    """What MinIO would have sent: (event name, key) each; the local server sends nothing."""
    acked: list[object] = []
    with KafkaProducer(up.parts.client()) as producer:
        for name, key in events:
            value = notifications.minio(name, BUCKET, key)
            kafka_key = f"{BUCKET}/{key}".encode()
            producer.send(NAMES.notifications, key=kafka_key, value=value, headers=[], on_ack=acked.append)
    assert acked == [None] * len(events)


class Normalize:
    """`lookalike normalize` as people start it, in a process of its own."""

    def __init__(self, up: Running, **settings: str) -> None:
        command = [sys.executable, "-m", "lookalike", "normalize", "--data", str(up.parts.data)]
        more = {f"LOOKALIKE_NORMALIZE_{name}": value for name, value in settings.items()}
        self._log = (up.parts.data / "logs" / "normalize.log").open("ab")
        self.process = subprocess.Popen(command, env={**os.environ, **more}, stdout=self._log, stderr=self._log)

    def __enter__(self) -> subprocess.Popen[bytes]:
        return self.process

    def __exit__(self, *_: object) -> None:
        self.process.kill()
        self.process.wait()
        self._log.close()


def _lag(up: Running) -> int:
    return group_lag(up.parts.client(), GROUP, NAMES.notifications)


def _announced(up: Running) -> int:
    return sum(extent(up.parts.client(), NAMES.lane(Lane.LIVE)).next_offset.values())


def _images(index: IndexClient) -> Counter[tuple[str, State]]:
    found: Counter[tuple[str, State]] = Counter()
    cursor = None
    while True:
        page = index.list(TENANT, limit=100, cursor=cursor)
        found.update((point.image_id, point.state) for point in page.points)
        cursor = page.next_cursor
        if cursor is None:
            return found


def test_what_is_published_lies_in_s3_and_is_shown_from_there(up: Running, tmp_path: Path) -> None:
    """Worker and API read what `publish` stored through the same store; nothing lies in a folder."""
    for n in range(4):
        (tmp_path / f"{n}.jpg").write_bytes(_picture(n))
    pictures = [name_picture("acme", tmp_path / f"{n}.jpg", image_id=f"i{n}") for n in range(4)]
    report = publish_all(read_settings(), up.parts.data, "acme", pictures, wait=True, bulk=False)
    assert report["outcomes"] == {"indexed": 4}
    with httpx.Client(base_url=f"{up.api_url}/v1/tenants/acme") as http:
        thumbnail = http.get("/images/i1/thumbnail", timeout=30)
        assert thumbnail.status_code == 200
        assert Image.open(io.BytesIO(thumbnail.content)).format == "JPEG"
        assert len(http.get("/images/i1/similar").json()["hits"]) == 3
    assert not (up.parts.data / "objects").exists()
    again = publish_all(read_settings(), up.parts.data, "acme", pictures, wait=True, bulk=False)
    assert again["outcomes"] == {"unchanged": 4}


def test_doctor_says_whether_the_store_answers(up: Running) -> None:
    """The endpoint where it does; else, what is wrong, with no word of the secret."""
    (finding,) = [one for one in examine(up.parts.data) if one.name == "objects"]
    assert finding.ok
    assert _address(up).endpoint in finding.text


@pytest.mark.timeout(600)
def test_uploads_of_others_are_indexed_whoever_dies(up: Running, index: IndexClient, uploader: Minio) -> None:
    """300 uploads that only their bucket tells of; the normalizer is killed twice with -9, S3 once, in the middle.

    Result: all 300 are searchable, each once, nothing was dead-lettered; SIGTERM then ends it with 0, nothing left.
    """
    keys = [f"{TENANT}/i{n}.jpg" for n in range(N_UPLOADS)]
    for n, key in enumerate(keys):
        _upload(uploader, key, _picture(n))
    before = _announced(up)
    _notify(up, *[("ObjectCreated:Put", key) for key in keys])
    slow = {"HEAD_THREADS": "1", "MAX_IN_FLIGHT": "4"}
    for part in (0.2, 0.5):
        with Normalize(up, **slow) as process:
            wait_until(lambda part=part: _announced(up) - before >= N_UPLOADS * part, timeout_s=120)  # type: ignore[misc]
            assert _lag(up) > 0, "it was not in the middle"
            os.kill(process.pid, signal.SIGKILL)
            process.wait()
    with Normalize(up, **slow) as process:
        wait_until(lambda: _announced(up) - before >= N_UPLOADS * 0.7, timeout_s=120)
        (pid,) = [child.pid for child in up.status() if child.name == "s3"]
        assert pid is not None
        os.kill(pid, signal.SIGKILL)
        wait_until(lambda: index.count(TENANT)[State.INDEXED] == N_UPLOADS, timeout_s=240)
        wait_until(lambda: _lag(up) == 0, timeout_s=120)
        process.send_signal(signal.SIGTERM)
        assert process.wait(30) == 0
    assert _lag(up) == 0
    assert _images(index) == Counter({(f"i{n}", State.INDEXED): 1 for n in range(N_UPLOADS)})
    found = standing(read_settings(), find_addresses(read_settings(), up.parts.data))
    assert found["dead_letters"]["total"] == 0


@pytest.mark.timeout(300)
def test_a_bucket_and_the_index_agree_after_changes_of_every_kind(
    up: Running, index: IndexClient, uploader: Minio
) -> None:
    """Overwritten, removed, put again, put and removed, tagged, put by us, copied from us; one that can be no image."""
    names = [f"c{n}" for n in range(5)]
    for n, name in enumerate(names):
        _upload(uploader, f"{TENANT}/{name}.jpg", _picture(1000 + n))
    with Normalize(up) as process:
        _notify(up, *[("ObjectCreated:Put", f"{TENANT}/{name}.jpg") for name in names])
        wait_until(lambda: all(one is not None for one in index.read(TENANT, names)), timeout_s=120)
        overwritten, removed, back, brief = (f"{TENANT}/{name}.jpg" for name in ("c0", "c1", "c2", "brief"))
        _upload(uploader, overwritten, _picture(2000))
        uploader.remove_object(BUCKET, removed)
        uploader.remove_object(BUCKET, back)
        _upload(uploader, back, _picture(2002))
        _upload(uploader, brief, _picture(2003))
        uploader.remove_object(BUCKET, brief)
        put, gone = "ObjectCreated:Put", "ObjectRemoved:Delete"
        changes = [(put, overwritten), (gone, removed), (put, back), (gone, back), (gone, brief), (put, brief)]
        copied = _copy_of_our_own(up, uploader)
        tagged = ("ObjectCreated:PutTagging", f"{TENANT}/c3.jpg")
        _notify(up, *changes, tagged, *copied, (put, f"{TENANT}/no image id.jpg"), (put, "thumbs/x/y.jpg"))
        expected = ["indexed", "deleted", "indexed", "indexed", "indexed", "deleted", "indexed"]
        wait_until(lambda: _states(index) == expected, timeout_s=120)
        wait_until(lambda: _etag(index, "c0") == uploader.stat_object(BUCKET, overwritten).etag, timeout_s=120)
        wait_until(lambda: _etag(index, "c2") == uploader.stat_object(BUCKET, back).etag, timeout_s=120)
        wait_until(lambda: _lag(up) == 0, timeout_s=120)
        process.send_signal(signal.SIGTERM)
        assert process.wait(30) == 0
    assert index.read(TENANT, ["own"]) == [None], "whoever puts through lookalike announces it"
    found = standing(read_settings(), find_addresses(read_settings(), up.parts.data))
    assert found["dead_letters"]["by_reason"] == {"event_invalid": 1}


def _copy_of_our_own(up: Running, uploader: Minio) -> list[tuple[str, str]]:
    """An object put through lookalike, and somebody's copy of it, which carries its metadata: what is notified."""
    settings = read_settings()
    open_store(settings, find_addresses(settings, up.parts.data)).put(BUCKET, f"{TENANT}/own.jpg", _picture(3000))
    uploader.copy_object(BUCKET, f"{TENANT}/copied.jpg", CopySource(BUCKET, f"{TENANT}/own.jpg"))
    return [("ObjectCreated:Put", f"{TENANT}/own.jpg"), ("ObjectCreated:Copy", f"{TENANT}/copied.jpg")]


def _states(index: IndexClient) -> list[str | None]:
    points = index.read(TENANT, ["c0", "c1", "c2", "c3", "c4", "brief", "copied"])
    return [None if point is None else point.state.value for point in points]


def _etag(index: IndexClient, image_id: str) -> str | None:
    (point,) = index.read(TENANT, [image_id])
    return None if point is None else point.etag


def test_a_normalizer_that_is_started_wrongly_says_so(up: Running) -> None:
    """Exit 3 and one line that names the setting."""
    environment = {**os.environ, "LOOKALIKE_NORMALIZE_KEY_TEMPLATE": "uploads/{tenant_id}/{image_id}.{ext}"}
    command = [sys.executable, "-m", "lookalike", "normalize", "--data", str(up.parts.data)]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 3
    assert "LOOKALIKE_NORMALIZE_KEY_TEMPLATE makes keys like uploads/acme/image.jpg" in done.stderr
    assert done.stderr.count("\n") == 1


def test_the_run_file_holds_the_key_for_nobody_else(up: Running) -> None:
    """Commands beside `up` find endpoint and key there; mode 600."""
    run = up.parts.data / "run.json"
    assert json.loads(run.read_text())["s3"]["secret_key"] == _address(up).secret_key
    assert run.stat().st_mode & 0o077 == 0
