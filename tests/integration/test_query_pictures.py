"""Query pictures through the real embedding process: the very vectors that a worker writes."""

from __future__ import annotations

import io
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import numpy as np
import psutil
import pytest
from PIL import Image

from embedder.index.points import Vector
from embedder.models.registry import model
from embedder.query_embedder import QueryEmbedder, QueryEmbedderOptions
from embedder.vision import Vision
from embedder.vision_options import VisionOptions
from streams.errors import DependencyError, EventError, Reason
from tests.api_rig import picture
from tests.waiting import wait_until

MODEL = "efficientnet_lite0"


@pytest.fixture(scope="module")
def embedder() -> Iterator[QueryEmbedder]:
    """The real child, once for all tests here: torch takes seconds to load."""
    vision = VisionOptions(model=MODEL, max_pixels=1_000_000)
    with closing(QueryEmbedder(QueryEmbedderOptions(vision=vision, deadline_s=120.0))) as embedder:
        yield embedder


def workers_vector(vision: Vision, data: bytes) -> Vector:
    """What decode pool and engine of a worker make of these bytes."""
    with closing(vision.open_decoder(1)) as pool:
        pixels = pool.decode(data).pixels
    vector: Vector = vision.open_engine().engine.embed(pixels[np.newaxis])[0]
    return vector


def test_a_query_picture_gets_the_workers_vector(embedder: QueryEmbedder) -> None:
    """Bit by bit what decode pool and engine of a worker make of the same bytes, for the same collection."""
    data = picture(3, 1, size=(640, 400))
    np.testing.assert_array_equal(embedder.embed(data), workers_vector(Vision(VisionOptions(model=MODEL)), data))
    spec = embedder.spec()
    assert spec.model_id == f"{MODEL}.{model(MODEL).find_weights().sha256[:8]}"
    assert (spec.preprocessing_id, spec.dim) == ("full-v2", 1280)


@pytest.mark.parametrize(("engine", "preprocessing"), [("openvino-fp32", "scaled"), ("torch", "scaled-turbo")])
def test_engine_and_preprocessing_are_the_workers_too(tmp_path: Path, engine: str, preprocessing: str) -> None:
    """Whatever the settings name, a query picture goes through it, and into the collection that is named by it."""
    data = picture(3, 1, size=(1600, 1201))
    options = VisionOptions(model=MODEL, engine=engine, preprocessing=preprocessing, cache=tmp_path)
    wanted = workers_vector(Vision(options), data)
    with closing(QueryEmbedder(QueryEmbedderOptions(vision=options, deadline_s=120.0))) as embedder:
        np.testing.assert_array_equal(embedder.embed(data), wanted)
        assert embedder.spec().preprocessing_id == f"{preprocessing}-v2"
    full = workers_vector(Vision(VisionOptions(model=MODEL, cache=tmp_path)), data)
    assert 0.95 < float(full @ wanted) < 0.999999


def test_bad_pictures_are_told_apart_and_cost_nothing(embedder: QueryEmbedder) -> None:
    """Each has the worker's reason, as vector and as thumbnail; the next picture is answered."""
    whole = picture(3, 1)
    enormous = io.BytesIO()
    Image.new("1", (2000, 2000)).save(enormous, "PNG")
    for data, reason in (
        (b"", Reason.IMAGE_EMPTY),
        (b"no picture", Reason.IMAGE_UNSUPPORTED),
        (whole[: len(whole) // 2], Reason.IMAGE_UNREADABLE),
        (enormous.getvalue(), Reason.IMAGE_TOO_LARGE),
    ):
        for look in (embedder.embed, embedder.thumbnail):
            with pytest.raises(EventError) as caught:
                look(data)
            assert caught.value.reason is reason
    assert embedder.embed(whole).shape == (1280,)


def test_a_thumbnail_is_upright_and_keeps_its_shape(embedder: QueryEmbedder) -> None:
    """A camera's sideways JPEG with an EXIF orientation comes out standing, with its colours in place."""
    sideways = Image.new("RGB", (800, 400), "white")
    sideways.paste("red", (0, 0, 400, 400))
    exif = Image.Exif()
    exif[0x0112] = 6  # to be turned clockwise
    out = io.BytesIO()
    sideways.save(out, "JPEG", exif=exif)
    thumbnail = Image.open(io.BytesIO(embedder.thumbnail(out.getvalue()))).convert("RGB")
    assert thumbnail.size == (128, 256)
    pixels = np.asarray(thumbnail, np.int16)
    assert np.abs(pixels[:100] - (255, 0, 0)).max() < 16
    assert np.abs(pixels[156:] - (255, 255, 255)).max() < 16


def test_no_decoder_outlives_the_embedder() -> None:
    """Closing ends the child and the decoders below it."""
    embedder = QueryEmbedder(QueryEmbedderOptions(vision=VisionOptions(model=MODEL), deadline_s=120.0))
    embedder.embed(picture(3, 1))
    assert embedder._child is not None
    family = [psutil.Process(embedder._child._process.pid)]
    family += family[0].children(recursive=True)
    assert len(family) == 3
    embedder.close()
    wait_until(lambda: not any(p.is_running() and p.status() != psutil.STATUS_ZOMBIE for p in family))


def test_a_model_that_is_not_there_says_so() -> None:
    """The line for the operator comes from the child."""
    embedder = QueryEmbedder(QueryEmbedderOptions(vision=VisionOptions(model="resnet_1b"), deadline_s=120.0))
    with closing(embedder), pytest.raises(DependencyError, match="resnet_1b is not known"):
        embedder.embed(b"x")
