"""Real photographs with known look-alikes, made on the spot: what the demo shows and what its test measures.

The photographs are those that scikit-image's package ships as files (extra `demo`); the files are read,
scikit-image itself is not imported. Each is enlarged to camera size and varied the way pictures vary
in the wild: cropped, resized, turned, mirrored, lit differently, compressed again.
"""

from __future__ import annotations

import importlib.util
import math
import random
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from streams.errors import ConfigError

if TYPE_CHECKING:  # Pillow is loaded only where pictures are made
    from PIL.Image import Image

CAMERA_PX = 2_500_000
"""Pixels of a picture at full size: 2.5 megapixels."""

_FILES = {
    "astronaut": "astronaut.png",
    "bricks": "brick.png",
    "cameraman": "camera.png",
    "cat": "chelsea.png",
    "coffee": "coffee.png",
    "coins": "coins.png",
    "galaxies": "hubble_deep_field.jpg",
    "grass": "grass.png",
    "gravel": "gravel.png",
    "handwriting": "text.png",
    "moon": "moon.png",
    "motorcycle": "motorcycle_left.png",
    "page": "page.png",
    "retina": "retina.jpg",
    "rocket": "rocket.jpg",
    "tissue": "ihc.png",
}
"""Left out: drawings and test patterns (horse, logo, phantom, color, chessboards), the second view of the
motorcycle, and blurred or tiny pictures (cell, clock_motion, microaneurysms)."""

VARIATIONS = ("original", "crop", "light", "rotate", "resize", "jpeg", "mirror")
"""The original comes once in a family, the others in turn with other amounts each time."""


@dataclass(frozen=True, slots=True)
class DemoPicture:
    """A file that was made; pictures of one `family` are variations of one photograph."""

    path: Path
    family: str
    variation: str


def families() -> list[str]:
    """The names of the families, one for each photograph."""
    return sorted(_FILES)


def make(
    out_dir: Path, *, n: int = 300, seed: int = 0, progress: Callable[[int], object] | None = None
) -> list[DemoPicture]:
    """`n` pictures in `out_dir` (made where missing), families and variations in turn; blocks, about 30 ms each.

    The same `seed` gives the same bytes on the same Pillow, and a smaller `n` the first of them. `progress` is
    called on this thread with the number of pictures that are done.

    Raises:
        ConfigError: the photographs' package is not installed, or `out_dir` cannot be written.
    """
    photographs = _photographs()
    pool = ThreadPoolExecutor(2, thread_name_prefix="demo-picture")  # Pillow works outside the GIL
    try:
        out_dir.mkdir(parents=True, exist_ok=True)
        making = [pool.submit(_make_one, out_dir, photographs, index, seed) for index in range(n)]
        for done, future in enumerate(as_completed(making), start=1):
            future.result()
            if progress is not None:
                progress(done)
    except OSError as exc:
        raise ConfigError(f"cannot write demo pictures to {out_dir}: {exc.strerror or exc}") from exc
    finally:
        pool.shutdown(cancel_futures=True)  # after Ctrl-C or a full disk nothing more is made
    return [future.result() for future in making]


def own_family_share(hits_by_image: Mapping[str, Sequence[str]], family_of: Mapping[str, str], *, k: int) -> float:
    """Which share of the first `k` hits of every image is of the image's own family; the image itself is no hit.

    An image with fewer than `k` hits counts the missing ones as wrong. 0 for no images.
    """
    own = sum(family_of[hit] == family_of[image_id] for image_id, hits in hits_by_image.items() for hit in hits[:k])
    return own / (k * len(hits_by_image)) if hits_by_image else 0.0


def _photographs() -> dict[str, Image]:
    """The photograph of each family, in RGB."""
    found = importlib.util.find_spec("skimage")
    if found is None or not found.submodule_search_locations:
        raise ConfigError("the demo pictures are in the package scikit-image: install lookalike[demo]")
    folder = Path(found.submodule_search_locations[0], "data")
    return {family: _open(folder / _FILES[family]) for family in families()}


def _open(path: Path) -> Image:
    from PIL import Image

    try:
        with Image.open(path) as picture:
            return picture.convert("RGB")
    except OSError as exc:
        raise ConfigError(f"scikit-image's {path.name} cannot be read: install the locked lookalike[demo]") from exc


