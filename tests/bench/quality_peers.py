"""What others' packages make of the dithered model: NNCF, llama.cpp, HQQ and AutoRound, with their own numbers.

Each peer gets the same weights and the same calibration windows, and answers with what predicts logits from its own
packed result: NNCF's model itself, run in fp32; of the others the weights as their own code dequantizes them.
"""

import ctypes
import importlib.metadata
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from studio.checkpoint.checkpoint import Checkpoint
from studio.checkpoint.layers import Kind, Layer
from studio.checkpoint.open_model import builtin_file
from studio.quantization.packing import pack
from studio.quantization.rounding.nearest import round_to_nearest
from studio.quantization.scheme import Scheme
from studio.runtime.block_model import BlockModel
from tests.bench.decode_models import gguf_name
from tests.steps import finish

Predict = Callable[[Tensor], Tensor]
"""Ids int64 [B, T] -> logits [B, T, V]."""


@dataclass(frozen=True)
class Made:
    """A peer's result."""

    predict: Callable[[], Predict]
    """Makes what predicts, outside the time."""
    bits: float
    """A weight of the blocks, scales and zero points counted."""
    seconds: float
    """From the model in memory to the packed result, calibration included."""
    version: str


@dataclass(frozen=True)
class Peer:
    """A row of the table."""

    layout: str
    target: str
    make: Callable[[Checkpoint, Tensor, Path], Made]
    """Checkpoint, calibration windows [W, T], an empty folder."""
    windows: int = 16
    """How many of the calibration part it reads: others read 16, and so do ours but where a method asks for more."""


def linear(checkpoint: Checkpoint) -> list[Layer]:
    """Return the weights of the blocks."""
    return [layer for layer in checkpoint.layers if layer.kind is Kind.LINEAR]


def predictor(checkpoint: Checkpoint, weights: Mapping[str, Tensor]) -> Predict:
    """Return the checkpoint's fp32 predictions with these weights; an embedding that is not among them is our INT8."""

    def stored(layer: Layer, original: Tensor) -> Tensor:
        if layer.name in weights:
            return weights[layer.name].float()
        if layer.kind is not Kind.EMBEDDING:
            return original
        scheme = Scheme.parse("int8_asym")
        return pack(round_to_nearest(original.float(), scheme), scheme).dequantize()

    model = BlockModel(checkpoint, torch.float32, transform=stored)
    head = next(layer for layer in checkpoint.layers if layer.kind is Kind.EMBEDDING)  # which is the head as well
    table = stored(head, checkpoint.read(head).float())
    return lambda ids: finish(model.run(ids)) @ table.T


def powers(checkpoint: Checkpoint, tokens: Tensor) -> dict[str, Tensor]:
    """Return E[x^2] [K] of each weight's inputs in the fp32 original, by the weight's name: what an imatrix holds."""
    model = BlockModel(checkpoint, torch.float32)
    found: dict[str, Tensor] = {}

    def hear(name: str, given: tuple[Tensor]) -> None:
        found[name] = given[0].reshape(-1, given[0].shape[-1]).square().mean(0)

    for layer in linear(checkpoint):
        module = model.model.get_submodule(layer.name.removesuffix(".weight"))
        module.register_forward_pre_hook(lambda _, given, name=layer.name: hear(name, given))
    finish(model.run(tokens))
    return found


# --- NNCF ---------------------------------------------------------------------------------------------------------


def nncf_torch(**options: bool) -> Callable[[Checkpoint, Tensor, Path], Made]:
    """NNCF's torch backend on transformers' model."""

    def make(checkpoint: Checkpoint, tokens: Tensor, folder: Path) -> Made:
        from tests.parity.nncf_side import listening, nncf

        model = _transformers(checkpoint)
        began = time.perf_counter()
        items = [{"input_ids": row[None], "attention_mask": torch.ones_like(row[None])} for row in tokens]
        with listening():
            done = nncf.compress_weights(
                model,
                mode=nncf.CompressWeightsMode.INT4_ASYM,
                group_size=64,
                ratio=1.0,
                dataset=nncf.Dataset(items),
                subset_size=len(items),
                **(options or {"sensitivity_metric": nncf.SensitivityMetric.WEIGHT_QUANTIZATION_ERROR}),
            )
        seconds = time.perf_counter() - began

        @torch.no_grad()
        def predict(ids: Tensor) -> Tensor:
            return done(input_ids=ids, attention_mask=torch.ones_like(ids)).logits  # type: ignore[no-any-return]

        return Made(lambda: predict, 4 + 20 / 64, seconds, nncf.__version__)

    return make


