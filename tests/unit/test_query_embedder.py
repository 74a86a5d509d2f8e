"""The embedding process: what it answers, and that its death costs as little as possible."""

from __future__ import annotations

import io
import os
import signal
import subprocess
import sys
import textwrap
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from types import MappingProxyType

import numpy as np
import psutil
import pytest
from PIL import Image

from embedder.index.points import Vector
from embedder.models.hash_engine import HashEngine
from embedder.query_embedder import QueryEmbedder, QueryEmbedderOptions, QueueFullError
from embedder.query_embedder_child import jpeg_of, thumbnail_size
from embedder.query_embedder_wire import Want
from embedder.stages.hash_decoder import HashDecoder, HashPicture
from embedder.vision_options import VisionOptions
from streams.errors import DependencyError, EventError, Reason, RetryableError
from tests.hash_eyes import DIM
from tests.waiting import wait_until

ROOT = Path(__file__).parents[2]
COMMAND = (sys.executable, "-m", "tests.hash_eyes")
Build = Callable[..., QueryEmbedder]


@pytest.fixture
def build(monkeypatch: pytest.MonkeyPatch) -> Iterator[Build]:
    """Embedders with a child that needs no network, closed at the end."""
    monkeypatch.setenv("PYTHONPATH", str(ROOT))
    built: list[QueryEmbedder] = []

    def embedder(
        *, model: str = "hash", deadline_s: float = 30.0, max_vectors: int = 8, clock: Callable[[], float] | None = None
    ) -> QueryEmbedder:
        options = QueryEmbedderOptions(
            vision=VisionOptions(model=model),
            deadline_s=deadline_s,
            max_waiting=MappingProxyType({Want.VECTOR: max_vectors, Want.THUMBNAIL: 8}),
            command=COMMAND,
        )
        built.append(QueryEmbedder(options) if clock is None else QueryEmbedder(options, clock=clock))
        return built[-1]

    yield embedder
    for one in built:
        one.close()


def pid_of(embedder: QueryEmbedder) -> int:
    """The child's process id."""
    assert embedder._child is not None
    return embedder._child._process.pid


def expected(data: bytes) -> Vector:
    """The vector that a worker would write."""
    vector: Vector = HashEngine(dim=DIM).embed(HashDecoder().decode(data).pixels[np.newaxis])[0]
    return vector


def test_vectors_are_the_workers_and_reach_whoever_asked(build: Build) -> None:
    """Many at once: each asker gets its own picture's vector, bit by bit."""
    embedder = build(max_vectors=32)
    pictures = [f"picture {number}".encode() for number in range(32)]
    with ThreadPoolExecutor(8) as threads:
        vectors = list(threads.map(embedder.embed, pictures))
    for data, vector in zip(pictures, vectors, strict=True):
        np.testing.assert_array_equal(vector, expected(data))
    assert embedder.spec().name == "hash--test"
    embedder.check()


def test_what_is_wrong_with_a_picture_crosses_with_its_reason(build: Build) -> None:
    """For good, for now and unexpected stay apart, and the process lives on."""
    embedder = build()
    embedder.embed(b"warm")
    pid = pid_of(embedder)
    with pytest.raises(EventError) as for_good:
        embedder.embed(b"bad")
    with pytest.raises(RetryableError) as for_now:
        embedder.embed(b"later")
    with pytest.raises(RetryableError) as unexpected:
        embedder.thumbnail(b"boom")
    reasons = [error.value.reason for error in (for_good, for_now, unexpected)]
    assert reasons == [Reason.IMAGE_UNREADABLE, Reason.DECODER_TIMEOUT, Reason.INTERNAL_ERROR]
    np.testing.assert_array_equal(embedder.embed(b"fine"), expected(b"fine"))
    assert pid_of(embedder) == pid


def test_a_crash_costs_nobody_but_the_picture_that_causes_it(build: Build, tmp_path: Path) -> None:
    """What the process had in hand is asked again on the next; what crashes that, too, is given up."""
    embedder = build()
    once = f"crash-once:{tmp_path / 'crashed'}".encode()
    np.testing.assert_array_equal(embedder.embed(once), expected(once))
    with pytest.raises(DependencyError, match="died twice"):
        embedder.embed(b"crash")
    np.testing.assert_array_equal(embedder.embed(b"fine"), expected(b"fine"))


def test_a_child_that_was_killed_is_replaced(build: Build) -> None:
    """kill -9 between two requests is not seen by the second."""
    embedder = build()
    embedder.embed(b"first")
    killed = pid_of(embedder)
    os.kill(killed, signal.SIGKILL)
    np.testing.assert_array_equal(embedder.embed(b"second"), expected(b"second"))
    assert pid_of(embedder) != killed


