"""The resize in float32 against torch's, which the reference uses; and that a large picture costs little memory."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from PIL import Image

from embedder.stages import float_resize
from embedder.stages.float_resize import resize
from tests.pictures import photo


def _by_torch(picture: Image.Image, side_px: int, mode: str) -> np.ndarray[tuple[int, ...], np.dtype[np.float32]]:
    planes = torch.from_numpy(np.array(picture)).permute(2, 0, 1)[None].float()
    small = torch.nn.functional.interpolate(planes, (side_px, side_px), mode=mode, antialias=True)
    return small[0].permute(1, 2, 0).numpy()


@pytest.mark.parametrize("mode", ["bilinear", "bicubic"])
@pytest.mark.parametrize("size", [(801, 533), (533, 801), (224, 224), (225, 223), (60, 900), (8, 8), (1936, 1291)])
def test_it_is_torchs_antialiased_resize(size: tuple[int, int], mode: str) -> None:
    """Shrunk, kept and enlarged, ringing included: to what float16 keeps (half of 1/8 above 128)."""
    picture = photo(*size)
    found = resize(picture, 224, bicubic=mode == "bicubic")
    assert found.shape == (224, 224, 3)
    assert np.abs(found.astype(np.float32) - _by_torch(picture, 224, mode)).max() <= 0.15


def test_beside_a_hard_edge_the_cubic_rings_beyond_white_and_black() -> None:
    """Nothing is cut off: the network sees what a resize in float32 gives it."""
    picture = Image.new("RGB", (640, 640))
    picture.paste((255, 255, 255), (0, 0, 321, 640))
    found = resize(picture, 64, bicubic=True)
    assert found.min() < -1
    assert found.max() > 256


@pytest.mark.parametrize("extent", [(399.5, 299.25), (400.0, 300.0), (396.1, 297.3)])
def test_an_extent_ends_within_the_last_pixel(extent: tuple[float, float]) -> None:
    """As Pillow's box does, to what Pillow rounds away."""
    picture = photo(400, 300)
    wanted = picture.resize((64, 64), Image.Resampling.BICUBIC, box=(0, 0, *extent))
    found = resize(picture, 64, bicubic=True, extent=extent).astype(np.float32).clip(0, 255)
    assert np.abs(found - np.asarray(wanted, np.float32)).max() <= 1.2


@pytest.mark.parametrize("size", [(1000, 640), (640, 1000), (300, 90)])
def test_a_picture_read_in_pieces_is_the_same(monkeypatch: pytest.MonkeyPatch, size: tuple[int, int]) -> None:
    """Large pictures are not copied whole."""
    picture = photo(*size)
    whole = resize(picture, 96, bicubic=True)
    monkeypatch.setattr(float_resize, "WHOLE_UP_TO_PX", 1000)
    np.testing.assert_array_equal(resize(picture, 96, bicubic=True), whole)
