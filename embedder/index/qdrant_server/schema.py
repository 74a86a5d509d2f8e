"""A collection on a server: made whole before it can be found, and checked before it is used."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from qdrant_client import QdrantClient, models

from embedder.index.fields import Field
from embedder.index.payload import INTEGERS, KEYWORDS, REVISION, is_whole, key_of
from embedder.index.policy import HNSW_EF, OVERSAMPLING, full_scan_threshold_kb
from embedder.index.protocol import CollectionSpec
from streams.errors import ConfigError

VECTOR = "image"
SCHEMA_VERSION = 1
SCHEMA_KEY = "lookalike_schema"
COPY = "lookalike_copy"
"""In the metadata of what a migration makes: its alias until it is in use, then false. No other collection has it."""
MAX_TENANTS = 1_000_000
"""Counted by a facet, whose values are counted against the same limit as the hits of a search."""
NO_LIMIT_BYTES = 2**50
"""A limit that was set can be changed, never taken away: what is not named stays as it is."""
MAX_BATCH = 256
"""Points of one upsert: 6,400 a second with 256, 4,900 with 64, 680 with 1 (a server 1.18.3, one client)."""

Index = models.KeywordIndexParams | models.IntegerIndexParams | models.FloatIndexParams


def indexes(fields: Sequence[Field]) -> dict[str, Index]:
    """Every payload index. All exist before the first point: a late one gives no rows, and the status stays green.

    Only the tenant builds graphs; the others would make the build several times longer and recall worse.
    """
    keyword, integer = models.KeywordIndexType.KEYWORD, models.IntegerIndexType.INTEGER
    made: dict[str, Index] = {"tenant_id": models.KeywordIndexParams(type=keyword, is_tenant=True)}
    for name in (*KEYWORDS, REVISION):
        made[name] = models.KeywordIndexParams(type=keyword, enable_hnsw=False)
    for name in (*INTEGERS, *(key_of(field.name, fields) for field in fields if is_whole(field.name, fields))):
        made[name] = models.IntegerIndexParams(type=integer, lookup=False, range=True, enable_hnsw=False)
    for field in fields:
        if not is_whole(field.name, fields):
            made[key_of(field.name, fields)] = models.FloatIndexParams(
                type=models.FloatIndexType.FLOAT, enable_hnsw=False
            )
    return made


def vector_params(dim: int) -> models.VectorParams:
    """Graphs per tenant only, int8 codes in memory, originals on disk."""
    return models.VectorParams(
        size=dim,
        distance=models.Distance.COSINE,
        on_disk=True,
        hnsw_config=models.HnswConfigDiff(
            m=0, payload_m=16, ef_construct=100, full_scan_threshold=full_scan_threshold_kb(dim)
        ),
        quantization_config=models.ScalarQuantization(
            scalar=models.ScalarQuantizationConfig(type=models.ScalarType.INT8, quantile=0.99, always_ram=True)
        ),
    )


def strict_mode() -> models.StrictModeConfig:
    """What no client may ask of this collection, whatever it is: a scan by a field without an index, above all."""
    return models.StrictModeConfig(
        enabled=True,
        unindexed_filtering_retrieve=False,
        unindexed_filtering_update=False,
        max_query_limit=MAX_TENANTS,  # of facets too; searches are kept far below it by `check_query`
        search_max_hnsw_ef=4 * HNSW_EF,
        search_allow_exact=True,  # the query policy goes exact where a graph would answer with nothing
        search_max_oversampling=2 * OVERSAMPLING,
        upsert_max_batchsize=4 * MAX_BATCH,
        filter_max_conditions=8 * MAX_BATCH,  # a conditional upsert has three conditions a point
    )


def fence() -> models.StrictModeConfig:
    """Refuses every write of points but deletes, and no read: one that is refused is repeated by its worker later.

    An upsert has more points than 0, and the payloads take more bytes than 0 (what overwrites of them are held
    against). Settings that are not named here stay.
    """
    return models.StrictModeConfig(enabled=True, upsert_max_batchsize=0, max_collection_payload_size_bytes=0)


def is_fenced(info: models.CollectionInfo) -> bool:
    """Whether :func:`fence` is up."""
    strict = info.config.strict_mode_config
    return strict is not None and strict.upsert_max_batchsize == 0


def lift_fence(client: QdrantClient, name: str, info: models.CollectionInfo) -> bool:
    """Let everybody write again, where a migration was cut short behind its fence; whether it was."""
    fenced = is_fenced(info)
    if fenced:
        lifted = strict_mode().model_copy(update={"max_collection_payload_size_bytes": NO_LIMIT_BYTES})
        client.update_collection(name, strict_mode_config=lifted)
    return fenced


def create(client: QdrantClient, spec: CollectionSpec, name: str) -> None:
    """Make the collection of this name with all its indexes; may be called again after it was cut short."""
    if not client.collection_exists(name):
        make(client, spec, name)
    complete(client, spec, name)


def make(client: QdrantClient, spec: CollectionSpec, name: str, *, copied_for: str | None = None) -> None:
    """Make the collection without its indexes; the server refuses where there is one of this name."""
    client.create_collection(
        name,
        vectors_config={VECTOR: vector_params(spec.dim)},
        on_disk_payload=True,
        strict_mode_config=strict_mode(),
        metadata=described(spec) if copied_for is None else {**described(spec), COPY: copied_for},
    )


def complete(client: QdrantClient, spec: CollectionSpec, name: str) -> None:
    """Make the indexes that are missing. ConfigError where there are points already."""
    info = client.get_collection(name)
    strict = info.config.strict_mode_config
    old = strict is not None and strict.max_query_limit != MAX_TENANTS  # made by an earlier version
    if old and not is_fenced(info):  # one half of a fence must not go before the other
        client.update_collection(name, strict_mode_config=strict_mode())
    missing = [key for key in indexes(spec.fields) if key not in (info.payload_schema or {})]
    if missing and info.points_count:
        raise ConfigError(
            f"collection {name} has points but no index on {', '.join(missing)}, and one made now gives wrong "
            "answers: declare the fields it was made with, or run lookalike index migrate"
        )
    for key in missing:
        client.create_payload_index(name, key, field_schema=indexes(spec.fields)[key], wait=True)


def described(spec: CollectionSpec) -> dict[str, object]:
    """What the collection says of itself: from it the API learns what is declared."""
    return {
        SCHEMA_KEY: SCHEMA_VERSION,
        "model_id": spec.model_id,
        "preprocessing_id": spec.preprocessing_id,
        "dim": spec.dim,
        "fields": [f"{field.name}:{field.kind}" for field in spec.fields],
    }


def check(name: str, found: Mapping[str, object] | None, wanted: CollectionSpec) -> None:
    """ConfigError where a collection is not what `wanted` says."""
    if found is None or found.get(SCHEMA_KEY) != SCHEMA_VERSION:
        raise ConfigError(
            f"collection {name} was not made by this version (schema {SCHEMA_VERSION}; its metadata needs a server of "
            "1.16 or newer): build it anew with lookalike index create"
        )
    for key, value in described(wanted).items():
        if found.get(key) != value:
            cure = "declare the same, or run lookalike index migrate" if key == "fields" else "drop it and feed it anew"
            raise ConfigError(f"collection {name} has {key} {found.get(key)!r}, {value!r} is wanted: {cure}")