def nncf_openvino(**options: bool) -> Callable[[Checkpoint, Tensor, Path], Made]:
    """NNCF's OpenVINO backend, the only one with GPTQ; what converts the model is not in its time."""

    def make(checkpoint: Checkpoint, tokens: Tensor, folder: Path) -> Made:
        from tests.parity.nncf_side import listening, nncf, ov

        model = _transformers(checkpoint)

        class Logits(torch.nn.Module):
            def __init__(self) -> None:
                super().__init__()
                self.model = model

            def forward(self, input_ids: Tensor, attention_mask: Tensor) -> Tensor:
                return self.model(input_ids=input_ids, attention_mask=attention_mask).logits  # type: ignore[no-any-return]

        given = tokens[:1, :32]
        with torch.no_grad():
            converted = ov.convert_model(
                Logits().eval(),
                example_input={"input_ids": given, "attention_mask": torch.ones_like(given)},
            )
        began = time.perf_counter()
        items = [{"input_ids": row[None].numpy(), "attention_mask": np.ones((1, len(row)), np.int64)} for row in tokens]
        with listening():
            done = nncf.compress_weights(
                converted,
                mode=nncf.CompressWeightsMode.INT4_ASYM,
                group_size=64,
                ratio=1.0,
                dataset=nncf.Dataset(items),
                subset_size=len(items),
                **options,
            )
        seconds = time.perf_counter() - began

        def ready() -> Predict:
            # Activations stay in fp32: what is judged is the weights.
            how = {"INFERENCE_PRECISION_HINT": "f32", "DYNAMIC_QUANTIZATION_GROUP_SIZE": "0"}
            compiled = ov.Core().compile_model(done, "CPU", how)
            return lambda ids: torch.from_numpy(
                compiled({"input_ids": ids.numpy(), "attention_mask": np.ones(ids.shape, np.int64)})[0].copy()
            )

        bits = 4 + 20 / 64 + (lora_bits(checkpoint) if options.get("lora_correction") else 0)
        return Made(ready, bits, seconds, nncf.__version__)

    return make


LORA_RANK = 8
"""NNCF's default; its adapters are at 8 bits, one scale and zero point a row."""


def lora_bits(checkpoint: Checkpoint) -> float:
    """Return what the adapters [R, K] and [N, R] add to a weight of the blocks, in bits."""
    layers = linear(checkpoint)
    added = sum(LORA_RANK * 8 * sum(layer.matrix) + 24 * (LORA_RANK + layer.matrix[0]) for layer in layers)
    return added / sum(layer.numel for layer in layers)


def _transformers(checkpoint: Checkpoint) -> Any:
    from transformers import AutoModelForCausalLM

    model = AutoModelForCausalLM.from_pretrained(checkpoint.path, dtype=torch.float32, attn_implementation="eager")
    model.config.use_cache = False
    return model.eval()


# --- llama.cpp ----------------------------------------------------------------------------------------------------

Q4_0, Q4_K_M = 2, 15
"""llama.cpp's numbers for the types of a file."""
Q8_0 = 8
"""Its number for the type of a tensor."""


