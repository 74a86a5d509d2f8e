"""A new shard, made whole: with every payload index, or not at all."""

from __future__ import annotations

import shutil
from collections.abc import Sequence
from pathlib import Path

from qdrant_edge import (
    Distance,
    EdgeConfig,
    EdgeOptimizersConfig,
    EdgeShard,
    EdgeVectorParams,
    FloatIndexParams,
    HnswIndexConfig,
    IntegerIndexParams,
    KeywordIndexParams,
    Memory,
    TurboQuantBitSize,
    TurboQuantQuantizationConfig,
    UpdateOperation,
)

from embedder.index.fields import Field
from embedder.index.payload import INTEGERS, KEYWORDS, is_whole, key_of
from embedder.index.policy import full_scan_threshold_kb
from embedder.index.protocol import CollectionSpec

VECTOR = "image"
_SELDOM = ("indexed_at_us", "width_px", "height_px")
"""Fields whose ranges are asked for by few."""


def indexes(fields: Sequence[Field]) -> dict[str, KeywordIndexParams | IntegerIndexParams | FloatIndexParams]:
    """Every payload index; only the tenant builds graphs (docs/index.md).

    What is seldom asked for stays in its files: opening a shard reads the others into memory while nothing is
    answered (docs/index.md). A range over 100,000 points was no slower for it.
    """
    made: dict[str, KeywordIndexParams | IntegerIndexParams | FloatIndexParams]
    made = {"tenant_id": KeywordIndexParams(is_tenant=True)}
    for name in KEYWORDS:
        made[name] = KeywordIndexParams(enable_hnsw=False)
    for name in (*INTEGERS, *(key_of(field.name, fields) for field in fields if is_whole(field.name, fields))):
        made[name] = IntegerIndexParams(
            lookup=False, range=True, enable_hnsw=False, memory=Memory.Cold if name in _SELDOM else None
        )
    for field in fields:
        if not is_whole(field.name, fields):
            made[key_of(field.name, fields)] = FloatIndexParams(enable_hnsw=False)
    return made


def create(folder: Path, spec: CollectionSpec) -> EdgeShard:
    """Make the shard in `folder`, which does not exist, and open it."""
    # half the bytes of int8 and quicker at the same recall (docs/index.md has all that were tried)
    quantization = TurboQuantQuantizationConfig(bits=TurboQuantBitSize.Bits4, memory=Memory.Pinned)
    graph = HnswIndexConfig(m=0, ef_construct=100, full_scan_threshold=full_scan_threshold_kb(spec.dim), payload_m=16)
    vector = EdgeVectorParams(
        size=spec.dim,
        distance=Distance.Cosine,
        memory=Memory.Cold,
        quantization_config=quantization,
        hnsw_config=graph,
    )
    folder.parent.mkdir(parents=True, exist_ok=True)
    scratch = folder.with_name("shard.new")  # a shard appears with all its indexes or not at all
    shutil.rmtree(scratch, ignore_errors=True)
    shard = EdgeShard.create(
        str(scratch),
        EdgeConfig(
            vectors={VECTOR: vector},
            optimizers=EdgeOptimizersConfig(indexing_threshold=20_000, default_segment_number=4),
            payload_memory=Memory.Cold,
            wal_enabled=True,
            max_search_threads=1,
        ),
    )
    for name, params in indexes(spec.fields).items():
        shard.update(UpdateOperation.create_field_index(name, params))
    shard.flush()
    shard.close()
    scratch.rename(folder)
    return EdgeShard.load(str(folder))
