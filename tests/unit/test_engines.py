"""The gate and the choice: an engine may write only where its vectors are the reference's."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pytest
import torch

from embedder.models import engines
from embedder.models.cache import ModelCache
from embedder.models.cuda_engine import CudaEngine, Halving
from embedder.models.engines import ENGINES, EngineKind, kept_quickest, open_engine
from embedder.models.gate import LEAST_COSINE, LEAST_COSINE_FP32, Verdict, examine, gate_pictures
from embedder.models.protocol import Engine, Model, ModelInfo, Pixels, Weights
from embedder.models.registry import MODELS, model
from embedder.models.torch_engine import TorchEngine, frozen
from embedder.models.torch_folding import fold_batch_norms
from streams.errors import ConfigError

Vectors = npt.NDArray[np.float32]


@pytest.fixture(scope="module")
def lite0() -> Model:
    """The model whose weights are there."""
    return model("efficientnet_lite0")


@pytest.fixture(scope="module")
def weights(lite0: Model) -> Weights:
    """Of lite0."""
    return lite0.find_weights()


class Turned:
    """The reference's vectors turned away from it by an angle: an engine with a known cosine."""

    def __init__(self, inner: Engine, cosine: float, *, name: str = "turned-bf16") -> None:
        self._inner, self._cosine, self._name = inner, cosine, name
        self.built = 0

    @property
    def name(self) -> str:
        return self._name

    @property
    def info(self) -> ModelInfo:
        return self._inner.info

    def embed(self, pixels: Pixels) -> Vectors:
        vectors = self._inner.embed(pixels)
        aside = np.roll(vectors, 1, axis=1)
        aside -= (aside * vectors).sum(axis=1, keepdims=True) * vectors
        aside /= np.linalg.norm(aside, axis=1, keepdims=True)
        turned: Vectors = self._cosine * vectors + np.float32(np.sqrt(1 - self._cosine**2)) * aside
        return turned


def kind_of(build: Callable[[], Engine]) -> EngineKind:
    """An engine under test as an entry of the registry."""
    return EngineKind(lambda *_: build(), ("torch",), 4)


# ---- the gate ------------------------------------------------------------------------------------


def test_the_default_engine_passes_with_batch_norm_folded(lite0: Model, weights: Weights, tmp_path: Path) -> None:
    """Folding moves no vector: cosine to the network as it was loaded is 1 to five digits."""
    opened = open_engine("torch", lite0, weights, ModelCache(tmp_path))
    assert opened.verdict.passed
    assert opened.verdict.cosine_min > 0.99999
    assert opened.engine.name == opened.verdict.engine == "torch-cpu-fp32"
    assert opened.max_batch == 1


@pytest.mark.parametrize("name", MODELS)
def test_every_batch_norm_is_folded(name: str, tmp_path: Path) -> None:
    """Both networks can be traced; a convolution of the network's own class counts as one."""
    network = model(name)
    if name == "efficientnet_b0":
        from torchvision.models import efficientnet_b0

        torch.save(efficientnet_b0(weights=None).state_dict(), tmp_path / "b0.pth")
    found = network.find_weights(tmp_path / "b0.pth" if name == "efficientnet_b0" else None)
    folded = fold_batch_norms(network.load(found))
    assert not [m for m in folded.modules() if isinstance(m, torch.nn.BatchNorm2d)]


def test_a_network_that_cannot_be_traced_stays_as_it_is() -> None:
    """It is slower, never wrong and never refused."""

    class Branching(torch.nn.Module):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return x if x.sum() > 0 else -x

    network = Branching()
    assert fold_batch_norms(network) is network
    assert frozen(network, 8) is network, "a trace would take one of its two ways for ever"


