"""EfficientNet-b0 as img2vec_pytorch runs it on a *list* of pictures: the mean over the last feature map.

img2vec's call with a single picture returns the top left cell of the 7 × 7 instead (cosine .62 to the
mean); vectors of the two kinds must never meet, so this is the only way here.
"""

from __future__ import annotations

import os
from http.client import HTTPException
from pathlib import Path
from typing import TYPE_CHECKING, Any

from embedder.models.protocol import ModelInfo, Weights
from embedder.models.weights import load_into, weights_at
from streams.errors import ConfigError

if TYPE_CHECKING:
    import torch

FILE_NAME = "efficientnet_b0_rwightman-7f5810bc.pth"
SHA256_START = "7f5810bc"
"""torchvision's file name carries the beginning of its hash; torch checks it on download only."""


class EfficientNetB0:
    """torchvision's network, which img2vec_pytorch wraps; 5.3 M parameters, of which the classifier is not run."""

    @property
    def info(self) -> ModelInfo:
        return ModelInfo(
            model_id="efficientnet_b0",
            dim=1280,
            input_px=224,
            resample="bilinear",
            mean=(0.485, 0.456, 0.406),
            std=(0.229, 0.224, 0.225),
            licence="BSD-3-Clause",
        )

    def find_weights(self, override: Path | None = None, *, expected_sha256: str | None = None) -> Weights:
        """`override` (any b0 weights), torch's hub cache, or fetched into it once."""
        if override is not None:
            return weights_at(override, expected_sha256=expected_sha256)
        cached = _hub_folder() / "checkpoints" / FILE_NAME
        if not cached.exists():
            _fetch(cached)
        return weights_at(cached, expected_sha256=SHA256_START)

    def load(self, weights: Weights) -> torch.nn.Module:
        import torch
        from torchvision.models import efficientnet_b0

        class Pooled(torch.nn.Module):
            """img2vec's hook sits on `features`; its list call means over both sides of the map."""

            def __init__(self, features: Any) -> None:
                super().__init__()
                self.features = features

            def forward(self, pixels: torch.Tensor) -> torch.Tensor:
                found: torch.Tensor = self.features(pixels)
                return found.mean(dim=(2, 3))

        network = efficientnet_b0(weights=None)
        load_into(network, weights)
        return Pooled(network.features).eval()


def _hub_folder() -> Path:
    """Where torch keeps what it fetches (its documentation of torch.hub)."""
    cache = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
    return Path(os.environ.get("TORCH_HOME") or cache / "torch") / "hub"


def _fetch(cached: Path) -> None:
    from torch.hub import load_state_dict_from_url
    from torchvision.models import EfficientNet_B0_Weights

    try:
        load_state_dict_from_url(
            EfficientNet_B0_Weights.DEFAULT.url, model_dir=str(cached.parent), check_hash=True, progress=False
        )
    except (OSError, RuntimeError, HTTPException) as exc:
        raise ConfigError(
            f"efficientnet_b0 needs its weights and they could not be fetched ({exc}): copy {FILE_NAME} to "
            f"{cached.parent}, or set LOOKALIKE_MODEL_WEIGHTS to it, or use LOOKALIKE_MODEL=efficientnet_lite0"
        ) from exc