def _make_one(out_dir: Path, photographs: Mapping[str, Image], index: int, seed: int) -> DemoPicture:
    number, place = divmod(index, len(photographs))
    family = families()[place]
    variation = VARIATIONS[(number - 1) % (len(VARIATIONS) - 1) + 1] if number else "original"
    chance = random.Random(f"{seed}/{family}/{number}")  # noqa: S311  nothing secret, the same every time
    picture = _vary(photographs[family], variation, chance)
    suffix = chance.choice([".png", ".webp"]) if variation == "resize" else ".jpg"
    path = out_dir / f"{family}-{variation}-{number:02}{suffix}"
    _save(picture, path, quality=40 + 11 * number % 56 if variation == "jpeg" else 88)  # 40 to 95, none twice
    return DemoPicture(path, family, variation)


def _vary(photograph: Image, variation: str, chance: random.Random) -> Image:
    """One variation, enlarged from the photograph in one step."""
    from PIL import Image, ImageEnhance, ImageOps

    match variation:
        case "crop":
            return _enlarge(photograph, box=_crop_box(photograph.size, chance))
        case "light":
            lit = ImageEnhance.Brightness(photograph).enhance(chance.uniform(0.75, 1.3))
            return _enlarge(ImageEnhance.Contrast(lit).enhance(chance.uniform(0.75, 1.25)))
        case "rotate":
            degrees = chance.choice([-1, 1]) * chance.uniform(3, 10)
            width_px, height_px = _enlarged(photograph.size)
            turned = photograph.resize((width_px, height_px), Image.Resampling.BICUBIC).rotate(
                degrees, Image.Resampling.BILINEAR
            )
            return turned.crop(_inner_box(turned.size, math.radians(abs(degrees))))
        case "resize":
            return _enlarge(photograph, scale=chance.uniform(0.4, 0.7))
        case "mirror":
            mirrored = ImageOps.mirror(photograph)  # and cropped a little, or the second one would be the first
            return _enlarge(mirrored, box=_crop_box(photograph.size, chance, keep=(0.9, 1.0)))
        case _:
            return _enlarge(photograph)


def _enlarged(size: tuple[int, int], *, scale: float = 1.0) -> tuple[int, int]:
    """The same shape with `CAMERA_PX` pixels; `scale` is of the sides."""
    factor = scale * math.sqrt(CAMERA_PX / (size[0] * size[1]))
    return round(size[0] * factor), round(size[1] * factor)


def _enlarge(photograph: Image, *, scale: float = 1.0, box: tuple[float, float, float, float] | None = None) -> Image:
    from PIL import Image

    size = photograph.size if box is None else (round(box[2] - box[0]), round(box[3] - box[1]))
    return photograph.resize(_enlarged(size, scale=scale), Image.Resampling.LANCZOS, box=box)


def _crop_box(
    size: tuple[int, int], chance: random.Random, *, keep: tuple[float, float] = (0.6, 0.9)
) -> tuple[float, float, float, float]:
    """A box of 60 to 90 % of each side, anywhere."""
    width_px, height_px = (round(side * chance.uniform(*keep)) for side in size)
    left, top = chance.randint(0, size[0] - width_px), chance.randint(0, size[1] - height_px)
    return left, top, left + width_px, top + height_px


def _inner_box(size: tuple[int, int], radians: float) -> tuple[int, int, int, int]:
    """The largest upright box of the same shape that a turn by up to a few degrees leaves filled.

    A box of half sides (sw, sh) lies inside the turned picture of half sides (w, h) where
    ``sw·cos + sh·sin ≤ w`` and ``sw·sin + sh·cos ≤ h``.
    """
    width_px, height_px = size
    cos, sin = math.cos(radians), math.sin(radians)
    scale = min(width_px / (width_px * cos + height_px * sin), height_px / (width_px * sin + height_px * cos))
    inset_x, inset_y = (math.ceil(side * (1 - scale) / 2) for side in size)
    return inset_x, inset_y, width_px - inset_x, height_px - inset_y


def _save(picture: Image, path: Path, *, quality: int) -> None:
    match path.suffix:
        case ".png":
            picture.save(path, compress_level=1)  # quick; the size on disk is not what the demo is about
        case ".webp":
            picture.save(path, quality=quality, method=0)
        case _:
            picture.save(path, quality=quality)
