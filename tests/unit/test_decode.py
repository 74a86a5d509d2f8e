"""What becomes of a picture, by its kind: pixels by one fixed rule each, or a typed reason."""

from __future__ import annotations

import io
import struct
import sys
from collections.abc import Callable, Iterator
from contextlib import closing

import numpy as np
import pytest
from PIL import Image

from embedder.stages.decode import DecodePool, DecodeRules
from embedder.stages.decode_child import FORMATS, RefusedError, decode_picture
from streams.errors import EventError, Reason
from tests.pictures import CORNERS, chunk, corners, encoded, heic, inflating, photo, png

SIDE_PX = 64
ORIENTATION = 0x0112
WHITE, GREY, BLACK = (255, 255, 255), (127, 127, 127), (0, 0, 0)


@pytest.fixture(scope="module")
def pool() -> Iterator[DecodePool]:
    """One real child: pictures here cross the process border and its memory limit as in a worker."""
    with closing(DecodePool(1, DecodeRules(input_px=SIDE_PX, resample="bilinear"))) as pool:
        yield pool


def _refused(pool: DecodePool, data: bytes) -> Reason:
    with pytest.raises(EventError) as caught:
        pool.decode(data)
    assert caught.value.message
    return caught.value.reason


def _colours(pool: DecodePool, data: bytes) -> list[tuple[int, ...]]:
    """The four colours in the middles of the quarters."""
    pixels = pool.decode(data).pixels
    near, far = SIDE_PX // 4, SIDE_PX * 3 // 4
    return [tuple(int(value) for value in pixels[y, x]) for y in (near, far) for x in (near, far)]


def _close(found: tuple[int, ...], wanted: tuple[int, ...], *, by: int = 6) -> bool:
    return all(abs(a - b) <= by for a, b in zip(found, wanted, strict=True))


# ---- pixels --------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("resample", "filter_"), [("bilinear", Image.Resampling.BILINEAR), ("bicubic", Image.Resampling.BICUBIC)]
)
@pytest.mark.parametrize("size", [(801, 533), (97, 211)])
def test_a_plain_jpeg_is_pillows_own_pixels(size: tuple[int, int], resample: str, filter_: Image.Resampling) -> None:
    """Open, convert, resize, shrunk or enlarged: to what Pillow rounds away, and the size before it."""
    data = encoded(photo(*size), "JPEG", quality=88)
    with closing(DecodePool(1, DecodeRules(input_px=224, resample=resample))) as pool:
        decoded = pool.decode(data)
    expected = np.asarray(Image.open(io.BytesIO(data)).convert("RGB").resize((224, 224), filter_), np.float32)
    assert np.abs(decoded.pixels.astype(np.float32).clip(0, 255) - expected).max() <= 1.2
    assert (decoded.width_px, decoded.height_px, decoded.format) == (*size, "JPEG")
    assert decoded.pixels.dtype == np.float16


@pytest.mark.parametrize("kind", FORMATS)
def test_every_allowed_format_is_read(pool: DecodePool, kind: str) -> None:
    """The four quarters come out in their places and colours; only the bytes tell the format, no name does."""
    data = encoded(corners(), kind)
    decoded = pool.decode(data)
    assert (decoded.width_px, decoded.height_px, decoded.format) == (96, 64, kind)
    for found, wanted in zip(_colours(pool, data), CORNERS, strict=True):
        assert _close(found, wanted, by=24)  # AVIF and WebP keep colour at half resolution


def test_heic_is_read_where_the_extra_is(pool: DecodePool) -> None:
    """An iPhone's picture, like any other."""
    pytest.importorskip("pillow_heif", reason="the heic extra is not installed")
    data = heic(corners())
    assert pool.decode(data).format == "HEIF"
    for found, wanted in zip(_colours(pool, data), CORNERS, strict=True):
        assert _close(found, wanted, by=24)


def test_heic_without_the_extra_is_unsupported(monkeypatch: pytest.MonkeyPatch) -> None:
    """The reason is that we do not read it, not that it is damaged."""
    pytest.importorskip("pillow_heif", reason="the heic extra is not installed")
    data = heic(corners())
    monkeypatch.setitem(sys.modules, "pillow_heif", None)  # as if it were not installed
    with pytest.raises(RefusedError) as caught:
        decode_picture(data, input_px=SIDE_PX, bicubic=False)
    assert caught.value.reason == Reason.IMAGE_UNSUPPORTED


# ---- upright -------------------------------------------------------------------------------------

