"""A picture resized to the network's square in float32, antialiased: the seed's recipe without its full-size copy.

Pillow's own resize rounds to 8 bits between its two passes and again after them. On smooth pictures the network
sees that rounding: the least cosine to a resize in float32 was .998, here it is above .9999 (docs/performance.md).
Both passes are products with narrow bands of a matrix, which the processor's vector units do well, while Pillow's
loops are scalar: a large picture takes two thirds of Pillow's time with the cubic, a tenth more with the triangle.

Weights are Pillow's and torch's (`antialias=True`): the triangle or Keys' cubic with a = -0.5, stretched by
the scale where the picture shrinks, cut at its edges and divided by their sum. It runs in the decoder's child.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import lru_cache
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
import numpy.typing as npt

if TYPE_CHECKING:
    from PIL.Image import Image as Picture

ROWS, COLUMNS = 4, 8
"""Outputs of one product: more reach over more inputs than they use, fewer are no matrix any more."""
GROUP = 7
"""Bands of rows that are narrowed before the next: what lies between the passes stays in the core's cache, also
while the network takes turns with the decoder on the same core."""
WHOLE_UP_TO_PX = 16_000_000
"""A larger picture is read band by band, so that its bytes are not in memory twice."""
Floats = npt.NDArray[np.float32]


def resize(
    picture: Picture, side_px: int, *, bicubic: bool, extent: tuple[float, float] | None = None
) -> npt.NDArray[np.float16]:
    """`picture` (RGB) as (side_px, side_px, 3), 0 to 255; beside hard edges the cubic rings beyond both ends.

    `extent` is how much of width and height counts, in pixels: a JPEG decoded at a fraction of its size ends
    inside of its last pixel. float16 is exact to 1/16 of what 8 bits could tell there at worst.
    """
    width_px, height_px = picture.size
    across, down = extent or (float(width_px), float(height_px))
    below = _taps(height_px, down, side_px, bicubic, ROWS)
    beside = _taps(width_px, across, side_px, bicubic, COLUMNS)
    shrink = _rows_of(picture, below)
    found = np.empty((side_px, side_px, 3), np.float16)
    for start in range(0, len(below), GROUP):
        group = below[start : start + GROUP]
        found[group[0].at : group[-1].to] = _narrowed(shrink(group), beside)
    return found


def _rows_of(picture: Picture, taps: Sequence[Band]) -> Callable[[Sequence[Band]], Floats]:
    """Gives the output's rows of some bands, (rows, width, 3), as wide as the picture; overwritten by the next call."""
    width_px, height_px = picture.size
    pixels = _bytes_of(picture) if width_px * height_px <= WHOLE_UP_TO_PX else None
    floats = np.empty((max(band.end - band.first for band in taps), width_px * 3), np.float32)
    rows = np.empty((GROUP * ROWS, width_px * 3), np.float32)

    def shrink(group: Sequence[Band]) -> Floats:
        top = group[0].at
        for band in group:
            entering = floats[: band.end - band.first]
            if pixels is None:
                np.copyto(entering, _bytes_of(picture.crop((0, band.first, width_px, band.end))))
            else:
                np.copyto(entering, pixels[band.first : band.end])
            np.matmul(band.weights, entering, out=rows[band.at - top : band.to - top])
        return rows[: group[-1].to - top].reshape(-1, width_px, 3)

    return shrink


def _narrowed(rows: Floats, taps: Sequence[Band]) -> Floats:
    """(rows, side, 3) from (rows, width, 3)."""
    n, width_px, _ = rows.shape
    columns = np.ascontiguousarray(rows.transpose(1, 0, 2)).reshape(width_px, n * 3)
    small = np.empty((taps[-1].to, n * 3), np.float32)
    for band in taps:
        np.matmul(band.weights, columns[band.first : band.end], out=small[band.at : band.to])
    return small.reshape(-1, n, 3).transpose(1, 0, 2)


def _bytes_of(picture: Picture) -> npt.NDArray[np.uint8]:
    """(height, width * 3)."""
    return np.frombuffer(picture.tobytes(), np.uint8).reshape(picture.size[1], -1)


class Band(NamedTuple):
    """Outputs `at` to `to` from inputs `first` to `end`; `weights` is (to - at, end - first)."""

    at: int
    to: int
    first: int
    end: int
    weights: Floats


@lru_cache(maxsize=16)
def _taps(inputs: int, extent: float, outputs: int, bicubic: bool, size: int) -> tuple[Band, ...]:
    """Which inputs each output of one axis is made of, `size` outputs at a time. Cameras repeat their sizes."""
    scale = extent / outputs
    stretch = max(scale, 1.0)
    reach = (2.0 if bicubic else 1.0) * stretch
    centre = (np.arange(outputs) + 0.5) * scale
    first = np.maximum((centre - reach + 0.5).astype(np.intp), 0)
    end = np.minimum((centre + reach + 0.5).astype(np.intp), inputs)
    at = first[:, None] + np.arange(int((end - first).max()))
    distance = np.abs((at - centre[:, None] + 0.5) / stretch)
    weights = np.where(at < end[:, None], _cubic(distance) if bicubic else np.maximum(1.0 - distance, 0.0), 0.0)
    weights /= weights.sum(axis=1, keepdims=True)
    bands = []
    for start in range(0, outputs, size):
        stop = min(outputs, start + size)
        lowest, highest = int(first[start]), int(end[stop - 1])
        dense = np.zeros((stop - start, highest - lowest), np.float32)
        for row in range(start, stop):
            n = int(end[row] - first[row])
            dense[row - start, first[row] - lowest : end[row] - lowest] = weights[row, :n]
        bands.append(Band(start, stop, lowest, highest, dense))
    return tuple(bands)


def _cubic(distance: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    """Keys, "Cubic Convolution Interpolation for Digital Image Processing" (1981), with a = -0.5."""
    near = (1.5 * distance - 2.5) * distance * distance + 1.0
    far = ((-0.5 * distance + 2.5) * distance - 4.0) * distance + 2.0
    return np.where(distance < 1.0, near, np.where(distance < 2.0, far, 0.0))
