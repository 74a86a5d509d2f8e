"""Which engines there are, which of them may be used on this machine, and the quickest of those.

Nothing heavy is imported for an engine that is not opened, and no torch where the cache holds what is needed.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

import structlog

from embedder.models.cache import ModelCache
from embedder.models.gate import Verdict, examine, machine_key, verdict_of
from embedder.models.protocol import Engine, Model, Weights
from streams.errors import ConfigError

log = structlog.get_logger(__name__)

AUTO = "auto"


@dataclass(frozen=True, slots=True)
class EngineKind:
    """One word of the setting: how it is built, what it needs, how many pictures a call suit it."""

    build: Callable[[Model, Weights, ModelCache], Engine]
    packages: tuple[str, ...]
    max_batch: int
    needs: Path | None = None
    """A file without which `auto` does not try it: importing torch only to ask costs seconds."""


@dataclass(frozen=True, slots=True)
class OpenedEngine:
    """An engine that passed the gate on this machine."""

    engine: Engine
    verdict: Verdict
    max_batch: int


def _torch(model: Model, weights: Weights, _cache: ModelCache) -> Engine:
    from embedder.models.torch_engine import TorchEngine

    return TorchEngine(model, weights)


def _openvino(model: Model, weights: Weights, cache: ModelCache) -> Engine:
    from embedder.models.openvino_engine import OpenVinoEngine

    return OpenVinoEngine(model, weights, cache=cache)


def _openvino_fp32(model: Model, weights: Weights, cache: ModelCache) -> Engine:
    from embedder.models.openvino_engine import OpenVinoEngine

    return OpenVinoEngine(model, weights, cache=cache, fp32=True)


def _cuda(model: Model, weights: Weights, _cache: ModelCache) -> Engine:
    from embedder.models.cuda_engine import CudaEngine

    return CudaEngine(model, weights)


ENGINES: Mapping[str, EngineKind] = {
    "torch": EngineKind(_torch, ("torch",), 1),
    "openvino": EngineKind(_openvino, ("openvino",), 2),
    "openvino-fp32": EngineKind(_openvino_fp32, ("openvino",), 1),
    "torch-cuda": EngineKind(_cuda, ("torch",), 64, needs=Path("/dev/nvidiactl")),
}
"""Pictures a call: on a CPU more are no quicker, because their maps leave the cache (docs/performance.md)."""


def open_engine(
    word: str,
    model: Model,
    weights: Weights,
    cache: ModelCache,
    *,
    kinds: Mapping[str, EngineKind] = ENGINES,
) -> OpenedEngine:
    """The engine of this name, or the quickest that passes for `auto`. Blocks for seconds, longer the first time.

    Raises:
        ConfigError: it is not installed, or its vectors are not the reference's here (with the figure).
    """
    if word == AUTO:
        word = _quickest(model, weights, cache, kinds)
    if word not in kinds:
        raise ConfigError(f"LOOKALIKE_MODEL_ENGINE={word} is not known: use one of {', '.join((*kinds, AUTO))}")
    kind = kinds[word]
    name = verdict_file(word, model, weights, kind)
    verdict = verdict_of(cache.read(name))
    if verdict is not None and not verdict.passed:
        raise _refusal(word, verdict, cache.folder / name)
    engine = kind.build(model, weights, cache)
    if verdict is None:
        verdict = _measure(engine, kind, model, weights)
        cache.keep(name, verdict.as_dict())
        if not verdict.passed:
            raise _refusal(word, verdict, cache.folder / name)
    return OpenedEngine(engine, verdict, kind.max_batch)


def kept_verdict(word: str, model: Model, weights: Weights, cache: ModelCache) -> Verdict | None:
    """What the gate found when the engine was first used here; None where it was not. Loads nothing."""
    return verdict_of(cache.read(verdict_file(word, model, weights, ENGINES[word])))


def kept_quickest(model: Model, weights: Weights, cache: ModelCache) -> str | None:
    """What `auto` would take, as far as it has been measured."""
    found = {word: kept_verdict(word, model, weights, cache) for word in ENGINES}
    return _best({word: one for word, one in found.items() if one is not None})


def missing_packages(word: str) -> list[str]:
    """What an engine needs and this environment lacks."""
    return [package for package in ENGINES[word].packages if _version(package) == "none"]


def verdict_file(word: str, model: Model, weights: Weights, kind: EngineKind) -> str:
    """Where the cache keeps it: another machine, library, network or weights is another file."""
    versions = (f"{package} {_version(package)}" for package in ("torch", *kind.packages))
    return f"gate/{model.info.model_id}-{word}-{machine_key(weights.sha256, *versions)}.json"


def _version(package: str) -> str:
    try:
        return version(package)
    except PackageNotFoundError:
        return "none"


def _quickest(model: Model, weights: Weights, cache: ModelCache, kinds: Mapping[str, EngineKind]) -> str:
    found: dict[str, Verdict] = {}
    for word, kind in kinds.items():
        if (kind.needs is not None and not kind.needs.exists()) or "none" in map(_version, kind.packages):
            continue
        name = verdict_file(word, model, weights, kind)
        verdict = verdict_of(cache.read(name))
        if verdict is None:
            try:
                verdict = _measure(kind.build(model, weights, cache), kind, model, weights)
            except ConfigError as exc:
                log.warning("engine left out", engine=word, error=str(exc))
                continue
            cache.keep(name, verdict.as_dict())
        found[word] = verdict
    best = _best(found)
    if best is None:
        raise ConfigError("no engine passes the fidelity gate on this machine: set LOOKALIKE_MODEL_ENGINE=torch")
    return best


def _best(found: Mapping[str, Verdict]) -> str | None:
    passed = {word: one.images_per_s for word, one in found.items() if one.passed}
    return max(passed, key=passed.__getitem__) if passed else None


def _measure(engine: Engine, kind: EngineKind, model: Model, weights: Weights) -> Verdict:
    from embedder.models.torch_engine import TorchEngine

    reference = TorchEngine(model, weights, reference=True)
    verdict = examine(engine, reference.embed, max_batch=kind.max_batch)
    log.info("engine measured", **verdict.as_dict())
    return verdict


def _refusal(word: str, verdict: Verdict, file: Path) -> ConfigError:
    return ConfigError(
        f"the engine {word} ({verdict.engine}) gives other vectors than torch in float32 on this machine: cosine "
        f"{verdict.cosine_min:.4f}, {verdict.least} is needed; set LOOKALIKE_MODEL_ENGINE=torch, or remove {file} "
        "to measure again"
    )