def test_a_full_queue_refuses_at_once_and_thumbnails_have_their_own(build: Build) -> None:
    """While one picture hangs in the only place, the next is refused; a thumbnail is still made."""
    embedder = build(max_vectors=1)
    embedder.embed(b"warm")
    with ThreadPoolExecutor(1) as threads:
        hanging = threads.submit(embedder.embed, b"hang")
        wait_until(lambda: embedder._waiting[Want.VECTOR] == 1)
        with pytest.raises(QueueFullError):
            embedder.embed(b"next")
        assert embedder.thumbnail(b"small").startswith(b"\xff\xd8")
        embedder.close()
        with pytest.raises(DependencyError):
            hanging.result(timeout=30)


def test_a_child_that_hangs_is_given_up_and_replaced(build: Build) -> None:
    """The asker gets TimeoutError at its deadline, the next one an answer from another process."""
    embedder = build(deadline_s=2.0)
    wait_until(lambda: is_ready(embedder))
    hung = pid_of(embedder)
    with pytest.raises(TimeoutError):
        embedder.embed(b"hang")
    wait_until(lambda: is_ready(embedder))
    np.testing.assert_array_equal(embedder.embed(b"fine"), expected(b"fine"))
    assert pid_of(embedder) != hung


def is_ready(embedder: QueryEmbedder) -> bool:
    """Whether a picture would be embedded at once."""
    try:
        embedder.check()
    except DependencyError:
        return False
    return True


@pytest.mark.parametrize(("model", "said"), [("none", "no weights: fetch them"), ("dies", "ended with 7")])
def test_a_child_that_cannot_work_says_why_and_is_not_started_for_every_request(
    build: Build, model: str, said: str
) -> None:
    """Its one line reaches whoever asks; another try comes a second later."""
    now = [100.0]
    embedder = build(model=model, clock=lambda: now[0])
    with pytest.raises(DependencyError, match=said):
        embedder.embed(b"first")
    first = embedder._child
    assert first is not None
    wait_until(lambda: not first.is_alive())
    for _ in range(3):
        with pytest.raises(DependencyError, match=said):
            embedder.embed(b"again")
    assert embedder._child is None
    now[0] += 1.5
    with pytest.raises(DependencyError, match=said):
        embedder.embed(b"later")
    assert embedder._child not in {None, first}


def test_while_the_network_loads_the_asker_is_told_so(build: Build) -> None:
    """check() never waits; a picture waits for its deadline and no longer."""
    embedder = build(model="slow", deadline_s=0.1)
    embedder.start()
    with pytest.raises(DependencyError, match="loading"):
        embedder.check()
    with pytest.raises(DependencyError, match="still loading"):
        embedder.embed(b"early")


@pytest.mark.parametrize("model", ["hash", "slow"])
def test_the_child_ends_with_its_parent(model: str) -> None:
    """Also after kill -9, and also where the child is still loading."""
    program = textwrap.dedent(
        f"""
        import os, signal
        from embedder.query_embedder import QueryEmbedder, QueryEmbedderOptions
        from embedder.vision_options import VisionOptions

        embedder = QueryEmbedder(QueryEmbedderOptions(vision=VisionOptions(model={model!r}), command={COMMAND!r}))
        embedder.start()
        if {model!r} == "hash":
            embedder.spec()
        print(embedder._child._process.pid, flush=True)
        os.kill(os.getpid(), signal.SIGKILL)
        """
    )
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    ran = subprocess.run(
        [sys.executable, "-c", program], cwd=ROOT, env=environment, stdout=subprocess.PIPE, check=False, timeout=60
    )
    assert ran.returncode == -signal.SIGKILL
    wait_until(lambda: not is_running(int(ran.stdout)))


def is_running(pid: int) -> bool:
    """Whether there is such a process that has not ended: where nobody reaps, an ended one stays a zombie."""
    try:
        return psutil.Process(pid).status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False


def test_closing_ends_the_child_and_every_later_call(build: Build) -> None:
    """No process stays behind, and none is started again."""
    embedder = build()
    embedder.embed(b"first")
    pid = pid_of(embedder)
    embedder.close()
    embedder.close()
    wait_until(lambda: not is_running(pid))
    for call in (embedder.start, embedder.check, lambda: embedder.embed(b"x")):
        with pytest.raises(DependencyError, match="stopped"):
            call()
    wait_until(lambda: not any(thread.name == "query-embedder" for thread in threading.enumerate()))


@pytest.mark.parametrize(
    ("size", "small"),
    [((4000, 3000), (256, 192)), ((3000, 4000), (192, 256)), ((100, 60), (100, 60)), ((50_000, 10), (256, 1))],
)
def test_a_thumbnail_has_the_pictures_own_shape(size: tuple[int, int], small: tuple[int, int]) -> None:
    """At most 256 pixels, never larger than the picture, never without a pixel."""
    assert thumbnail_size(*size) == small
    square = np.full((256, 256, 3), 90, np.float16)
    image = Image.open(io.BytesIO(jpeg_of(HashPicture(square, *size))))
    assert image.size == small
    assert image.format == "JPEG"
