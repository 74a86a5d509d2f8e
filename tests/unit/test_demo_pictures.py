"""The demo's pictures: as many as asked for, the same every time, real pictures with known families."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import numpy as np
import pytest
from PIL import Image, ImageChops, ImageStat

from lookalike import demo_pictures
from lookalike.demo_pictures import CAMERA_PX, VARIATIONS, DemoPicture, families, make, own_family_share
from streams.errors import ConfigError


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> list[DemoPicture]:
    """Every variation of every family once."""
    return make(tmp_path_factory.mktemp("made"), n=len(families()) * len(VARIATIONS))


def test_every_family_gets_every_variation(made: list[DemoPicture]) -> None:
    """Families and variations come in turn, and a file's name says both."""
    assert 12 <= len(families()) <= 16
    assert Counter((picture.family, picture.variation) for picture in made) == Counter(
        (family, variation) for family in families() for variation in VARIATIONS
    )
    assert all(picture.path.name.startswith(f"{picture.family}-{picture.variation}-") for picture in made)
    assert len({picture.path for picture in made}) == len(made)


def test_the_files_are_pictures_of_camera_size(made: list[DemoPicture]) -> None:
    """Mostly JPEG with some PNG and WebP, all RGB and whole; only the resized ones are much smaller."""
    formats: Counter[str | None] = Counter()
    for picture in made:
        with Image.open(picture.path) as image:
            image.load()
            formats[image.format] += 1
            assert image.mode == "RGB"
            share = image.width * image.height / CAMERA_PX
        low, high = {"resize": (0.15, 0.5), "rotate": (0.6, 1.0)}.get(picture.variation, (0.99, 1.01))
        assert low <= share <= high, (picture.path.name, share)
    assert formats["JPEG"] > 0.8 * len(made)
    assert formats.keys() == {"JPEG", "PNG", "WEBP"}


def test_variations_differ_from_their_original(made: list[DemoPicture]) -> None:
    """What is varied can be seen, compression apart."""
    small = {picture.path.name: _thumbnail(picture.path) for picture in made}
    originals = {picture.family: small[picture.path.name] for picture in made if picture.variation == "original"}
    for picture in made:
        if picture.variation in {"crop", "rotate", "light", "mirror"}:
            difference = ImageChops.difference(small[picture.path.name], originals[picture.family])
            assert max(ImageStat.Stat(difference).mean) > 1, picture.path.name


def test_no_picture_comes_twice(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """However many of a family are made, no two are the same bytes."""
    monkeypatch.setattr(demo_pictures, "_FILES", {"rocket": "rocket.jpg"})
    assert len({picture.path.read_bytes() for picture in make(tmp_path, n=14)}) == 14


def test_a_turned_picture_has_no_filled_corners(made: list[DemoPicture]) -> None:
    """The corners a turn leaves empty are cut off: a bright photograph stays bright to its corners."""
    turned = next(picture for picture in made if (picture.family, picture.variation) == ("page", "rotate"))
    with Image.open(turned.path) as image:
        grey = np.asarray(image.convert("L"))
    corners = grey[[0, 0, -1, -1], [0, -1, 0, -1]]
    assert corners.min() > 40, corners


def test_the_same_seed_makes_the_same_bytes(tmp_path: Path, made: list[DemoPicture]) -> None:
    """The demo shows the same pictures every time, fewer are the first of more, and another seed makes others."""
    again, other = make(tmp_path / "again", n=24), make(tmp_path / "other", n=24, seed=1)
    first = {picture.path.name: picture.path.read_bytes() for picture in made[:24]}
    assert {picture.path.name: picture.path.read_bytes() for picture in again} == first
    varied = [(mine, yours) for mine, yours in zip(again, other, strict=True) if mine.variation in {"crop", "light"}]
    assert varied
    for mine, yours in varied:
        assert mine.path.read_bytes() != yours.path.read_bytes()


def test_progress_counts_every_picture(tmp_path: Path) -> None:
    """A bar that follows it ends at the number asked for, also into a folder that holds pictures already."""
    for _ in range(2):
        counted: list[int] = []
        assert len(make(tmp_path, n=5, progress=counted.append)) == 5
        assert counted == [1, 2, 3, 4, 5]
    assert len(list(tmp_path.iterdir())) == 5


def test_no_pictures_are_no_error(tmp_path: Path) -> None:
    """Nothing asked for, nothing made."""
    assert make(tmp_path, n=0) == []


def test_without_the_package_one_line_says_what_to_install(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The photographs come with the extra `demo`."""
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(ConfigError, match=r"lookalike\[demo\]"):
        make(tmp_path, n=1)


def test_a_folder_that_cannot_be_written_is_one_line(tmp_path: Path) -> None:
    """A file in the way of the folder is the operator's to move."""
    (tmp_path / "taken").write_text("")
    with pytest.raises(ConfigError, match="taken"):
        make(tmp_path / "taken", n=1)


def test_the_share_counts_hits_of_the_own_family() -> None:
    """Only the first k hits count, a missing hit counts as wrong, and no image gives no share."""
    family_of = {"a1": "a", "a2": "a", "a3": "a", "b1": "b", "b2": "b"}
    assert own_family_share({"a1": ["a2", "a3"], "b1": ["b2", "a1"]}, family_of, k=2) == 0.75
    assert own_family_share({"a1": ["a2", "b1", "b2"]}, family_of, k=1) == 1.0
    assert own_family_share({"b1": ["b2"]}, family_of, k=2) == 0.5
    assert own_family_share({}, family_of, k=5) == 0.0


def _thumbnail(path: Path) -> Image.Image:
    with Image.open(path) as image:
        image.draft("RGB", (256, 256))  # a quicker look is enough here
        return image.resize((64, 64), Image.Resampling.BOX)
