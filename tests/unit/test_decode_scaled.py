"""The scaled preprocessings: JPEG is read smaller, and what comes out is nearly what `full` gives."""

from __future__ import annotations

import io
import re
from collections.abc import Iterator
from contextlib import ExitStack, closing
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from embedder.models.protocol import Pixels
from embedder.stages.decode import DecodePool, DecodeRules
from embedder.stages.decode_child import PREPROCESSING_IDS, PREPROCESSINGS, decode_picture
from streams.errors import EventError, Reason
from tests.pictures import corners, encoded, photo

SIDE_PX = 64
SCALED = ("scaled", "scaled-turbo")
Pools = dict[str, DecodePool]


@pytest.fixture(scope="module")
def pools() -> Iterator[Pools]:
    """One real child for each preprocessing."""
    with ExitStack() as stack:
        yield {
            word: stack.enter_context(
                closing(DecodePool(1, DecodeRules(input_px=SIDE_PX, resample="bilinear", preprocessing=word)))
            )
            for word in PREPROCESSINGS
        }


def _rmse(a: Pixels, b: Pixels) -> float:
    return float(np.sqrt(np.mean((a.astype(np.float64) - b) ** 2)))


@pytest.mark.parametrize(("word", "bound"), [("scaled", 0.8), ("scaled-turbo", 1.3)])
@pytest.mark.parametrize("size", [(801, 533), (533, 801), (1031, 1027), (260, 999)])
def test_a_scaled_jpeg_is_nearly_the_full_one(pools: Pools, word: str, bound: float, size: tuple[int, int]) -> None:
    """Sides that no scale divides: the part of the last pixel beyond the edge must not count (error × 4)."""
    data = encoded(photo(*size), "JPEG", quality=90)
    full, scaled = pools["full"].decode(data), pools[word].decode(data)
    assert 0 < _rmse(full.pixels, scaled.pixels) < bound
    assert (scaled.width_px, scaled.height_px, scaled.format) == (*size, "JPEG")


@pytest.mark.parametrize("word", SCALED)
@pytest.mark.parametrize("kind", ["PNG", "WEBP", "GIF", "AVIF", "BMP", "TIFF"])
def test_other_formats_are_read_in_full(pools: Pools, word: str, kind: str) -> None:
    """Only JPEG can be read smaller: everything else is bit by bit what `full` gives."""
    data = encoded(photo(801, 533), kind)
    np.testing.assert_array_equal(pools[word].decode(data).pixels, pools["full"].decode(data).pixels)


@pytest.mark.parametrize(("word", "side_px"), [("scaled", 2 * 2 * SIDE_PX - 1), ("scaled-turbo", 178)])
def test_a_small_jpeg_is_read_in_full(pools: Pools, word: str, side_px: int) -> None:
    """One pixel below the least side for a scale of 1/2: nothing is left out."""
    data = encoded(photo(side_px, 400), "JPEG")
    np.testing.assert_array_equal(pools[word].decode(data).pixels, pools["full"].decode(data).pixels)
    larger = encoded(photo(side_px + 2, 400), "JPEG")
    assert (pools[word].decode(larger).pixels != pools["full"].decode(larger).pixels).any()


@pytest.mark.parametrize("word", SCALED)
@pytest.mark.parametrize("orientation", range(1, 9))
def test_a_scaled_jpeg_is_turned_upright_once(pools: Pools, word: str, orientation: int) -> None:
    """As `full` turns it, with the size that a person sees."""
    exif = Image.Exif()
    exif[0x0112] = orientation
    data = encoded(corners(960, 640), "JPEG", exif=exif)
    full, scaled = pools["full"].decode(data), pools[word].decode(data)
    assert (scaled.width_px, scaled.height_px) == (full.width_px, full.height_px)
    assert _rmse(full.pixels, scaled.pixels) < 6
    quarter = SIDE_PX // 4
    assert np.abs(full.pixels[quarter, quarter] - scaled.pixels[quarter, quarter]).max() <= 3


@pytest.mark.parametrize("word", SCALED)
@pytest.mark.parametrize("mode", ["L", "CMYK", "YCbCr", "progressive", "MPO"])
def test_every_kind_of_jpeg_can_be_scaled(pools: Pools, word: str, mode: str) -> None:
    """Grey, CMYK, progressive, several pictures in one file: the colours are those of `full`."""
    picture = photo(961, 641)
    if mode == "MPO":
        data = encoded(picture, "MPO", save_all=True, append_images=[photo(96, 64)])
    elif mode == "progressive":
        data = encoded(picture, "JPEG", progressive=True, quality=92)
    else:
        data = encoded(picture.convert(mode), "JPEG", quality=92)
    full, scaled = pools["full"].decode(data), pools[word].decode(data)
    assert 0 < _rmse(full.pixels, scaled.pixels) < 2
    assert (scaled.width_px, scaled.height_px) == (961, 641)


@pytest.mark.parametrize("word", SCALED)
@pytest.mark.parametrize("part", [0.05, 0.6, 0.95])
def test_a_truncated_jpeg_is_unreadable_when_scaled(pools: Pools, word: str, part: float) -> None:
    """The quick way must not turn missing rows into grey ones."""
    data = encoded(photo(1200, 900), "JPEG")
    with pytest.raises(EventError) as caught:
        pools[word].decode(data[: int(len(data) * part)])
    assert caught.value.reason is Reason.IMAGE_UNREADABLE


def test_every_preprocessing_is_another_collection() -> None:
    """Ids differ, and say which version of the rules they are."""
    assert len(set(PREPROCESSING_IDS.values())) == len(PREPROCESSINGS)
    for word, id_ in PREPROCESSING_IDS.items():
        assert re.fullmatch(rf"{word}-v\d+", id_)


@pytest.mark.parametrize(("word", "most_mb"), [("full", 330), ("scaled", 200)])
def test_the_memory_of_a_child_is_bounded(word: str, most_mb: int) -> None:
    """50 megapixels at their peak: the pixels once as Pillow keeps them (200 MB), and far less when scaled."""
    rules = DecodeRules(input_px=224, resample="bilinear", preprocessing=word, timeout_s=60.0)
    picture = Image.effect_noise((880, 570), 60).convert("RGB").resize((8800, 5681))
    with closing(DecodePool(1, rules)) as pool:
        assert pool.decode(encoded(picture, "JPEG")).width_px == 8800
        [pid] = pool.pids()
        status = Path(f"/proc/{pid}/status").read_text()
    peak_mb = int(status.split("VmHWM:")[1].split()[0]) / 1024
    assert peak_mb < most_mb


def test_a_scaled_thumbnail_has_its_pixels() -> None:
    """The decoder in this process and the one in a child are the same code."""
    data = encoded(photo(1600, 1201), "JPEG")
    with closing(DecodePool(1, DecodeRules(input_px=256, resample="bicubic", preprocessing="scaled"))) as pool:
        crossed = pool.decode(data).pixels
    inside, *_ = decode_picture(data, input_px=256, bicubic=True, preprocessing="scaled")
    np.testing.assert_array_equal(crossed, inside)
    assert Image.open(io.BytesIO(data)).size == (1600, 1201)