TURNED = {
    1: (0, 1, 2, 3),
    2: (1, 0, 3, 2),
    3: (3, 2, 1, 0),
    4: (2, 3, 0, 1),
    5: (0, 2, 1, 3),
    6: (2, 0, 3, 1),
    7: (3, 1, 2, 0),
    8: (1, 3, 0, 2),
}
"""Orientation of the EXIF standard → which stored quarter is seen at each place."""


def _with_orientation(orientation: int) -> Image.Exif:
    exif = Image.Exif()
    exif[ORIENTATION] = orientation
    return exif


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "WEBP", "TIFF", "AVIF"])
@pytest.mark.parametrize("orientation", TURNED)
def test_a_picture_is_turned_upright_once(pool: DecodePool, kind: str, orientation: int) -> None:
    """All eight EXIF orientations, in each format that carries one; the size is the upright one."""
    data = encoded(corners(), kind, exif=_with_orientation(orientation))
    decoded = pool.decode(data)
    assert (decoded.width_px, decoded.height_px) == ((96, 64) if orientation < 5 else (64, 96))
    for found, place in zip(_colours(pool, data), TURNED[orientation], strict=True):
        assert _close(found, CORNERS[place], by=24)


@pytest.mark.parametrize("orientation", [3, 6])
def test_a_heic_is_turned_upright_once(pool: DecodePool, orientation: int) -> None:
    """Its library turns the picture already: it must not be turned twice."""
    pytest.importorskip("pillow_heif", reason="the heic extra is not installed")
    data = heic(corners(), exif=_with_orientation(orientation).tobytes())
    for found, place in zip(_colours(pool, data), TURNED[orientation], strict=True):
        assert _close(found, CORNERS[place], by=24)


def _exif_entry(kind: int, count: int, value: bytes) -> bytes:
    return b"Exif\0\0II*\0\x08\0\0\0\x01\0" + struct.pack("<HHI", ORIENTATION, kind, count) + value + b"\0" * 4


@pytest.mark.parametrize(
    "exif",
    [
        b"Exif\0\0",
        b"Exif\0\0garbage that is no TIFF header",
        b"Exif\0\0II*\0\xff\xff\xff\x7f",
        b"Exif\0\0II*\0\x08\0\0\0\xff\xff",
        _exif_entry(3, 1, struct.pack("<HH", 99, 0)),
        _exif_entry(2, 4, b"6up\0"),
        _exif_entry(5, 1, struct.pack("<I", 0xFFFFFFF0)),
        _exif_entry(99, 1, b"\0\0\0\0"),
    ],
    ids=["empty", "no tiff", "offset beyond", "cut off", "99", "text", "value beyond", "unknown type"],
)
def test_a_malformed_exif_is_harmless(pool: DecodePool, exif: bytes) -> None:
    """Whatever stands there, the picture is read as it lies."""
    found = _colours(pool, encoded(corners(), "JPEG", exif=exif, quality=95))
    assert all(_close(a, b, by=24) for a, b in zip(found, CORNERS, strict=True))


# ---- colours -------------------------------------------------------------------------------------


def _palette_with_hidden_colour() -> bytes:
    picture = Image.new("P", (32, 32), 0)
    picture.putpalette([200, 10, 10, 1, 2, 3])
    return encoded(picture, "PNG", transparency=0)


def _deep(mode: str, value: float, kind: str) -> bytes:
    return encoded(Image.new(mode, (32, 32), value), kind)


def _ramp(low: float, high: float, *, mode: str) -> bytes:
    values = np.linspace(low, high, 32 * 32).reshape(32, 32)
    return encoded(Image.fromarray(values.astype(np.float32 if mode == "F" else np.int32)), "TIFF")


