"""Test pictures, made in memory: whole ones, and PNG files put together chunk by chunk where no encoder would."""

from __future__ import annotations

import io
import struct
import zlib
from typing import Any

import numpy as np
from PIL import Image

CORNERS = ((220, 30, 30), (30, 200, 30), (30, 30, 220), (230, 220, 40))
"""Colours of :func:`corners`: top left, top right, bottom left, bottom right."""


def photo(width_px: int = 320, height_px: int = 240, *, seed: int = 0) -> Image.Image:
    """Smooth colours with a little grain, another one for each seed; RGB."""
    random = np.random.default_rng(seed)
    y, x = np.mgrid[0:height_px, 0:width_px] / max(width_px, height_px)
    waves = [np.sin(x * a + y * b + c) for a, b, c in random.uniform(2, 14, (3, 3))]
    values = 127 + 90 * np.stack(waves, axis=2) + random.normal(0, 6, (height_px, width_px, 3))
    return Image.fromarray(np.clip(values, 0, 255).astype(np.uint8))


def corners(width_px: int = 96, height_px: int = 64) -> Image.Image:
    """Four quarters of one colour each: what was turned or mirrored shows. RGB."""
    picture = Image.new("RGB", (width_px, height_px))
    for i, colour in enumerate(CORNERS):
        quarter = Image.new("RGB", (width_px // 2, height_px // 2), colour)
        picture.paste(quarter, (i % 2 * (width_px // 2), i // 2 * (height_px // 2)))
    return picture


def encoded(picture: Image.Image, kind: str, **options: Any) -> bytes:
    """The picture as a file of Pillow's format `kind`."""
    file = io.BytesIO()
    picture.save(file, kind, **options)
    return file.getvalue()


def heic(picture: Image.Image, **options: Any) -> bytes:
    """The picture as an iPhone's file; needs the `heic` extra."""
    import pillow_heif

    file = io.BytesIO()
    pillow_heif.from_pillow(picture).save(file, quality=90, **options)
    return file.getvalue()


def png(
    width_px: int, height_px: int, pixels: bytes, *, colour_type: int, depth: int = 8, before: tuple[bytes, ...] = ()
) -> bytes:
    """A PNG file of unfiltered `pixels` (0 grey, 2 RGB, 3 palette, 6 RGBA); fewer rows than it tells are allowed.

    `before` holds whole chunks that come between the header and the pixels.
    """
    header = struct.pack(">IIBBBBB", width_px, height_px, depth, colour_type, 0, 0, 0)
    channels = {0: 1, 2: 3, 3: 1, 4: 2, 6: 4}[colour_type]
    row = (width_px * channels * depth + 7) // 8
    rows = b"".join(b"\0" + pixels[i : i + row] for i in range(0, len(pixels), row))
    parts = [chunk(b"IHDR", header), *before, chunk(b"IDAT", zlib.compress(rows)), chunk(b"IEND", b"")]
    return b"\x89PNG\r\n\x1a\n" + b"".join(parts)


def chunk(name: bytes, data: bytes) -> bytes:
    """One chunk of a PNG file with its length and checksum."""
    return struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data))


def inflating(n_bytes: int) -> bytes:
    """`n_bytes` zeros, compressed to a thousandth of that."""
    compressor = zlib.compressobj(9)
    block = bytes(1 << 20)
    parts = [compressor.compress(block) for _ in range(n_bytes >> 20)]
    return b"".join(parts) + compressor.flush()
