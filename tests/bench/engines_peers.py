"""What each engine's own quantizer makes of the dithered model, and what the studio makes, both run in that engine.

MLX: mlx-lm's plain quantizer and its AWQ, embedding at 8 bits in groups of 64 on both sides. ONNX Runtime: its
MatMulNBits quantizer on a graph with the fp32 weights, plain and HQQ, embedding and head at 16 bits on both sides.
OpenVINO: NNCF, embedding and head at its 8 bits on both sides. Activations stay in fp32 everywhere: weights are judged.
"""

import importlib.metadata
import time
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from studio import export as studio_export
from studio.checkpoint.checkpoint import Checkpoint
from studio.checkpoint.file_names import WEIGHTS
from studio.checkpoint.layers import Layer
from studio.compression.compress import compress
from studio.export import targets
from studio.planning.choice import Choice
from studio.planning.palettes import PALETTES
from studio.planning.plan import make_plan
from studio.quantization.methods import BEST, Method
from studio.quantization.scheme import Scheme
from tests.bench.quality_peers import linear, nncf_openvino
from tests.steps import finish

GROUP = 64
Predict = Callable[[Tensor], Tensor]
"""Ids int64 [T] -> logits, fp32 [T, V]."""


@dataclass(frozen=True)
class Made:
    """A model in its engine."""

    predict: Callable[[], Predict]
    bits: float
    """A weight of the blocks, a peer's scales and float zero points counted as fp16, which a model in fp16 has."""
    seconds: float
    """Of processors, from the model's files to the compressed ones."""
    version: str


Make = Callable[[Checkpoint, Tensor, Path], Made]
"""Checkpoint, calibration windows [W, T], an empty folder."""


def ours(to: str, words: dict[str, Any], ready: Callable[[Path], Predict]) -> Make:
    """The studio's ``best``, exported."""

    def make(checkpoint: Checkpoint, tokens: Tensor, folder: Path) -> Made:
        from studio import __version__

        began = time.process_time()
        out, bits = exported(checkpoint, tokens, folder, to, {"method": BEST, **words})
        return Made(partial(ready, out), bits, time.process_time() - began, __version__)

    return make


def exported(
    checkpoint: Checkpoint, tokens: Tensor, folder: Path, to: str, words: dict[str, Any]
) -> tuple[Path, float]:
    """Return the folder that a target made, and the bits of a weight of the blocks in it."""
    plan = make_plan(checkpoint.layers, Choice.of(**words))
    read = tokens if plan.choice.method.needs_inputs else None
    made = finish(compress(checkpoint, plan, folder / WEIGHTS, read))
    compressed = studio_export.write_folder(checkpoint, made, folder / "compressed")
    blocks = {layer.name for layer in linear(checkpoint)}
    taken = [a for a in plan.assignments if a.layer.name in blocks]
    bits = sum(8 * PALETTES[to].nbytes(a.layer, a.scheme) for a in taken) / sum(a.layer.numel for a in taken)
    out = finish(targets.export(targets.target_named(to), compressed, folder / "exported"))
    return out, bits


# MLX


def in_mlx(folder: Path) -> Predict:
    import mlx.core as mx
    from mlx_lm import load

    model, _ = load(str(folder))[:2]
    model.set_dtype(mx.float32)
    return partial(_mlx_logits, model)


def _mlx_logits(model: Any, ids: Tensor) -> Tensor:
    import mlx.core as mx

    return torch.from_numpy(np.array(model(mx.array(ids[None].numpy()))[0].astype(mx.float32)))


def mlx_plain(group: int, checkpoint: Checkpoint, _: Tensor, folder: Path) -> Made:
    """mlx-lm's own conversion: round to nearest, affine."""
    from mlx_lm import convert

    def settings(path: str, _module: Any) -> bool | dict[str, int]:
        return {"group_size": GROUP, "bits": 8} if "embed" in path else True

    began = time.process_time()
    convert(
        str(checkpoint.path), str(folder / "mlx"), quantize=True, q_group_size=group, q_bits=4, dtype="float32",
        quant_predicate=settings,
    )  # fmt: skip
    return Made(lambda: in_mlx(folder / "mlx"), 4 + 32 / group, time.process_time() - began, _version("mlx-lm"))


def mlx_awq(group: int, checkpoint: Checkpoint, tokens: Tensor, _: Path) -> Made:
    """mlx-lm's AWQ, on the same calibration windows, with its own grid of 20 scales and clips."""
    import mlx.core as mx
    from mlx_lm import load
    from mlx_lm.quant.awq import AWQ_MODEL_CONFIGS, awq_quantize

    began = time.process_time()
    model, _tokenizer = load(str(checkpoint.path))[:2]
    awq_quantize(
        model, mx.array(tokens.numpy()), AWQ_MODEL_CONFIGS["llama"], bits=4, group_size=group, embed_bits=8,
        embed_group_size=GROUP,
    )  # fmt: skip
    mx.eval(model.parameters())
    seconds = time.process_time() - began
    return Made(lambda: partial(_mlx_logits, model), 4 + 32 / group, seconds, _version("mlx-lm"))


# ONNX Runtime


def in_onnxruntime(folder: Path) -> Predict:
    """Return the predictions of a folder of ours, activations left at 32 bits."""
    from tests.engines.onnx_answers import exact

    return _session(exact(next((folder / "onnx").glob("model*.onnx"))))


def _session(file: Path) -> Predict:
    import onnxruntime

    session = onnxruntime.InferenceSession(str(file), providers=["CPUExecutionProvider"])
    past = {each.name: each.shape for each in session.get_inputs() if "past" in each.name}

    def predict(ids: Tensor) -> Tensor:
        row = ids[None].numpy()
        given = {"input_ids": row, "attention_mask": np.ones_like(row), "position_ids": np.arange(row.shape[1])[None]}
        empty = {name: np.zeros((1, shape[1], 0, shape[3]), np.float32) for name, shape in past.items()}
        return torch.from_numpy(session.run(["logits"], given | empty)[0][0])

    return predict


