"""A picture resized to the network's square in float32, antialiased: the seed's recipe without its full-size copy.

Pillow's own resize rounds to 8 bits between its two passes and again after them. On smooth pictures the network
sees that rounding: the least cosine to a resize in float32 was .998, here it is above .9999 (docs/performance.md).
It is no slower: both passes are products with narrow bands of a matrix, which the processor's vector units do
well, while Pillow's loops are scalar.

Weights are Pillow's and torch's (`antialias=True`): the triangle or Keys' cubic with a = -0.5, stretched by
the scale where the picture shrinks, cut at its edges and divided by their sum. It runs in the decoder's child.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import lru_cache
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

if TYPE_CHECKING:
    from PIL.Image import Image as Picture

BAND = 4
"""Output rows of one product: more reach over more input rows than they use, fewer are no matrix any more."""
WHOLE_UP_TO_PX = 16_000_000
"""A larger picture is read in pieces, so that its bytes are not in memory twice."""
PIECE = 4
"""Output rows of such a piece."""
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
    rows = _shrink_rows(picture, _taps(height_px, down, side_px, bicubic))
    columns = np.ascontiguousarray(rows.reshape(side_px, width_px, 3).transpose(1, 0, 2)).reshape(width_px, -1)
    small = np.empty((side_px, side_px * 3), np.float32)
    for band in _taps(width_px, across, side_px, bicubic).bands(0, side_px):
        np.matmul(band.weights, columns[band.first : band.end], out=small[band.at : band.to])
    return small.reshape(side_px, side_px, 3).transpose(1, 0, 2).astype(np.float16)


def _shrink_rows(picture: Picture, taps: Taps) -> Floats:
    """(side, width * 3): the picture's own width, the output's height."""
    width_px, height_px = picture.size
    side_px = len(taps.first)
    found = np.empty((side_px, width_px * 3), np.float32)
    floats = np.empty((taps.most_inputs, width_px * 3), np.float32)
    piece = side_px if width_px * height_px <= WHOLE_UP_TO_PX else PIECE
    for start in range(0, side_px, piece):
        stop = min(side_px, start + piece)
        top, bottom = int(taps.first[start]), int(taps.end[stop - 1])
        part = picture if piece == side_px else picture.crop((0, top, width_px, bottom))
        offset = 0 if part is picture else top
        pixels = np.asarray(part).reshape(part.size[1], width_px * 3)
        for band in taps.bands(start, stop):
            entering = floats[: band.end - band.first]
            np.copyto(entering, pixels[band.first - offset : band.end - offset])
            np.matmul(band.weights, entering, out=found[band.at : band.to])
    return found


@dataclass(frozen=True, slots=True)
class Band:
    """Outputs `at` to `to` from inputs `first` to `end`; `weights` is (to - at, end - first)."""

    at: int
    to: int
    first: int
    end: int
    weights: Floats


@dataclass(frozen=True, slots=True)
class Taps:
    """Which inputs each output is made of: `weights` is (outputs, inputs), zero outside of first to end."""

    weights: Floats
    first: npt.NDArray[np.intp]
    end: npt.NDArray[np.intp]

    @property
    def most_inputs(self) -> int:
        """Inputs that a band reaches over at most."""
        return max(band.end - band.first for band in self.bands(0, len(self.first)))

    def bands(self, start: int, stop: int) -> Iterator[Band]:
        """Outputs `start` to `stop`, `BAND` at a time."""
        for at in range(start, stop, BAND):
            to = min(stop, at + BAND)
            first, end = int(self.first[at]), int(self.end[to - 1])
            yield Band(at, to, first, end, self.weights[at:to, first:end])


@lru_cache(maxsize=8)
def _taps(inputs: int, extent: float, outputs: int, bicubic: bool) -> Taps:
    """Of one axis. Cameras make many pictures of one size."""
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
    banded = np.zeros((outputs, inputs), np.float32)
    inside = at < inputs
    banded[np.nonzero(inside)[0], at[inside]] = weights[inside]
    return Taps(banded, first, end)


def _cubic(distance: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    """Keys, "Cubic Convolution Interpolation for Digital Image Processing" (1981), with a = -0.5."""
    near = (1.5 * distance - 2.5) * distance * distance + 1.0
    far = ((-0.5 * distance + 2.5) * distance - 4.0) * distance + 2.0
    return np.where(distance < 1.0, near, np.where(distance < 2.0, far, 0.0))
