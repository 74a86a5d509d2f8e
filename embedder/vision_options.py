"""What looks at pictures, as settings name it: light, for processes that only pass it on."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True, slots=True)
class VisionOptions:
    """`model`, `engine` and `preprocessing` are the words of the settings; `weights` None: where the model looks."""

    model: str
    weights: Path | None = None
    weights_sha256: str | None = None
    engine: str = "torch"
    preprocessing: str = "full"
    cache: Path | None = None
    max_pixels: int = 50_000_000
    decode_timeout_s: float = 10.0
