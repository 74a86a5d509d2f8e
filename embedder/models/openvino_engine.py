"""OpenVINO on the CPU: the same network, exported once, in bfloat16 where the processor has it.

The export holds the normalisation too, so pixels go in as they are. It is kept by model, weights and
OpenVINO's version; with it a worker needs no torch.

In bfloat16 the first layers stay in float32: they see the picture's fine detail as small differences of large
values, which 8 bits of mantissa round away. With them in bfloat16 the cosine to the reference fell to .993 on
smooth photographs; without, it stays above .999, and costs 3 % (docs/performance.md).
"""

from __future__ import annotations

import os
import shutil
import sys
import warnings
from collections.abc import Sequence
from importlib.metadata import version
from itertools import pairwise
from typing import Any

import numpy as np
import numpy.typing as npt

from embedder.models.cache import ModelCache
from embedder.models.protocol import Model, ModelInfo, Pixels, Weights
from embedder.models.vectors import normalise
from streams.errors import ConfigError

BATCHES = (4, 2, 1)
"""A program for each: one for all sizes is a tenth slower (docs/performance.md)."""
INPUT = "f16"
"""Of the export: another one is exported anew."""
FP32_DOWN_TO = 4
"""Layers whose maps have at least a quarter of the picture's side stay in float32."""


class OpenVinoEngine:
    """One thread, one stream: a worker is a process a core."""

    def __init__(self, model: Model, weights: Weights, *, cache: ModelCache, fp32: bool = False) -> None:
        """`fp32` also where bfloat16 would be quicker. Exports the network where the cache has none: seconds.

        Raises:
            ConfigError: openvino is not installed, or cannot run the network.
        """
        try:
            import openvino
        except ImportError as exc:
            raise ConfigError(
                "the engine openvino is not installed: install lookalike[openvino], or set LOOKALIKE_MODEL_ENGINE=torch"
            ) from exc
        self._info = model.info
        core = openvino.Core()
        try:
            has_bf16 = "BF16" in core.get_property("CPU", "OPTIMIZATION_CAPABILITIES")
            precision = "bf16" if has_bf16 and not fp32 else "f32"
            exported = _exported(core, model, weights, cache)
            self._programs = {n: _Program(core, exported, n, self._info.input_px, precision) for n in BATCHES}
        except RuntimeError as exc:
            line = str(exc).strip().splitlines()[-1][:300]
            raise ConfigError(f"OpenVINO cannot run {self._info.model_id}: {line}; use the engine torch") from exc
        self._name = "openvino-cpu-bf16" if precision == "bf16" else "openvino-cpu-fp32"

    @property
    def name(self) -> str:
        return self._name

    @property
    def info(self) -> ModelInfo:
        return self._info

    def embed(self, pixels: Pixels) -> npt.NDArray[np.float32]:
        found = np.empty((len(pixels), self._info.dim), np.float32)
        at = 0
        while at < len(pixels):
            size = next(n for n in BATCHES if n <= len(pixels) - at)
            part = np.ascontiguousarray(pixels[at : at + size])
            found[at : at + size] = self._programs[size](part)
            at += size
        return normalise(found)


