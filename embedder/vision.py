"""From settings to what looks at pictures: the same composition for workers and for query pictures.

A collection holds vectors of one network, one set of weights and one preprocessing, so both must come from
here: what a query picture goes through is what the indexed one went through.
"""

from __future__ import annotations

from embedder.index.protocol import CollectionSpec
from embedder.models.cache import ModelCache
from embedder.models.collection import collection_of
from embedder.models.engines import OpenedEngine, open_engine
from embedder.models.registry import model
from embedder.stages.decode import DecodePool, DecodeRules
from embedder.vision_options import VisionOptions


class Vision:
    """The model with its weights found. Nothing heavy is loaded before :meth:`open_engine`."""

    def __init__(self, options: VisionOptions) -> None:
        """Raises ConfigError: an unknown model, or no weights."""
        self._options = options
        self._model = model(options.model)
        self._weights = self._model.find_weights(options.weights, expected_sha256=options.weights_sha256)

    @property
    def spec(self) -> CollectionSpec:
        """The collection that the vectors belong into."""
        return collection_of(self._model.info, self._weights, self._options.preprocessing)

    def open_engine(self) -> OpenedEngine:
        """Blocks for seconds. Raises ConfigError where the engine may not be used here."""
        return open_engine(self._options.engine, self._model, self._weights, ModelCache(self._options.cache))

    def open_decoder(self, n_children: int) -> DecodePool:
        """Decoder processes for the network's input."""
        return self._pool(n_children, self._model.info.input_px, self._options.preprocessing)

    def open_thumbnails(self, side_px: int) -> DecodePool:
        """A decoder for pictures that people look at: no vector depends on it."""
        return self._pool(1, side_px, "scaled")

    def _pool(self, n_children: int, side_px: int, preprocessing: str) -> DecodePool:
        rules = DecodeRules(
            input_px=side_px,
            resample=self._model.info.resample,
            max_pixels=self._options.max_pixels,
            timeout_s=self._options.decode_timeout_s,
            preprocessing=preprocessing,
        )
        return DecodePool(n_children, rules)
