"""The networks: what their vectors mean, and what happens when their weights are not to be had."""

from __future__ import annotations

import hashlib
import socket
import threading
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
import torch
from PIL import Image

from embedder.models.efficientnet_b0 import FILE_NAME
from embedder.models.protocol import Model, ModelInfo, Weights
from embedder.models.registry import MODELS, model
from embedder.models.torch_engine import TorchEngine
from embedder.models.weights import load_into, weights_at
from lookalike.local.processes import free_ports
from streams.errors import ConfigError
from tests.pictures import photo

Pixels = npt.NDArray[np.float16]


def _pixels(*pictures: Image.Image) -> Pixels:
    return np.stack([np.asarray(picture, np.float16) for picture in pictures])


def _square(seed: int) -> Image.Image:
    return photo(224, 224, seed=seed)


def _cosine(a: npt.NDArray[np.float32], b: npt.NDArray[np.float32]) -> float:
    return float(a @ b / (np.linalg.norm(a) * np.linalg.norm(b)))


@pytest.fixture(scope="module")
def lite0() -> TorchEngine:
    """The default model with its real weights, out of the package that carries them."""
    network = model("efficientnet_lite0")
    return TorchEngine(network, network.find_weights())


@pytest.fixture(scope="module")
def b0_weights(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A weights file of b0 from a fixed seed."""
    from torchvision.models import efficientnet_b0

    torch.manual_seed(7)
    path = tmp_path_factory.mktemp("weights") / "b0.pth"
    torch.save(efficientnet_b0(weights=None).state_dict(), path)
    return path


# ---- lite0, real weights -------------------------------------------------------------------------


def test_lite0_gives_rows_of_length_one(lite0: TorchEngine) -> None:
    """As many as pictures, of the stated dimension, and bit by bit the same again."""
    pixels = _pixels(_square(1), _square(2), _square(3))
    vectors = lite0.embed(pixels)
    assert vectors.shape == (3, lite0.info.dim)
    assert vectors.dtype == np.float32
    np.testing.assert_allclose(np.linalg.norm(vectors, axis=1), 1, atol=1e-5)
    np.testing.assert_array_equal(vectors, lite0.embed(pixels))


def test_lite0_sees_a_brightened_copy_as_near(lite0: TorchEngine) -> None:
    """Nearer than any other picture: these are trained weights, not random ones."""
    originals = [_square(seed) for seed in range(1, 5)]
    brighter = [picture.point(lambda value: min(255, value + 20)) for picture in originals]
    first, second = lite0.embed(_pixels(*originals)), lite0.embed(_pixels(*brighter))
    assert (first @ second.T).argmax(axis=1).tolist() == [0, 1, 2, 3]


def test_a_batch_is_its_pictures_one_by_one(lite0: TorchEngine) -> None:
    """No picture's vector depends on its neighbours in the batch."""
    pixels = _pixels(*(_square(seed) for seed in range(5)))
    alone = np.concatenate([lite0.embed(one[np.newaxis]) for one in pixels])
    np.testing.assert_allclose(lite0.embed(pixels), alone, atol=1e-4)


def test_a_vector_does_not_depend_on_how_its_pixels_lie_in_memory(lite0: TorchEngine) -> None:
    """A view of a larger array is read as the picture it shows, and left as it is."""
    wide = np.asarray(photo(448, 224, seed=4))
    view = wide[np.newaxis, :, ::2]
    before = view.copy()
    np.testing.assert_allclose(lite0.embed(view), lite0.embed(np.ascontiguousarray(view)), atol=1e-6)
    np.testing.assert_array_equal(view, before)


class _Seen:
    """A model whose network is the identity: what enters it comes out, flattened."""

    def __init__(self, genuine: Model) -> None:
        self._info = genuine.info

    @property
    def info(self) -> ModelInfo:
        return self._info

    def find_weights(self, override: Path | None = None, *, expected_sha256: str | None = None) -> Weights:
        return Weights(Path("none"), "")

    def load(self, weights: Weights) -> torch.nn.Module:
        return torch.nn.Flatten()


@pytest.mark.parametrize(
    ("name", "mean", "std"),
    [
        ("efficientnet_lite0", (127.0, 127.0, 127.0), (128.0, 128.0, 128.0)),
        ("efficientnet_b0", (0.485 * 255, 0.456 * 255, 0.406 * 255), (0.229 * 255, 0.224 * 255, 0.225 * 255)),
    ],
)
def test_pixels_enter_the_network_as_it_was_trained(name: str, mean: tuple[float, ...], std: tuple[float, ...]) -> None:
    """lite0: (v - 127) / 128, by its package's README; b0: torchvision's ImageNet statistics. Planes R, G, B."""
    pixels = np.random.default_rng(0).integers(0, 256, (1, 224, 224, 3)).astype(np.float16)
    seen = _Seen(model(name))
    entered = TorchEngine(seen, seen.find_weights()).embed(pixels)
    wanted = ((pixels.astype(np.float64) - mean) / std).transpose(0, 3, 1, 2).reshape(1, -1)
    np.testing.assert_allclose(entered * np.linalg.norm(wanted), wanted, atol=1e-4)


# ---- b0 as img2vec runs it -----------------------------------------------------------------------


@pytest.fixture
def img2vec(b0_weights: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    """img2vec_pytorch over the very weights; its own would be fetched."""
    from img2vec_pytorch import Img2Vec, img_to_vec
    from torchvision.models import efficientnet_b0

    def from_file(**_: object) -> torch.nn.Module:
        network: torch.nn.Module = efficientnet_b0(weights=None)
        network.load_state_dict(torch.load(b0_weights, weights_only=True))
        return network

    monkeypatch.setattr(img_to_vec, "efficientnet_b0", from_file)
    return Img2Vec(model="efficientnet_b0")


def test_b0_gives_what_img2vec_gives_for_a_list(img2vec: Any, b0_weights: Path) -> None:
    """For pictures that need no resize the vectors are the same, up to the length that img2vec leaves as it is."""
    network = model("efficientnet_b0")
    engine = TorchEngine(network, network.find_weights(b0_weights))
    pictures = [_square(seed) for seed in (1, 2)]
    ours, theirs = engine.embed(_pixels(*pictures)), img2vec.get_vec(pictures)
    for mine, other in zip(ours, theirs, strict=True):
        assert _cosine(mine, other) > 0.9999


def test_b0_is_not_what_img2vec_gives_for_a_single_picture(img2vec: Any, b0_weights: Path) -> None:
    """That call takes one corner of the feature map: the two kinds must never meet in one collection."""
    network = model("efficientnet_b0")
    ours = TorchEngine(network, network.find_weights(b0_weights)).embed(_pixels(_square(1)))[0]
    assert _cosine(ours, img2vec.get_vec(_square(1))) < 0.99


# ---- weights that are not there ------------------------------------------------------------------


@pytest.fixture
def empty_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """torch's cache is empty, and nobody listens where it would fetch from."""
    from torchvision.models import EfficientNet_B0_Weights

    [port] = free_ports(1)
    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    monkeypatch.setattr(EfficientNet_B0_Weights.DEFAULT.value, "url", f"http://127.0.0.1:{port}/{FILE_NAME}")
    return tmp_path / "hub" / "checkpoints"


def test_b0_without_its_weights_says_how_to_get_them(empty_cache: Path) -> None:
    """One line: the file, the folder it belongs into, the setting that names it, the model that needs none."""
    with pytest.raises(ConfigError) as caught:
        model("efficientnet_b0").find_weights()
    message = str(caught.value)
    for part in (FILE_NAME, str(empty_cache), "LOOKALIKE_MODEL_WEIGHTS", "efficientnet_lite0"):
        assert part in message
    assert "\n" not in message
    assert not list(empty_cache.glob("*"))


@pytest.mark.parametrize(
    "answer",
    [b"HTTP/1.0 200 OK\r\nContent-Length: 1000\r\n\r\nhalf", b"no HTTP at all\r\n\r\n", b""],
    ids=["half", "garbage", "nothing"],
)
def test_a_download_that_goes_wrong_is_a_config_error(
    empty_cache: Path, monkeypatch: pytest.MonkeyPatch, answer: bytes
) -> None:
    """And leaves no half file that would be taken for the weights at the next start."""
    from torchvision.models import EfficientNet_B0_Weights

    def serve() -> None:
        connection, _ = listening.accept()
        with connection:
            connection.recv(4096)
            connection.sendall(answer)

    with socket.create_server(("127.0.0.1", 0)) as listening:
        url = f"http://127.0.0.1:{listening.getsockname()[1]}/{FILE_NAME}"
        monkeypatch.setattr(EfficientNet_B0_Weights.DEFAULT.value, "url", url)
        server = threading.Thread(target=serve)
        server.start()
        with pytest.raises(ConfigError, match="LOOKALIKE_MODEL_WEIGHTS"):
            model("efficientnet_b0").find_weights()
        server.join(30)
    assert not list(empty_cache.glob("*"))


def test_b0_refuses_another_file_in_the_cache(empty_cache: Path) -> None:
    """torch checks what it fetches and never what it finds: here every file is checked."""
    empty_cache.mkdir(parents=True)
    (empty_cache / FILE_NAME).write_bytes(b"something else")
    with pytest.raises(ConfigError, match="7f5810bc… is wanted") as caught:
        model("efficientnet_b0").find_weights()
    assert str(empty_cache / FILE_NAME) in str(caught.value)


@pytest.mark.parametrize("name", MODELS)
@pytest.mark.parametrize("kind", ["missing", "folder"])
def test_weights_that_cannot_be_read_are_named(tmp_path: Path, name: str, kind: str) -> None:
    """The path that the operator set is in the line."""
    path = tmp_path if kind == "folder" else tmp_path / "missing.pth"
    with pytest.raises(ConfigError, match=str(path)):
        model(name).find_weights(path)


@pytest.mark.parametrize("name", MODELS)
@pytest.mark.parametrize("kind", ["text", "empty", "truncated", "other network"])
def test_a_file_that_does_not_fit_is_a_config_error(tmp_path: Path, b0_weights: Path, name: str, kind: str) -> None:
    """Not a traceback of torch: one line with the file and the setting."""
    other = model("efficientnet_lite0").find_weights().path if name == "efficientnet_b0" else b0_weights
    data = {"text": b"weights", "empty": b"", "truncated": other.read_bytes()[:5000], "other network": None}[kind]
    path = tmp_path / "weights.pth"
    path.write_bytes(other.read_bytes() if data is None else data)
    network = model(name)
    weights = network.find_weights(path)
    with pytest.raises(ConfigError, match="LOOKALIKE_MODEL_WEIGHTS") as caught:
        network.load(weights)
    assert str(path) in str(caught.value)
    assert "\n" not in str(caught.value)


def test_weights_are_known_by_their_bytes(tmp_path: Path) -> None:
    """The hash is of the file as it is now, also after it was replaced."""
    path = tmp_path / "weights.pth"
    for data in (b"one", b"another"):
        path.write_bytes(data)
        digest = hashlib.sha256(data).hexdigest()
        assert weights_at(path, expected_sha256=digest[:8]) == Weights(path, digest)


def test_lite0_has_the_weights_its_package_names() -> None:
    """The file's name carries the beginning of its hash."""
    weights = model("efficientnet_lite0").find_weights()
    assert weights.path.name == "efficientnet-lite0-57934424.pth"
    assert weights.sha256.startswith("57934424")


def test_an_unknown_model_is_a_config_error() -> None:
    """The line lists those that are known."""
    with pytest.raises(ConfigError) as caught:
        model("resnet")
    for part in ("resnet", *MODELS):
        assert part in str(caught.value)


@pytest.mark.parametrize("name", MODELS)
def test_a_model_carries_its_own_name(name: str) -> None:
    """The registry's word is the one that is recorded with every vector; and no network was loaded for it."""
    info = model(name).info
    assert info.model_id == name
    assert info.resample in ("bilinear", "bicubic")
    assert (info.dim, info.input_px) == (1280, 224)


def test_the_page_shows_a_model_that_works(tmp_path: Path) -> None:
    """The example of docs/models.md as it stands there, with random weights: found, loaded, embedded."""
    from torchvision.models import resnet18

    page = (Path(__file__).parents[2] / "docs" / "models.md").read_text()
    example = page.split("```python\n")[1].split("```")[0]
    names: dict[str, Any] = {
        "ModelInfo": ModelInfo,
        "Path": Path,
        "Weights": Weights,
        "load_into": load_into,
        "torch": torch,
        "weights_at": weights_at,
    }
    exec(compile(example, "docs/models.md", "exec", dont_inherit=False), names)
    torch.manual_seed(1)
    torch.save(resnet18(weights=None).state_dict(), tmp_path / "resnet18.pth")
    made: Model = names["ResNet18"]()
    vectors = TorchEngine(made, made.find_weights(tmp_path / "resnet18.pth")).embed(_pixels(_square(1), _square(2)))
    assert vectors.shape == (2, made.info.dim)
    np.testing.assert_allclose(np.linalg.norm(vectors, axis=1), 1, atol=1e-5)
    assert float(vectors[0] @ vectors[1]) < 0.9999