class _Program:
    """The network compiled for one batch size: one request, or two after each other that share a tensor."""

    def __init__(self, core: Any, exported: Any, batch: int, side_px: int, precision: str) -> None:
        network = exported.clone()
        network.reshape([batch, side_px, side_px, 3])
        parts = [(network, precision)]
        if precision != "f32":
            front, back = split_at_resolution(network, side_px // FP32_DOWN_TO)
            parts = [(front, "f32"), (back, precision)]
        self._requests = [_compile(core, part, one) for part, one in parts]
        for before, after in pairwise(self._requests):
            after.set_input_tensor(before.get_output_tensor())

    def __call__(self, pixels: Pixels) -> npt.NDArray[np.float32]:
        """The rows, in memory that the next call overwrites."""
        first, *others = self._requests
        first.infer({0: pixels}, share_inputs=True)
        for request in others:
            request.infer()
        rows: npt.NDArray[np.float32] = self._requests[-1].get_output_tensor().data
        return rows


def _compile(core: Any, part: Any, precision: str) -> Any:
    hints = {
        "INFERENCE_PRECISION_HINT": precision,
        "INFERENCE_NUM_THREADS": 1,
        "NUM_STREAMS": 1,
        "PERFORMANCE_HINT": "LATENCY",
        "ENABLE_CPU_PINNING": False,  # two workers would be pinned to the same core
    }
    return core.compile_model(part, "CPU", hints).create_infer_request()


def split_at_resolution(network: Any, side_px: int) -> tuple[Any, Any]:
    """`network` in two, at the last place where one feature map of at least `side_px` is all that goes on.

    `network` itself is used up. Raises RuntimeError where there is no such place.
    """
    import openvino

    cut = _last_cut(network.get_ordered_ops(), side_px)
    front = openvino.Model([cut], network.get_parameters(), "front").clone()
    entering = openvino.opset13.parameter(cut.get_shape(), cut.get_element_type())
    for consumer in cut.get_target_inputs():
        consumer.replace_source_output(entering.output(0))
    return front, openvino.Model(network.get_results(), [entering], "back")


def _last_cut(ops: Sequence[Any], side_px: int) -> Any:
    """The tensor to cut at: everything after it depends on what is before through it alone."""
    constant: set[str] = set()
    open_: dict[tuple[str, int], tuple[Any, int]] = {}  # tensors made so far → how many uses are still to come
    found = None
    for op in ops:
        name = op.get_friendly_name()
        sources = [one.get_source_output() for one in op.inputs()]
        if op.get_type_name() != "Parameter" and all(_key(one)[0] in constant for one in sources):
            constant.add(name)
            continue
        for key in (_key(one) for one in sources if _key(one)[0] not in constant):
            tensor, uses = open_.pop(key)
            if uses > 1:
                open_[key] = (tensor, uses - 1)
        for tensor in op.outputs():
            open_[_key(tensor)] = (tensor, len(tensor.get_target_inputs()))
        if len(open_) == 1:
            tensor = next(iter(open_.values()))[0]
            shape = list(tensor.get_shape())
            if len(shape) == 4 and shape[1] > 3 and min(shape[2:]) >= side_px and op.get_type_name() != "Parameter":
                found = tensor
    if found is None:
        raise RuntimeError("the network has no place to change its precision: use the engine openvino-fp32")
    return found


def _key(tensor: Any) -> tuple[str, int]:
    return tensor.get_node().get_friendly_name(), tensor.get_index()


def _exported(core: Any, model: Model, weights: Weights, cache: ModelCache) -> Any:
    """The network as OpenVINO's, from the cache or made anew."""
    name = f"openvino/{model.info.model_id}-{weights.sha256[:16]}-{version('openvino')}-{INPUT}"
    kept = cache.folder / name / "network.xml"
    if kept.exists():
        try:
            return core.read_model(kept)
        except RuntimeError:  # cut off by a full disk: made again
            shutil.rmtree(kept.parent, ignore_errors=True)
    made = _export(model, weights)
    _keep(made, cache, name)
    return made


def _keep(made: Any, cache: ModelCache, name: str) -> None:
    import openvino

    folder = cache.new_folder(name)
    if folder is None:
        return
    openvino.save_model(made, folder / "network.xml", compress_to_fp16=False)
    try:
        os.rename(folder, cache.folder / name)
    except OSError:  # another process was quicker
        shutil.rmtree(folder, ignore_errors=True)


def _export(model: Model, weights: Weights) -> Any:
    import torch

    # convert_model reports its use over the network where this package is: with None it falls back to a stub
    sys.modules.setdefault("openvino_telemetry", None)  # type: ignore[arg-type]
    import openvino
    from openvino.preprocess import PrePostProcessor

    info = model.info
    example = torch.zeros(1, 3, info.input_px, info.input_px)
    with torch.inference_mode(), warnings.catch_warnings():
        warnings.simplefilter("ignore")  # OpenVINO traces with what torch calls deprecated
        made = openvino.convert_model(
            model.load(weights), example_input=example, input=[-1, 3, info.input_px, info.input_px]
        )
    steps = PrePostProcessor(made)
    steps.input().tensor().set_element_type(openvino.Type.f16).set_layout(openvino.Layout("NHWC"))
    steps.input().model().set_layout(openvino.Layout("NCHW"))
    steps.input().preprocess().convert_element_type(openvino.Type.f32).mean([255 * one for one in info.mean]).scale(
        [255 * one for one in info.std]
    )
    return steps.build()
