"""What a quicker path costs in fidelity: cosine and recall@10 to the reference, over the bench's own pictures.

The reference is img2vec's recipe on a list: the whole picture as float32, one antialiased resize in float32, the
network as it was loaded in float32, the mean over the last map. Nothing in it is rounded to 8 bits.
"""

from __future__ import annotations

import io
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from embedder.models.protocol import Pixels

Vectors = npt.NDArray[np.float32]
K = 10


@dataclass(frozen=True, slots=True)
class Fidelity:
    """Over all pictures of one format: the least and the mean cosine, and the share of the reference's 10 nearest."""

    cosine_min: float
    cosine_mean: float
    recall_at_10: float


class Examined:
    """One model with one set of weights; engines are built without the gate: here it is measured."""

    def __init__(self, name: str, weights: Path | None, cache: Path) -> None:
        import torch

        from embedder.models.registry import model

        torch.set_num_threads(1)  # two that spin for each other are slower than one wherever anything else runs
        self._model = model(name)
        self._weights = self._model.find_weights(weights)
        self._cache = cache
        self._engines: dict[str, Any] = {}
        self._network = self._model.load(self._weights)

    @property
    def input(self) -> tuple[int, bool]:
        """Side of the input in pixels; whether it is resized with bicubic."""
        return self._model.info.input_px, self._model.info.resample == "bicubic"

    def reference(self, pictures: Sequence[bytes]) -> Vectors:
        import torch
        from PIL import Image

        info = self._model.info
        mean, std = (torch.tensor(one).reshape(1, 3, 1, 1) for one in (info.mean, info.std))
        rows = []
        with torch.inference_mode():
            for data in pictures:
                whole = np.array(Image.open(io.BytesIO(data)).convert("RGB"))
                planes = torch.from_numpy(whole).permute(2, 0, 1)[None].float() / 255
                small = torch.nn.functional.interpolate(
                    planes, (info.input_px, info.input_px), mode=info.resample, antialias=True
                )
                rows.append(self._network((small - mean) / std).numpy())
        vectors: Vectors = np.concatenate(rows)
        normalised: Vectors = vectors / np.linalg.norm(vectors, axis=1, keepdims=True)
        return normalised

    def embed(self, engine: str, pixels: Pixels) -> Vectors:
        from embedder.models.cache import ModelCache
        from embedder.models.engines import ENGINES

        kind = ENGINES[engine]
        if engine not in self._engines:
            self._engines[engine] = kind.build(self._model, self._weights, ModelCache(self._cache))
        built = self._engines[engine]
        parts = [built.embed(pixels[at : at + kind.max_batch]) for at in range(0, len(pixels), kind.max_batch)]
        found: Vectors = np.concatenate(parts)
        return found


def compare(
    examined: Examined, pictures: Sequence[bytes], paths: Sequence[tuple[str, str]]
) -> Mapping[tuple[str, str], Fidelity]:
    """The fidelity of each (engine, preprocessing)."""
    wanted = examined.reference(pictures)
    decoded = {word: decode_all(pictures, word, *examined.input) for word in {word for _, word in paths}}
    return {(engine, word): fidelity(examined.embed(engine, decoded[word]), wanted) for engine, word in paths}


def decode_all(pictures: Sequence[bytes], preprocessing: str, input_px: int, bicubic: bool) -> Pixels:
    """(n, input_px, input_px, 3); two threads, Pillow works outside of the GIL."""
    from embedder.stages.decode_child import decode_picture

    def one(data: bytes) -> Pixels:
        pixels, *_ = decode_picture(data, input_px=input_px, bicubic=bicubic, preprocessing=preprocessing)
        return pixels

    with ThreadPoolExecutor(2) as threads:
        return np.stack(list(threads.map(one, pictures)))


def fidelity(found: Vectors, wanted: Vectors) -> Fidelity:
    """Rows of length 1; every picture asks for its nearest among the others."""
    cosines = (found * wanted).sum(axis=1)
    right, seen = _nearest(wanted @ wanted.T), _nearest(found @ found.T)
    recall = np.mean([len(set(a) & set(b)) / len(a) for a, b in zip(right, seen, strict=True)])
    return Fidelity(float(cosines.min()), float(cosines.mean()), float(recall))


def _nearest(scores: Vectors) -> npt.NDArray[np.intp]:
    np.fill_diagonal(scores, -2.0)
    nearest: npt.NDArray[np.intp] = np.argsort(-scores, axis=1)[:, :K]
    return nearest