def test_the_network_runs_without_python_between_its_layers(
    lite0: Model, weights: Weights, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A frozen trace where torch has its tracer, the network as it is where not; the vectors are the same."""
    pixels = gate_pictures(lite0.info.input_px)[:3]
    traced = TorchEngine(lite0, weights)
    assert isinstance(traced._network, torch.jit.ScriptModule)
    monkeypatch.delattr(torch.jit, "trace")
    plain = TorchEngine(lite0, weights)
    assert isinstance(plain._network, torch.fx.GraphModule)
    np.testing.assert_allclose(traced.embed(pixels), plain.embed(pixels), atol=1e-5)


@pytest.mark.parametrize(
    ("cosine", "name", "passes"),
    [(0.9995, "x-bf16", True), (0.998, "x-bf16", False), (0.9995, "x-fp32", False), (0.99999, "x-fp32", True)],
)
def test_the_gate_asks_more_of_float32(lite0: Model, weights: Weights, cosine: float, name: str, passes: bool) -> None:
    """.999 of a lower precision, .9999 where nothing should be rounded."""
    reference = TorchEngine(lite0, weights, reference=True)
    verdict = examine(Turned(reference, cosine, name=name), reference.embed, max_batch=4)
    assert verdict.passed is passes
    assert verdict.least == (LEAST_COSINE_FP32 if name.endswith("fp32") else LEAST_COSINE)
    assert verdict.cosine_min == pytest.approx(cosine, abs=2e-5)
    assert verdict.images_per_s > 0


def test_an_engine_that_gives_nan_fails(lite0: Model, weights: Weights) -> None:
    """NaN compares as nothing: it must not pass as not smaller."""

    class Nan(Turned):
        def embed(self, pixels: Pixels) -> Vectors:
            return np.full((len(pixels), self.info.dim), np.nan, np.float32)

    reference = TorchEngine(lite0, weights, reference=True)
    assert not examine(Nan(reference, 1.0), reference.embed, max_batch=4).passed


def test_an_engine_that_mixes_up_a_batch_fails(lite0: Model, weights: Weights) -> None:
    """Right one by one and wrong together: the gate sees both."""

    class Swapped(Turned):
        def embed(self, pixels: Pixels) -> Vectors:
            return self._inner.embed(pixels)[::-1]

    reference = TorchEngine(lite0, weights, reference=True)
    assert not examine(Swapped(reference, 1.0), reference.embed, max_batch=4).passed


def test_the_gate_pictures_differ_and_stay_the_same() -> None:
    """Twelve of the input's size, none twice, bit by bit the same at the next start."""
    pictures = gate_pictures(224)
    assert pictures.shape == (12, 224, 224, 3)
    assert len({one.tobytes() for one in pictures}) == 12
    np.testing.assert_array_equal(pictures, gate_pictures(224))


# ---- refusal and cache ---------------------------------------------------------------------------


def test_a_refused_engine_says_its_figure_and_stays_refused(lite0: Model, weights: Weights, tmp_path: Path) -> None:
    """One line: which, how far off, what is needed, what to set; the next start knows it without measuring."""
    reference = TorchEngine(lite0, weights, reference=True)
    built: list[int] = []

    def build() -> Engine:
        built.append(1)
        return Turned(reference, 0.99)

    for _ in range(2):
        with pytest.raises(ConfigError) as caught:
            open_engine("quick", lite0, weights, ModelCache(tmp_path), kinds={"quick": kind_of(build)})
        for part in ("quick", "turned-bf16", "0.9900", "0.999", "LOOKALIKE_MODEL_ENGINE=torch", str(tmp_path)):
            assert part in str(caught.value)
        assert "\n" not in str(caught.value)
    assert len(built) == 1


def test_a_verdict_is_kept_and_trusted(
    lite0: Model, weights: Weights, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The second start measures nothing; other weights or another library do."""
    reference = TorchEngine(lite0, weights, reference=True)
    kinds = {"quick": kind_of(lambda: Turned(reference, 0.9999))}
    first = open_engine("quick", lite0, weights, ModelCache(tmp_path), kinds=kinds)
    monkeypatch.setattr(engines, "examine", lambda *_a, **_k: pytest.fail("measured again"))
    assert open_engine("quick", lite0, weights, ModelCache(tmp_path), kinds=kinds).verdict == first.verdict
    with pytest.raises(pytest.fail.Exception):
        open_engine("quick", lite0, Weights(weights.path, "other"), ModelCache(tmp_path), kinds=kinds)
    monkeypatch.setattr(engines, "version", lambda _package: "99")
    with pytest.raises(pytest.fail.Exception):
        open_engine("quick", lite0, weights, ModelCache(tmp_path), kinds=kinds)


@pytest.mark.parametrize("damage", ["", "{", "[1]", '{"engine": "x"}'])
def test_a_damaged_verdict_is_measured_again(lite0: Model, weights: Weights, tmp_path: Path, damage: str) -> None:
    """A cut-off file is no reason not to start, and no pass either."""
    reference = TorchEngine(lite0, weights, reference=True)
    kinds = {"quick": kind_of(lambda: Turned(reference, 0.9999))}
    open_engine("quick", lite0, weights, ModelCache(tmp_path), kinds=kinds)
    [file] = (tmp_path / "gate").iterdir()
    file.write_text(damage)
    assert open_engine("quick", lite0, weights, ModelCache(tmp_path), kinds=kinds).verdict.passed
    assert json.loads(file.read_text())["engine"] == "turned-bf16"


def test_a_cache_that_cannot_be_written_costs_time_only(lite0: Model, weights: Weights, tmp_path: Path) -> None:
    """A read-only home must not stop a worker."""
    (tmp_path / "file").write_text("no folder")
    cache = ModelCache(tmp_path / "file" / "cache")
    assert open_engine("torch", lite0, weights, cache).verdict.passed


# ---- auto ----------------------------------------------------------------------------------------


def _verdict(engine: str, cosine: float, images_per_s: float) -> Verdict:
    return Verdict(engine, cosine, LEAST_COSINE, images_per_s, "2026-01-01T00:00:00+00:00")


def test_auto_takes_the_quickest_that_passes(
    lite0: Model, weights: Weights, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The quickest of all is refused, one cannot be built, one is not there: the quickest of the rest is it."""
    reference = TorchEngine(lite0, weights, reference=True)
    verdicts = {"slow": (1.0, 10.0), "quick": (0.9995, 50.0), "wrong": (0.9, 500.0)}

    def broken() -> Engine:
        raise ConfigError("cannot be built")

    def named(word: str) -> EngineKind:
        return kind_of(lambda: Turned(reference, 1.0, name=word))

    kinds = {word: named(word) for word in verdicts} | {
        "broken": kind_of(broken),
        "absent": EngineKind(lambda *_: broken(), ("no-such-package",), 4),
        "no-gpu": EngineKind(lambda *_: broken(), ("torch",), 4, needs=tmp_path / "no-device"),
    }
    monkeypatch.setattr(engines, "examine", lambda engine, *_a, **_k: _verdict(engine.name, *verdicts[engine.name]))
    opened = open_engine("auto", lite0, weights, ModelCache(tmp_path), kinds=kinds)
    assert opened.engine.name == "quick"


def test_auto_without_any_engine_is_a_config_error(lite0: Model, weights: Weights, tmp_path: Path) -> None:
    """It never falls back to one that failed."""
    reference = TorchEngine(lite0, weights, reference=True)
    kinds = {"wrong": kind_of(lambda: Turned(reference, 0.9))}
    with pytest.raises(ConfigError, match="no engine passes"):
        open_engine("auto", lite0, weights, ModelCache(tmp_path), kinds=kinds)


def test_what_auto_would_take_is_known_without_loading(lite0: Model, weights: Weights, tmp_path: Path) -> None:
    """From the kept verdicts: `doctor` and `status` ask."""
    cache = ModelCache(tmp_path)
    assert kept_quickest(lite0, weights, cache) is None
    for word, speed in (("torch", 50.0), ("openvino-fp32", 90.0)):
        name = engines.verdict_file(word, lite0, weights, ENGINES[word])
        cache.keep(name, _verdict(word, 1.0, speed).as_dict())
    assert kept_quickest(lite0, weights, cache) == "openvino-fp32"


def test_an_unknown_engine_names_those_that_are_known(lite0: Model, weights: Weights, tmp_path: Path) -> None:
    """And the setting."""
    with pytest.raises(ConfigError, match=r"LOOKALIKE_MODEL_ENGINE=tpu.*torch.*openvino.*auto"):
        open_engine("tpu", lite0, weights, ModelCache(tmp_path))


# ---- OpenVINO ------------------------------------------------------------------------------------


@pytest.mark.parametrize("word", ["openvino", "openvino-fp32"])
def test_openvino_passes_the_gate(lite0: Model, weights: Weights, tmp_path: Path, word: str) -> None:
    """In float32 to five digits; in bfloat16, where this processor has it, with its first layers in float32."""
    pytest.importorskip("openvino", reason="the openvino extra is not installed")
    opened = open_engine(word, lite0, weights, ModelCache(tmp_path))
    assert opened.verdict.passed
    vectors = opened.engine.embed(gate_pictures(224)[:7])  # 4 + 2 + 1
    alone = np.concatenate([opened.engine.embed(one[np.newaxis]) for one in gate_pictures(224)[:7]])
    assert float((vectors * alone).sum(axis=1).min()) > 0.9999
    np.testing.assert_allclose(np.linalg.norm(vectors, axis=1), 1, atol=1e-5)


def test_openvino_starts_from_its_export_without_torch(lite0: Model, weights: Weights, tmp_path: Path) -> None:
    """Exported once; the next process imports no torch, reports nothing over the network, and gives the same."""
    pytest.importorskip("openvino", reason="the openvino extra is not installed")
    cache = ModelCache(tmp_path)
    wanted = open_engine("openvino-fp32", lite0, weights, cache).engine.embed(gate_pictures(224)[:1])[0]
    code = f"""
import sys
from pathlib import Path
from embedder.models.cache import ModelCache
from embedder.models.engines import open_engine
from embedder.models.gate import gate_pictures
from embedder.models.registry import model
network = model("efficientnet_lite0")
opened = open_engine("openvino-fp32", network, network.find_weights(), ModelCache(Path({str(tmp_path)!r})))
assert "torch" not in sys.modules, "torch was imported"
print(*opened.engine.embed(gate_pictures(224)[:1])[0][:50].tolist())
"""
    ran = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=120, check=False)
    assert ran.returncode == 0, ran.stderr
    np.testing.assert_allclose([float(one) for one in ran.stdout.split()], wanted[:50], atol=1e-5)


def test_a_damaged_export_is_made_again(lite0: Model, weights: Weights, tmp_path: Path) -> None:
    """A disk that was full at the wrong moment costs seconds, not the start."""
    pytest.importorskip("openvino", reason="the openvino extra is not installed")
    open_engine("openvino-fp32", lite0, weights, ModelCache(tmp_path))
    [exported] = (tmp_path / "openvino").glob("*/network.xml")
    exported.write_text("<net")
    assert open_engine("openvino-fp32", lite0, weights, ModelCache(tmp_path)).verdict.passed
    assert exported.read_text().startswith("<?xml")


def test_openvino_that_is_not_installed_says_what_to_install(
    lite0: Model, weights: Weights, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Not a traceback of an import."""
    monkeypatch.setitem(sys.modules, "openvino", None)
    with pytest.raises(ConfigError, match=r"lookalike\[openvino\].*LOOKALIKE_MODEL_ENGINE=torch"):
        open_engine("openvino", lite0, weights, ModelCache(tmp_path))


# ---- the GPU, as far as it can be run without one ------------------------------------------------


def test_a_batch_that_does_not_fit_is_halved_and_stays_halved() -> None:
    """Every picture gets its row, in order; the memory that was given back is asked for no second time."""
    tried: list[int] = []
    freed: list[int] = []

    def run(pixels: Pixels) -> Vectors:
        tried.append(len(pixels))
        if len(pixels) > 10:
            raise torch.OutOfMemoryError("CUDA out of memory")
        return pixels.reshape(len(pixels), -1)[:, :1].astype(np.float32)

    halving = Halving(run, max_batch=64, free=lambda: freed.append(1))
    pixels = np.arange(100, dtype=np.float16).reshape(100, 1, 1, 1)
    np.testing.assert_array_equal(halving(pixels)[:, 0], np.arange(100))
    assert tried[:4] == [64, 32, 16, 8]
    assert halving.max_batch == 8
    assert len(freed) == 3
    tried.clear()
    halving(pixels)
    assert max(tried) == 8


def test_one_picture_that_does_not_fit_is_an_error() -> None:
    """There is nothing left to halve: it must not go round for ever."""

    def run(_pixels: Pixels) -> Vectors:
        raise torch.OutOfMemoryError("CUDA out of memory")

    with pytest.raises(torch.OutOfMemoryError):
        Halving(run, max_batch=4)(np.zeros((3, 1, 1, 1), np.float16))


@pytest.mark.skipif(torch.cuda.is_available(), reason="this machine has a GPU")
def test_without_a_gpu_the_cuda_engine_says_so(lite0: Model, weights: Weights) -> None:
    """One line with the setting."""
    with pytest.raises(ConfigError, match="LOOKALIKE_MODEL_ENGINE=torch"):
        CudaEngine(lite0, weights)