def llama_cpp(kind: int, imatrix: bool) -> Callable[[Checkpoint, Tensor, Path], Made]:
    """llama.cpp's own quantizer, embedding at Q8_0, from an F32 file; with the calibration's E[x^2] as an imatrix."""

    def make(checkpoint: Checkpoint, tokens: Tensor, folder: Path) -> Made:
        import gguf
        import llama_cpp

        source, file = folder / "f32.gguf", folder / "packed.gguf"
        _write_gguf(checkpoint, source)
        silent = llama_cpp.llama_log_callback(lambda *_: None)
        llama_cpp.llama_log_set(silent, None)
        began = time.perf_counter()
        how = llama_cpp.llama_model_quantize_default_params()
        how.ftype, how.nthread, how.token_embedding_type = kind, 2, Q8_0
        if imatrix:
            found = {gguf_name(name): power for name, power in powers(checkpoint, tokens).items()}
            data = (llama_cpp.llama_model_imatrix_data * (len(found) + 1))()  # the last, without a name, ends it
            for entry, (name, power) in zip(data, found.items(), strict=False):
                entry.name, entry.size = name.encode(), len(power)
                entry.data = ctypes.cast(power.data_ptr(), ctypes.POINTER(ctypes.c_float))
            how.imatrix = data
        if llama_cpp.llama_model_quantize(bytes(source), bytes(file), ctypes.byref(how)):
            raise SystemExit("llama.cpp could not quantize")
        seconds = time.perf_counter() - began
        source.unlink()
        stored = {tensor.name: tensor for tensor in gguf.GGUFReader(file).tensors}
        weights = {}
        for layer in checkpoint.layers:
            if layer.kind in (Kind.LINEAR, Kind.EMBEDDING):
                tensor = stored[gguf_name(layer.name)]
                numbers = gguf.quants.dequantize(tensor.data, tensor.tensor_type).reshape(layer.shape)
                weights[layer.name] = _unpaired(checkpoint, layer.name, torch.from_numpy(numbers.astype(np.float32)))
        blocks = linear(checkpoint)
        nbytes = sum(stored[gguf_name(layer.name)].n_bytes for layer in blocks)
        bits = 8 * int(nbytes) / sum(layer.numel for layer in blocks)
        version = importlib.metadata.version("llama-cpp-python")
        return Made(lambda: predictor(checkpoint, weights), bits, seconds, version)

    return make


def _write_gguf(checkpoint: Checkpoint, file: Path) -> None:
    """Write the weights in fp32 beside the built-in file's own metadata."""
    import gguf

    builtin = builtin_file()
    assert builtin is not None
    reader = gguf.GGUFReader(builtin)
    writer = gguf.GGUFWriter(file, "llama")
    for name, field in reader.fields.items():
        if not name.startswith("GGUF.") and name not in ("general.architecture", "general.file_type"):
            kind = field.types[0]
            inner = field.types[-1] if kind == gguf.GGUFValueType.ARRAY else None
            writer.add_key_value(name, field.contents(), kind, sub_type=inner)
    for layer in checkpoint.layers:
        writer.add_tensor(
            gguf_name(layer.name), _paired(checkpoint, layer.name, checkpoint.read(layer).float()).numpy()
        )
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


def _paired(checkpoint: Checkpoint, name: str, weight: Tensor) -> Tensor:
    """Put the rows of q and k as ggml has them: the two halves of a rotated pair side by side."""
    heads = _heads(checkpoint, name)
    return weight if heads is None else weight.unflatten(0, (heads, 2, -1)).transpose(1, 2).reshape(weight.shape)


def _unpaired(checkpoint: Checkpoint, name: str, weight: Tensor) -> Tensor:
    heads = _heads(checkpoint, name)
    return weight if heads is None else weight.unflatten(0, (heads, -1, 2)).transpose(1, 2).reshape(weight.shape)


def _heads(checkpoint: Checkpoint, name: str) -> int | None:
    from studio.checkpoint.checkpoint import read_json

    config = read_json(checkpoint.path / "config.json")
    keys = {"q_proj": "num_attention_heads", "k_proj": "num_key_value_heads"}
    key = keys.get(name.split(".")[-2])
    return None if key is None else int(config[key])


# --- HQQ ----------------------------------------------------------------------------------------------------------


