"""Which models there are: adding one is a file here and a line in `MODELS`."""

from __future__ import annotations

from collections.abc import Callable, Mapping

from embedder.models.efficientnet_b0 import EfficientNetB0
from embedder.models.efficientnet_lite0 import EfficientNetLite0
from embedder.models.protocol import Model
from streams.errors import ConfigError

MODELS: Mapping[str, Callable[[], Model]] = {
    "efficientnet_lite0": EfficientNetLite0,
    "efficientnet_b0": EfficientNetB0,
}


def model(name: str) -> Model:
    """The model of this name; nothing heavy is loaded yet.

    Raises:
        ConfigError: there is none.
    """
    found = MODELS.get(name)
    if found is None:
        raise ConfigError(f"LOOKALIKE_MODEL={name} is not known: use one of {', '.join(MODELS)}")
    return found()
