"""Which collection a model's vectors belong to: said once, for the worker and for query pictures."""

from __future__ import annotations

from embedder.index.protocol import CollectionSpec
from embedder.models.protocol import ModelInfo, Weights
from embedder.stages.decode import PREPROCESSING_ID


def collection_of(info: ModelInfo, weights: Weights) -> CollectionSpec:
    """The network *and its weights* are the model: other weights are another collection."""
    return CollectionSpec(f"{info.model_id}.{weights.sha256[:8]}", PREPROCESSING_ID, info.dim)
