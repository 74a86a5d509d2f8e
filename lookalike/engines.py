"""The settings of model, engine and preprocessing, resolved for every process that looks at pictures."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

from embedder.settings import STORE_ADDRESS
from embedder.vision_options import VisionOptions
from lookalike.settings import Settings
from streams.errors import ConfigError, EventError, RetryableError
from streams.event import Location

if TYPE_CHECKING:
    from embedder.index.protocol import CollectionSpec
    from embedder.models.engines import OpenedEngine
    from embedder.models.protocol import Model, Weights
    from embedder.objects.protocol import ObjectStore

MAX_WEIGHTS_BYTES = 1 << 30


def vision_options(settings: Settings, store: Callable[[], ObjectStore]) -> VisionOptions:
    """What worker and API compose their eyes from. Fetches weights that lie in the object store, once.

    Raises:
        ConfigError: the weights are not there, or are others.
        DependencyError: the object store does not answer.
    """
    return VisionOptions(
        model=settings.model.model,
        weights=_weights_file(settings, store),
        weights_sha256=settings.model.model_weights_sha256,
        engine=settings.model.model_engine,
        preprocessing=settings.model.model_preprocessing,
        cache=settings.model.model_cache,
        max_pixels=settings.decode.max_pixels,
        decode_timeout_s=settings.decode.timeout_s,
    )


def _weights_file(settings: Settings, store: Callable[[], ObjectStore]) -> Path | None:
    from embedder.models.cache import ModelCache

    address = settings.model.model_weights
    if address is None or not address.startswith(STORE_ADDRESS):
        return None if address is None else Path(address)
    sha256 = settings.model.model_weights_sha256
    assert sha256 is not None  # the settings demand it
    cache = ModelCache(settings.model.model_cache)
    name = f"weights/{sha256}"
    if (cache.folder / name).exists():  # checked against its hash wherever it is used
        return cache.folder / name
    bucket, _, key = address.removeprefix(STORE_ADDRESS).partition("/")
    try:
        data = store().get(Location(bucket, key), max_bytes=MAX_WEIGHTS_BYTES).data
    except (EventError, RetryableError) as exc:
        raise ConfigError(f"LOOKALIKE_MODEL_WEIGHTS={address} cannot be fetched: {exc.message}") from exc
    _check(data, address, sha256)
    kept = cache.keep_bytes(name, data)
    if kept is None:
        raise ConfigError(f"the weights of {address} cannot be kept in {cache.folder}: set LOOKALIKE_MODEL_CACHE")
    return kept


def _check(data: bytes, address: str, sha256: str) -> None:
    import hashlib

    found = hashlib.sha256(data).hexdigest()
    if not found.startswith(sha256):
        raise ConfigError(f"{address} has SHA-256 {found[:16]}…, LOOKALIKE_MODEL_WEIGHTS_SHA256 says {sha256[:16]}…")


def log_engine(opened: OpenedEngine, spec: CollectionSpec) -> None:
    """The line at the start of a worker that tells what made its vectors."""
    import structlog

    structlog.get_logger(__name__).info(
        "engine ready",
        engine=opened.engine.name,
        collection=spec.name,
        cosine_min=opened.verdict.cosine_min,
        images_per_s=opened.verdict.images_per_s,
        max_batch=opened.max_batch,
    )


def engine_in_words(options: VisionOptions, model: Model, weights: Weights) -> tuple[bool, str]:
    """Which engine a worker started here uses, and what the gate found; whether that is well. Loads nothing."""
    from embedder.models.cache import ModelCache
    from embedder.models.engines import AUTO, kept_quickest, kept_verdict, missing_packages

    cache = ModelCache(options.cache)
    word: str | None = options.engine
    if word == AUTO:
        word = kept_quickest(model, weights, cache)
    name = options.engine if word in (None, options.engine) else f"{options.engine}: {word}"
    missing = missing_packages(word) if word is not None else []
    if missing:
        return False, f"{name} needs {', '.join(missing)}, which is not installed: install lookalike[openvino]"
    verdict = None if word is None else kept_verdict(word, model, weights, cache)
    if verdict is None:
        return True, f"{name}, {options.preprocessing}; not measured here yet: done when a worker first starts"
    text = f"{name}, {options.preprocessing}: {verdict.engine}, cosine to the reference {verdict.cosine_min:.5f}"
    return verdict.passed, text if verdict.passed else f"{text}, {verdict.least} is needed: use the engine torch"
