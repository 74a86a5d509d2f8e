"""What `bench embed` embeds: 2.5-megapixel photographs and generated pictures, each in three formats."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from lookalike import demo_pictures

if TYPE_CHECKING:
    from PIL.Image import Image

FORMATS = ("jpeg", "png", "webp")
GENERATED_SHARE = 0.25
SIDES_PX = (1936, 1291)
"""2.5 megapixels in the shape of a camera; not a multiple of 8, as cropped pictures are not."""
_OPTIONS: Mapping[str, Mapping[str, int]] = {
    "jpeg": {"quality": 85},
    "png": {"compress_level": 3},
    "webp": {"quality": 85, "method": 2},
}


def make(folder: Path, *, n: int) -> dict[str, list[Path]]:
    """`n` JPEG files, and half as many PNG and WebP of the first of them. Blocks, 0.3 s a picture."""
    from PIL import Image

    n_generated = max(1, round(n * GENERATED_SHARE))
    photographs = demo_pictures.make(folder / "photographs", n=n - n_generated)
    found: dict[str, list[Path]] = {kind: [] for kind in FORMATS}
    sources: list[Path | int] = [*(one.path for one in photographs), *range(n_generated)]
    for number, source in enumerate(_mixed(sources)):
        if isinstance(source, Path):
            with Image.open(source) as opened:
                picture = opened.convert("RGB")
        else:
            picture = generated(source)
        for kind in FORMATS if number < n // 2 else FORMATS[:1]:
            path = folder / f"{number:03}.{kind}"
            picture.save(path, kind.upper(), **_OPTIONS[kind])
            found[kind].append(path)
    return found


def _mixed(sources: Sequence[Path | int]) -> list[Path | int]:
    """The first of every kind come early: short runs see both."""
    step = round(1 / GENERATED_SHARE)
    paths = [one for one in sources if isinstance(one, Path)]
    numbers = [one for one in sources if isinstance(one, int)]
    mixed: list[Path | int] = []
    while paths or numbers:
        mixed += [*paths[: step - 1], *numbers[:1]]
        del paths[: step - 1], numbers[:1]
    return mixed


def generated(seed: int) -> Image:
    """Colour waves, boxes and fine grain: more detail than an enlarged photograph has, so it costs more to decode."""
    import numpy as np
    from PIL import Image

    random = np.random.default_rng(seed)
    width_px, height_px = SIDES_PX
    y, x = np.mgrid[0:height_px, 0:width_px].astype(np.float32) / width_px
    waves = [np.sin(x * a + y * b + c) for a, b, c in random.uniform(2, 30, (3, 3))]
    values = 127 + 80 * np.stack(waves, axis=2)
    for left, top in random.integers(0, height_px, (12, 2)):
        values[top : top + random.integers(20, 400), left : left + random.integers(20, 600)] *= random.uniform(0.3, 1.5)
    values += random.normal(0, 8, (height_px, width_px, 1))
    return Image.fromarray(np.clip(values, 0, 255).astype(np.uint8))