def onnx_own(is_hqq: bool, checkpoint: Checkpoint, tokens: Tensor, folder: Path) -> Made:
    """ONNX Runtime's quantizer, integer zero points, or HQQ's in floats."""
    from onnxruntime.quantization.matmul_nbits_quantizer import HQQWeightOnlyQuantConfig, MatMulNBitsQuantizer

    words = {"mode": "int8_asym", "method": Method.NEAREST.value, "pins": ["*=none"]}
    plain, _ = exported(checkpoint, tokens, folder, "onnx", words)
    model = with_fp32(checkpoint, plain / "onnx" / "model.onnx")
    began = time.process_time()
    how = HQQWeightOnlyQuantConfig(block_size=GROUP, bits=4) if is_hqq else None
    quantizer = MatMulNBitsQuantizer(
        model, bits=4, block_size=GROUP, is_symmetric=False, accuracy_level=1, algo_config=how
    )
    quantizer.process()
    seconds = time.process_time() - began
    file = folder / "theirs.onnx"
    quantizer.model.save_model_to_file(str(file), use_external_data_format=True)
    bits = 4 + 32 / GROUP if is_hqq else _bits(linear(checkpoint), "onnx", Scheme.parse(f"int4_asym-g{GROUP}"))
    return Made(partial(_session, file), bits, seconds, _version("onnxruntime"))


def _bits(layers: list[Layer], to: str, scheme: Scheme) -> float:
    """Return the bits of a weight in a target's file, what fills up the last byte of a row counted."""
    return sum(8 * PALETTES[to].nbytes(layer, scheme) for layer in layers) / sum(layer.numel for layer in layers)


def with_fp32(checkpoint: Checkpoint, file: Path) -> Any:
    """Return a graph of 16-bit weights with the blocks' in fp32 in their place, as a quantizer looks for them."""
    import onnx
    from onnx import numpy_helper

    model = onnx.load(file)
    made_by = {name: node for node in model.graph.node for name in node.output}
    layers = {layer.name: layer for layer in linear(checkpoint)}
    for number, node in enumerate(model.graph.node):
        node.name = node.name or f"{node.op_type}_{number}"
        source = node.input[1] if node.op_type == "MatMul" else ""
        while source in made_by:
            source = made_by[source].input[0]
        if source in layers:
            weight = checkpoint.read(layers[source]).float().T.contiguous().numpy()
            model.graph.initializer.append(numpy_helper.from_array(weight, f"{source}/fp32"))
            node.input[1] = f"{source}/fp32"
    return model


# OpenVINO


def in_openvino(folder: Path) -> Predict:
    import openvino

    from tests.engines.openvino_answers import EXACT, logits

    run = openvino.Core().compile_model(folder / "openvino_model.xml", "CPU", EXACT).create_infer_request()

    def predict(ids: Tensor) -> Tensor:
        run.reset_state()
        return torch.from_numpy(logits(run, ids.tolist(), 0))

    return predict


def nncf(options: dict[str, bool], checkpoint: Checkpoint, tokens: Tensor, folder: Path) -> Made:
    """NNCF on OpenVINO's graph of the fp32 model."""
    began = time.process_time()
    made = nncf_openvino(**options)(checkpoint, tokens, folder)

    def ready() -> Predict:
        predict = made.predict()
        return lambda ids: predict(ids[None])[0]

    return Made(ready, made.bits, time.process_time() - began, made.version)


def _version(package: str) -> str:
    return importlib.metadata.version(package)


AFFINE = {"mode": "int4_affine", "backup": "int8_affine"}
KEPT = {"mode": "int4_asym", "group_size": GROUP, "backup": "none"}
ROWS: dict[str, Make] = {
    "MLX, mlx-lm plain, group 64": partial(mlx_plain, 64),
    "MLX, mlx-lm AWQ, group 64": partial(mlx_awq, 64),
    "MLX, ours int4_affine-g64": ours("mlx", AFFINE | {"group_size": 64}, in_mlx),
    "ONNX Runtime, its own MatMulNBits, 64": partial(onnx_own, False),
    "ONNX Runtime, ours int4_asym-g64": ours("onnx", KEPT, in_onnxruntime),
    "ONNX Runtime, its own HQQ, 64": partial(onnx_own, True),
    "OpenVINO, NNCF plain": partial(nncf, {}),
    "OpenVINO, NNCF AWQ + scale estimation": partial(nncf, {"awq": True, "scale_estimation": True}),
    "OpenVINO, NNCF AWQ + GPTQ + scale estimation": partial(
        nncf, {"awq": True, "gptq": True, "scale_estimation": True}
    ),
    "OpenVINO, ours int4_asym-g64": ours("openvino", KEPT | {"backup": "int8_asym"}, in_openvino),
}
"""By name, the engine first."""
PAIRS = (
    ("MLX, ours int4_affine-g64", ("MLX, mlx-lm plain, group 64", "MLX, mlx-lm AWQ, group 64")),
    ("ONNX Runtime, ours int4_asym-g64", ("ONNX Runtime, its own MatMulNBits, 64", "ONNX Runtime, its own HQQ, 64")),
    (
        "OpenVINO, ours int4_asym-g64",
        (
            "OpenVINO, NNCF plain",
            "OpenVINO, NNCF AWQ + scale estimation",
            "OpenVINO, NNCF AWQ + GPTQ + scale estimation",
        ),
    ),
)
"""Ours, and what is compared with it: no more bits a weight than theirs."""
