"""Look-alikes of real photographs find each other: the demo's pictures through the worker's own decoder and network."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from contextlib import closing
from pathlib import Path

import numpy as np
import numpy.typing as npt

from embedder.models.registry import model
from embedder.models.torch_engine import TorchEngine
from embedder.stages.decode import DecodePool, DecodeRules
from lookalike.demo_pictures import DemoPicture, families, make, own_family_share

PICTURES_PER_FAMILY = 9
TOP = PICTURES_PER_FAMILY - 1
"""As many hits as an image has siblings: every one of them has to be found."""


def test_look_alikes_are_found(tmp_path: Path) -> None:
    """At least 9 in 10 of the top hits are of the image's own family, over all families, and 3 in 4 in each."""
    pictures = make(tmp_path, n=PICTURES_PER_FAMILY * len(families()))
    hits = _hits(pictures, _embed(pictures))
    family_of = {picture.path.name: picture.family for picture in pictures}
    shares = {family: own_family_share(_of(family, hits, family_of), family_of, k=TOP) for family in sorted(families())}
    assert own_family_share(hits, family_of, k=TOP) >= 0.9, (shares, _mistaken(hits, family_of))
    assert min(shares.values()) >= 0.75, (shares, _mistaken(hits, family_of))


def _embed(pictures: Sequence[DemoPicture]) -> npt.NDArray[np.float32]:
    """One vector a picture, made as the worker makes it."""
    network = model("efficientnet_lite0")
    engine = TorchEngine(network, network.find_weights())
    rules = DecodeRules(
        input_px=network.info.input_px, resample=network.info.resample, max_pixels=50_000_000, timeout_s=30
    )
    with closing(DecodePool(1, rules)) as decoder:
        pixels = [decoder.decode(picture.path.read_bytes()).pixels for picture in pictures]
    batches = [engine.embed(np.stack(pixels[at : at + 16])) for at in range(0, len(pixels), 16)]
    return np.concatenate(batches)


def _hits(pictures: Sequence[DemoPicture], vectors: npt.NDArray[np.float32]) -> dict[str, list[str]]:
    """The most similar other pictures of each, best first, by cosine."""
    scores = vectors @ vectors.T
    np.fill_diagonal(scores, -2)
    best = np.argsort(-scores, axis=1)[:, :TOP]
    names = [picture.path.name for picture in pictures]
    return {name: [names[hit] for hit in row] for name, row in zip(names, best, strict=True)}


def _of(family: str, hits: Mapping[str, list[str]], family_of: Mapping[str, str]) -> dict[str, list[str]]:
    return {name: found for name, found in hits.items() if family_of[name] == family}


def _mistaken(hits: Mapping[str, list[str]], family_of: Mapping[str, str]) -> Counter[tuple[str, str]]:
    """Which families were taken for which, for whoever reads the failure."""
    pairs = ((family_of[name], family_of[hit]) for name, found in hits.items() for hit in found)
    return Counter(pair for pair in pairs if pair[0] != pair[1])
