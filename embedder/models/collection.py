"""Which collection a model's vectors belong to: said once, for the worker and for query pictures."""

from __future__ import annotations

from embedder.index.protocol import CollectionSpec
from embedder.models.protocol import ModelInfo, Weights
from embedder.stages.decode_child import PREPROCESSING_IDS


def collection_of(info: ModelInfo, weights: Weights, preprocessing: str = "full") -> CollectionSpec:
    """The network *and its weights* are the model: other weights, or another preprocessing, are another collection.

    The engine is not part of it: every engine that passes the gate may write (`embedder.models.gate`).
    """
    return CollectionSpec(f"{info.model_id}.{weights.sha256[:8]}", PREPROCESSING_IDS[preprocessing], info.dim)
