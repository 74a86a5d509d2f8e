"""Weights files: found, and known by the SHA-256 of their bytes."""

from __future__ import annotations

import hashlib
import pickle
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING

from embedder.models.protocol import Weights
from streams.errors import ConfigError

if TYPE_CHECKING:
    import torch


def weights_at(path: Path, *, expected_sha256: str | None = None) -> Weights:
    """The file at `path`; `expected_sha256` may be a beginning of the hash.

    Raises:
        ConfigError: it is not there, cannot be read, or is another file.
    """
    try:
        found = _sha256(path, path.stat().st_mtime_ns)
    except OSError as exc:
        raise ConfigError(f"the weights file {path} cannot be read: {exc.strerror or exc}") from exc
    if expected_sha256 is not None and not found.startswith(expected_sha256):
        raise ConfigError(
            f"the weights file {path} has SHA-256 {found[:16]}…, {expected_sha256}… is wanted: "
            "it is damaged or of another model; remove it, or point LOOKALIKE_MODEL_WEIGHTS at the right one"
        )
    return Weights(path, found)


def load_into(network: torch.nn.Module, weights: Weights) -> None:
    """Give a network its weights; nothing in the file is run.

    Raises:
        ConfigError: it is no weights file, or one of another network.
    """
    import torch

    try:
        network.load_state_dict(torch.load(weights.path, map_location="cpu", weights_only=True))
    except (RuntimeError, OSError, EOFError, TypeError, AttributeError, pickle.UnpicklingError) as exc:
        raise ConfigError(
            f"the weights file {weights.path} does not fit the model ({type(exc).__name__}): "
            "point LOOKALIKE_MODEL_WEIGHTS at the model's own, or unset it"
        ) from exc


@lru_cache(maxsize=8)
def _sha256(path: Path, _modified_ns: int) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