FLAT: dict[str, tuple[Callable[[], bytes], tuple[int, int, int]]] = {
    "RGBA, hidden black": (lambda: encoded(Image.new("RGBA", (32, 32), (0, 0, 0, 0)), "PNG"), WHITE),
    "RGBA, half a black": (lambda: encoded(Image.new("RGBA", (32, 32), (0, 0, 0, 128)), "PNG"), GREY),
    "RGBA, opaque": (lambda: encoded(Image.new("RGBA", (32, 32), (9, 8, 7, 255)), "PNG"), (9, 8, 7)),
    "RGBA in WebP": (lambda: encoded(Image.new("RGBA", (32, 32), (0, 0, 0, 0)), "WEBP", lossless=True), WHITE),
    "LA": (lambda: encoded(Image.new("LA", (32, 32), (0, 0)), "PNG"), WHITE),
    "palette with a transparent colour": (_palette_with_hidden_colour, WHITE),
    "RGB with a transparent colour": (
        lambda: encoded(Image.new("RGB", (32, 32), (5, 6, 7)), "PNG", transparency=(5, 6, 7)),
        WHITE,
    ),
    "L with a transparent value": (lambda: encoded(Image.new("L", (32, 32), 5), "PNG", transparency=5), WHITE),
    "transparent GIF": (lambda: encoded(Image.new("P", (32, 32), 0), "GIF", transparency=0), WHITE),
    "palette": (lambda: encoded(Image.new("P", (32, 32), 0), "PNG"), BLACK),
    "L": (lambda: encoded(Image.new("L", (32, 32), 127), "PNG"), GREY),
    "1, black": (lambda: encoded(Image.new("1", (32, 32), 0), "PNG"), BLACK),
    "1, white": (lambda: encoded(Image.new("1", (32, 32), 1), "PNG"), WHITE),
    "16-bit grey": (lambda: _deep("I;16", 127 * 257, "PNG"), GREY),
    "16-bit grey, white": (lambda: _deep("I;16", 65535, "TIFF"), WHITE),
    "16-bit grey, low": (lambda: _deep("I;16", 100, "PNG"), BLACK),
    "32-bit grey of 16-bit values": (lambda: _deep("I", 127 * 257, "TIFF"), GREY),
    "float from 0 to 1": (lambda: _deep("F", 0.5, "TIFF"), (128, 128, 128)),
    "float up to 255": (lambda: _deep("F", 127.0, "TIFF"), GREY),
    "16-bit RGB": (lambda: png(32, 32, b"\x10\0\x80\0\xf0\0" * 1024, colour_type=2, depth=16), (16, 128, 240)),
    "16-bit RGBA": (lambda: png(32, 32, b"\0\0\0\0\0\0\0\0" * 1024, colour_type=6, depth=16), WHITE),
    "CMYK JPEG, no ink": (lambda: encoded(Image.new("CMYK", (32, 32), (0, 0, 0, 0)), "JPEG"), WHITE),
    "CMYK JPEG, cyan": (lambda: encoded(Image.new("CMYK", (32, 32), (255, 0, 0, 0)), "JPEG"), (0, 255, 255)),
    "YCbCr TIFF": (lambda: encoded(Image.new("YCbCr", (32, 32), (127, 128, 128)), "TIFF"), GREY),
}


@pytest.mark.parametrize("name", FLAT)
def test_a_colour_comes_out_as_it_is_seen(pool: DecodePool, name: str) -> None:
    """One rule for each mode: nothing is clipped, and what was transparent is white."""
    make, wanted = FLAT[name]
    pixels = pool.decode(make()).pixels
    assert (pixels == pixels[0, 0]).all()
    assert _close(tuple(int(value) for value in pixels[0, 0]), wanted, by=1)


@pytest.mark.parametrize(
    "data", [_ramp(0, 2**20, mode="I"), _ramp(-5, 5, mode="F")], ids=["32-bit integers", "signed floats"]
)
def test_values_of_no_known_scale_are_stretched(pool: DecodePool, data: bytes) -> None:
    """From the least to the greatest: the picture is seen, not a white field."""
    pixels = pool.decode(data).pixels
    assert int(pixels.min()) <= 8
    assert int(pixels.max()) >= 247
    assert 120 < float(pixels.mean()) < 135


def test_a_float_picture_with_holes_is_read(pool: DecodePool) -> None:
    """NaN and infinity are black, the rest keeps its scale."""
    values = np.full((32, 32), 0.5, np.float32)
    values[:4], values[4:8] = np.nan, np.inf
    pixels = pool.decode(encoded(Image.fromarray(values), "TIFF")).pixels
    assert pixels[2, 2].tolist() == [0, 0, 0]
    assert pixels[50, 2].tolist() == [128, 128, 128]


@pytest.mark.parametrize("kind", ["GIF", "WEBP", "PNG", "TIFF", "AVIF"])
def test_of_an_animation_the_first_frame_is_taken(pool: DecodePool, kind: str) -> None:
    """Not the last, and not a mixture."""
    frames = [Image.new("RGB", (32, 32), colour) for colour in ((250, 10, 10), (10, 250, 10), (10, 10, 250))]
    data = encoded(frames[0], kind, save_all=True, append_images=frames[1:])
    assert getattr(Image.open(io.BytesIO(data)), "n_frames", 1) == 3
    assert all(_close(found, (250, 10, 10), by=24) for found in _colours(pool, data))


def test_a_phones_jpeg_of_several_pictures_is_read(pool: DecodePool) -> None:
    """Multi-picture JPEGs (depth maps, gain maps) count as JPEG: the first picture is the one."""
    data = encoded(corners(), "MPO", save_all=True, append_images=[photo(96, 64)])
    assert all(_close(a, b, by=24) for a, b in zip(_colours(pool, data), CORNERS, strict=True))