def hqq(group: int) -> Callable[[Checkpoint, Tensor, Path], Made]:
    """HQQ's quantizer, which looks at the weights alone; scale and zero in fp16."""

    def make(checkpoint: Checkpoint, tokens: Tensor, folder: Path) -> Made:
        from hqq.core.quantize import Quantizer

        weights, seconds = {}, 0.0
        for layer in linear(checkpoint):
            weight = checkpoint.read(layer).float()
            began = time.perf_counter()
            codes, meta = Quantizer.quantize(
                weight, nbits=4, group_size=group, axis=1, device="cpu", compute_dtype=torch.float32
            )
            seconds += time.perf_counter() - began
            meta |= {"scale": meta["scale"].half().float(), "zero": meta["zero"].half().float()}
            weights[layer.name] = Quantizer.dequantize(codes, {**meta, "compute_dtype": torch.float32})
        version = importlib.metadata.version("hqq")
        return Made(lambda: predictor(checkpoint, weights), 4 + 32 / group, seconds, version)

    return make


# --- AutoRound ----------------------------------------------------------------------------------------------------


def auto_round(checkpoint: Checkpoint, tokens: Tensor, folder: Path) -> Made:
    """AutoRound's tuned rounding by its own light recipe, 50 steps a block: its 200 take more than an hour on a CPU."""
    from auto_round import AutoRound
    from transformers import AutoTokenizer

    model = _transformers(checkpoint)
    began = time.perf_counter()
    tuned = AutoRound(
        model,
        tokenizer=AutoTokenizer.from_pretrained(checkpoint.path),
        scheme="W4A16",
        group_size=64,
        sym=False,
        iters=50,
        lr=5e-3,
        dataset=[row[None] for row in tokens],
        nsamples=len(tokens),
        seqlen=tokens.shape[1],
        device_map="cuda" if torch.cuda.is_available() else "cpu",
    )
    done, _ = tuned.quantize()
    seconds = time.perf_counter() - began
    weights = {layer.name: done.get_parameter(layer.name).detach().cpu().float() for layer in linear(checkpoint)}
    version = importlib.metadata.version("auto-round")
    return Made(lambda: predictor(checkpoint, weights), 4 + 20 / 64, seconds, version)


OPENVINO = "OpenVINO"
PEERS = {
    "NNCF plain": Peer("int4_asym 64", OPENVINO, nncf_torch()),
    "NNCF scale estimation": Peer("int4_asym 64", OPENVINO, nncf_torch(scale_estimation=True)),
    "NNCF AWQ + scale estimation": Peer("int4_asym 64", OPENVINO, nncf_torch(awq=True, scale_estimation=True)),
    "NNCF GPTQ": Peer("int4_asym 64", OPENVINO, nncf_openvino(gptq=True)),
    "NNCF AWQ + scale estimation + LoRA": Peer(
        "int4_asym 64, adapters of rank 8",
        OPENVINO,
        nncf_openvino(awq=True, scale_estimation=True, lora_correction=True),
    ),
    "NNCF AWQ + GPTQ + scale estimation": Peer(
        "int4_asym 64", OPENVINO, nncf_openvino(awq=True, gptq=True, scale_estimation=True)
    ),
    "llama.cpp Q4_0": Peer("Q4_0", "llama.cpp", llama_cpp(Q4_0, False)),
    "llama.cpp Q4_0 + imatrix": Peer("Q4_0", "llama.cpp", llama_cpp(Q4_0, True)),
    "llama.cpp Q4_K_M": Peer("Q4_K, Q5_0 where 576 is no multiple of 256", "llama.cpp", llama_cpp(Q4_K_M, False)),
    "llama.cpp Q4_K_M + imatrix": Peer(
        "Q4_K, Q5_0 where 576 is no multiple of 256", "llama.cpp", llama_cpp(Q4_K_M, True)
    ),
    "HQQ 64": Peer("4 bits, fp16 zero, 64", "HQQ", hqq(64)),
    "HQQ 96": Peer("4 bits, fp16 zero, 96", "HQQ", hqq(96)),
    "AutoRound light": Peer("int4_asym 64", "vLLM, transformers", auto_round),
}
