"""The settings of model, engine and preprocessing: what reaches worker and API, and what is refused."""

from __future__ import annotations

import hashlib
import os
from collections import deque
from pathlib import Path

import pytest

from embedder.models.cache import ModelCache
from embedder.models.registry import model
from embedder.objects.folder import FolderStore
from embedder.objects.memory import MemoryObjects
from embedder.objects.protocol import ObjectStore
from embedder.query_embedder import QueryEmbedderOptions
from embedder.query_embedder_wire import Setup
from embedder.vision import Vision
from embedder.vision_options import VisionOptions
from lookalike.commands.doctor import examine
from lookalike.engines import engine_in_words, vision_options
from lookalike.settings import Settings, read_settings
from streams.errors import ConfigError, DependencyError

BUCKET, KEY = "models", "lite0.pth"


@pytest.fixture(autouse=True)
def _clean_environment(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    for name in list(os.environ):
        if name.startswith("LOOKALIKE_"):
            monkeypatch.delenv(name)
    monkeypatch.setenv("LOOKALIKE_MODEL_CACHE", str(tmp_path / "cache"))


def _settings(monkeypatch: pytest.MonkeyPatch, **variables: str) -> Settings:
    for name, value in variables.items():
        monkeypatch.setenv(f"LOOKALIKE_{name}", value)
    return read_settings()


def _no_store() -> ObjectStore:
    pytest.fail("the object store was asked")


def test_every_word_reaches_the_vision_and_the_query_embedder(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Worker and API are composed from the same options; nothing is lost on the way to the child."""
    settings = _settings(
        monkeypatch,
        MODEL="efficientnet_lite0",
        MODEL_ENGINE="openvino",
        MODEL_PREPROCESSING="scaled-turbo",
        MODEL_WEIGHTS=str(tmp_path / "w.pth"),
        MODEL_WEIGHTS_SHA256="0123456789abcdef",
        DECODE_MAX_PIXELS="12345678",
        DECODE_TIMEOUT_S="3",
    )
    options = vision_options(settings, _no_store)
    assert options == VisionOptions(
        model="efficientnet_lite0",
        weights=tmp_path / "w.pth",
        weights_sha256="0123456789abcdef",
        engine="openvino",
        preprocessing="scaled-turbo",
        cache=tmp_path / "cache",
        max_pixels=12345678,
        decode_timeout_s=3.0,
    )
    assert QueryEmbedderOptions(vision=options).setup() == Setup(
        model="efficientnet_lite0",
        weights=str(tmp_path / "w.pth"),
        weights_sha256="0123456789abcdef",
        engine="openvino",
        preprocessing="scaled-turbo",
        cache=str(tmp_path / "cache"),
        max_pixels=12345678,
        decode_timeout_s=3.0,
    )


def test_without_settings_it_is_torch_and_full(monkeypatch: pytest.MonkeyPatch) -> None:
    """The default is the reference's meaning, not the quickest way."""
    options = vision_options(_settings(monkeypatch), _no_store)
    assert (options.engine, options.preprocessing, options.weights) == ("torch", "full", None)


@pytest.mark.parametrize(
    ("name", "value"),
    [("MODEL_ENGINE", "tpu"), ("MODEL_PREPROCESSING", "fast"), ("MODEL_WEIGHTS_SHA256", "xyz")],
)
def test_a_wrong_word_names_its_variable(monkeypatch: pytest.MonkeyPatch, name: str, value: str) -> None:
    """At the start, before anything is loaded."""
    with pytest.raises(ConfigError, match=f"LOOKALIKE_{name}={value}"):
        _settings(monkeypatch, **{name: value})


@pytest.mark.parametrize("word", ["full", "scaled", "scaled-turbo"])
def test_the_preprocessing_names_the_collection(word: str) -> None:
    """Together with the model and its weights; the engine does not."""
    names = {
        Vision(VisionOptions("efficientnet_lite0", engine=engine, preprocessing=word)).spec.name
        for engine in ("torch", "openvino")
    }
    [name] = names
    assert name.endswith(f"{word}-v2")


# ---- weights in the object store -----------------------------------------------------------------


@pytest.fixture
def stored() -> tuple[MemoryObjects, str]:
    """lite0's weights in a bucket, and their hash."""
    data = model("efficientnet_lite0").find_weights().path.read_bytes()
    store = MemoryObjects()
    store.put(BUCKET, KEY, data)
    return store, hashlib.sha256(data).hexdigest()


def test_weights_come_from_the_store_once(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, stored: tuple[MemoryObjects, str]
) -> None:
    """The second start finds them by their hash and asks nobody."""
    store, sha256 = stored
    settings = _settings(monkeypatch, MODEL_WEIGHTS=f"store://{BUCKET}/{KEY}", MODEL_WEIGHTS_SHA256=sha256)
    options = vision_options(settings, lambda: store)
    assert options.weights == tmp_path / "cache" / "weights" / sha256
    assert Vision(options).spec == Vision(VisionOptions("efficientnet_lite0")).spec
    assert vision_options(settings, _no_store) == options


def test_other_weights_in_the_store_are_refused(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, stored: tuple[MemoryObjects, str]
) -> None:
    """With both hashes in the line, and nothing is kept."""
    store, sha256 = stored
    store.put(BUCKET, KEY, b"something else")
    settings = _settings(monkeypatch, MODEL_WEIGHTS=f"store://{BUCKET}/{KEY}", MODEL_WEIGHTS_SHA256=sha256)
    with pytest.raises(ConfigError) as caught:
        vision_options(settings, lambda: store)
    for part in (sha256[:16], hashlib.sha256(b"something else").hexdigest()[:16], f"store://{BUCKET}/{KEY}"):
        assert part in str(caught.value)
    assert not list(tmp_path.glob("cache/weights/*"))


def test_kept_weights_that_were_changed_are_refused(
    monkeypatch: pytest.MonkeyPatch, stored: tuple[MemoryObjects, str]
) -> None:
    """What lies in the cache is checked like everything else."""
    store, sha256 = stored
    settings = _settings(monkeypatch, MODEL_WEIGHTS=f"store://{BUCKET}/{KEY}", MODEL_WEIGHTS_SHA256=sha256)
    options = vision_options(settings, lambda: store)
    assert options.weights is not None
    options.weights.write_bytes(b"changed")
    with pytest.raises(ConfigError, match="is wanted"):
        Vision(options)


def test_weights_that_are_not_in_the_store_are_a_config_error(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """The address is in the line."""
    settings = _settings(monkeypatch, MODEL_WEIGHTS="store://models/none.pth", MODEL_WEIGHTS_SHA256="0" * 64)
    (tmp_path / "objects" / "models").mkdir(parents=True)
    with pytest.raises(ConfigError, match=r"store://models/none\.pth cannot be fetched"):
        vision_options(settings, lambda: FolderStore(tmp_path / "objects"))


@pytest.mark.parametrize(
    ("variables", "told"),
    [
        ({"MODEL_WEIGHTS": "store://models/x.pth"}, "LOOKALIKE_MODEL_WEIGHTS_SHA256"),
        ({"MODEL_WEIGHTS": "store://models", "MODEL_WEIGHTS_SHA256": "0" * 64}, "store://bucket/key"),
    ],
)
def test_an_address_needs_a_key_and_a_hash(
    monkeypatch: pytest.MonkeyPatch, variables: dict[str, str], told: str
) -> None:
    """What comes over a network is used only where its hash is known."""
    with pytest.raises(ConfigError, match=told):
        _settings(monkeypatch, **variables)


# ---- what an operator is told --------------------------------------------------------------------


def test_doctor_names_the_engine_and_what_the_gate_found(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Before the first start it says so; afterwards it has the figure, and nothing is loaded to tell it."""
    monkeypatch.setenv("LOOKALIKE_DATA", str(tmp_path / "nothing-runs-here"))

    def engine() -> str:
        return next(finding.text for finding in examine(None) if finding.name == "engine")

    assert "not measured here yet" in engine()
    vision = Vision(VisionOptions("efficientnet_lite0", cache=tmp_path / "cache"))
    vision.open_engine()
    assert "torch-cpu-fp32, cosine to the reference 1.0" in engine()


def test_an_engine_that_is_refused_or_missing_is_a_bad_finding(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """With the figure and what to do."""
    from embedder.models import engines
    from embedder.models.gate import Verdict

    network = model("efficientnet_lite0")
    weights = network.find_weights()
    options = VisionOptions("efficientnet_lite0", engine="openvino", cache=tmp_path)
    verdict = Verdict("openvino-cpu-bf16", 0.91, 0.999, 99.0, "2026-01-01T00:00:00+00:00")
    name = engines.verdict_file("openvino", network, weights, engines.ENGINES["openvino"])
    ModelCache(tmp_path).keep(name, verdict.as_dict())
    ok, text = engine_in_words(options, network, weights)
    assert not ok
    assert "0.91" in text
    monkeypatch.setattr(engines, "_version", lambda _package: "none")
    ok, text = engine_in_words(options, network, weights)
    assert not ok
    assert "lookalike[openvino]" in text


def test_a_store_that_does_not_answer_is_no_config_error(monkeypatch: pytest.MonkeyPatch) -> None:
    """It is the world that is unwell: the process may be started again."""

    down = MemoryObjects(faults={("models", "x.pth"): deque([DependencyError("bucket", "no answer")])})
    settings = _settings(monkeypatch, MODEL_WEIGHTS="store://models/x.pth", MODEL_WEIGHTS_SHA256="0" * 64)
    with pytest.raises(DependencyError):
        vision_options(settings, lambda: down)