# ---- refusals ------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "data",
    [
        encoded(photo(32, 32), "EPS"),
        encoded(photo(32, 32), "PDF"),
        encoded(photo(32, 32), "PPM"),
        encoded(photo(32, 32), "ICO"),
        encoded(photo(32, 32), "TGA"),
        b"<svg xmlns='http://www.w3.org/2000/svg' width='9' height='9'/>",
        b"<!doctype html><title>404 Not Found</title>",
        b"P",
        bytes(1000),
        np.random.default_rng(1).bytes(5000),
    ],
    ids=["EPS", "PDF", "PPM", "ICO", "TGA", "SVG", "HTML", "one byte", "zeros", "random"],
)
def test_what_is_not_on_the_list_is_unsupported(pool: DecodePool, data: bytes) -> None:
    """Also formats that Pillow could open: one of those would run Ghostscript."""
    assert _refused(pool, data) is Reason.IMAGE_UNSUPPORTED


@pytest.mark.parametrize("kind", FORMATS)
@pytest.mark.parametrize("part", [0.05, 0.6])
def test_a_truncated_picture_is_unreadable(pool: DecodePool, kind: str, part: float) -> None:
    """Never grey rows: a short read must not become a vector."""
    data = encoded(photo(), kind)
    assert _refused(pool, data[: int(len(data) * part)]) is Reason.IMAGE_UNREADABLE


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "WEBP", "GIF", "BMP", "TIFF"])
def test_a_header_and_nothing_else_is_unreadable(pool: DecodePool, kind: str) -> None:
    """The first bytes name a format that is read: it is damaged, not unsupported."""
    assert _refused(pool, encoded(photo(), kind)[:16]) is Reason.IMAGE_UNREADABLE


def test_a_png_with_a_flipped_byte_is_unreadable(pool: DecodePool) -> None:
    """Its checksums tell."""
    data = bytearray(encoded(photo(), "PNG"))
    data[len(data) // 2] ^= 0xFF
    assert _refused(pool, bytes(data)) is Reason.IMAGE_UNREADABLE


def test_no_bytes_are_an_empty_picture(pool: DecodePool) -> None:
    """Its own reason: the upload failed."""
    assert _refused(pool, b"") is Reason.IMAGE_EMPTY


@pytest.mark.parametrize("size", [(1, 1), (30_000, 1), (1, 30_000), (7, 100)])
def test_a_picture_with_a_tiny_side_is_too_small(pool: DecodePool, size: tuple[int, int]) -> None:
    """It would load, but its vector means nothing."""
    assert _refused(pool, encoded(Image.new("L", size), "PNG")) is Reason.IMAGE_TOO_SMALL


def test_the_least_side_is_allowed(pool: DecodePool) -> None:
    """Eight pixels are the limit, and inside of it."""
    assert pool.decode(encoded(photo(8, 8), "PNG")).width_px == 8


@pytest.mark.parametrize(("width_px", "height_px"), [(20_000, 10_000), (10_000, 5_001), (2**31 - 1, 2**31 - 1)])
def test_too_many_pixels_are_refused_before_any_is_decoded(pool: DecodePool, width_px: int, height_px: int) -> None:
    """A few hundred bytes tell of 50 megapixels and more: with their pixels cut off they would be unreadable."""
    assert _refused(pool, png(width_px, height_px, b"", colour_type=2)) is Reason.IMAGE_TOO_LARGE


@pytest.mark.parametrize(
    "bomb",
    [
        chunk(b"zTXt", b"comment\0\0" + inflating(200 << 20)),
        chunk(b"iCCP", b"profile\0\0" + inflating(200 << 20)),
        chunk(b"iTXt", b"comment\0\1\0\0\0" + inflating(200 << 20)),
    ],
    ids=["zTXt", "iCCP", "iTXt"],
)
def test_a_chunk_that_inflates_does_no_harm(pool: DecodePool, bomb: bytes) -> None:
    """It is refused or left alone; the same child reads the next picture."""
    before = pool.pids()
    data = png(32, 32, bytes(32 * 32), colour_type=0, before=(bomb,))
    try:
        assert (pool.decode(data).pixels == 0).all()
    except EventError as exc:
        assert exc.reason in (Reason.IMAGE_UNREADABLE, Reason.IMAGE_TOO_LARGE)  # noqa: PT017 - either outcome is safe
    assert pool.decode(encoded(photo(), "JPEG")).width_px == 320
    assert pool.pids() == before
