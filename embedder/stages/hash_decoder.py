"""A decoder without pictures: product code, for tests and for benches of everything around decoding."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass

import numpy as np

from embedder.models.protocol import Pixels
from streams.errors import EventError, Reason


@dataclass(frozen=True, slots=True)
class HashPicture:
    """What :class:`HashDecoder` makes of bytes."""

    pixels: Pixels
    width_px: int
    height_px: int


class HashDecoder:
    """Any bytes are a picture whose pixels are seeded by their hash; no bytes, and b"bad…", are none."""

    def __init__(self, *, input_px: int = 32) -> None:
        self._input_px = input_px

    def decode(self, data: bytes) -> HashPicture:
        if not data:
            raise EventError(Reason.IMAGE_EMPTY, "the object has no bytes")
        if data.startswith(b"bad"):
            raise EventError(Reason.IMAGE_UNREADABLE, "not a picture")
        side = self._input_px
        n_bytes = side * side * 3
        seed = hashlib.sha256(data).digest()
        pixels = np.frombuffer(seed * -(-n_bytes // len(seed)), np.uint8, n_bytes).reshape(side, side, 3)
        return HashPicture(pixels.astype(np.float16), side, side)
