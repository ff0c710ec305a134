"""Weights packed as GPTQ, AWQ and compressed-tensors pack them, bit by bit from their formulas. Knows no studio.

Slow and plain on purpose: a word is put together from one code after the other, so that what reads it is compared with
something that shares no code with it.
"""

import json
import shutil
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

Packed = tuple[dict[str, Tensor], Tensor]
"""A weight's tensors by the ends of their names, and the values that they stand for."""
AWQ_ORDER = (0, 2, 4, 6, 1, 3, 5, 7)


def in_words(codes: Tensor, bits: int) -> Tensor:
    """Return int32 [R, ceil(C·bits/32)] of codes [R, C], low bits first, one after the other."""
    rows = []
    for row in codes.tolist():
        stream = sum(code << (bits * place) for place, code in enumerate(row))
        count = -(-len(row) * bits // 32)
        rows.append([(stream >> (32 * word)) & 0xFFFFFFFF for word in range(count)])
    return torch.from_numpy(np.array(rows, np.uint32).view(np.int32))


@dataclass(frozen=True)
class Rounded:
    """A weight [N, K] rounded in groups: codes 0 … 2^b - 1 [N, K], zero points and fp16 scales [N, G], groups [K]."""

    codes: Tensor
    zeros: Tensor
    scales: Tensor
    groups: Tensor

    @property
    def values(self) -> Tensor:
        """(q - z) · s in fp32."""
        zeros, scales = self.zeros[:, self.groups].float(), self.scales[:, self.groups].float()
        return (self.codes.float() - zeros) * scales


def rounded(weight: Tensor, bits: int, group_size: int, symmetric: bool, order: Tensor | None = None) -> Rounded:
    """Return ``weight`` rounded to nearest, its channels taken in ``order`` where there is one."""
    width = weight.shape[1]
    size = width if group_size < 0 else group_size
    groups = torch.arange(width) // size
    if order is not None:
        groups = groups[order.argsort()]
    scales, zeros = [], []
    for group in range(-(-width // size)):
        part = weight[:, groups == group].float()
        low, high = part.amin(1).clamp(max=0), part.amax(1).clamp(min=0)
        if symmetric:
            high = part.abs().amax(1)
            low = -high
        scale = ((high - low) / (2**bits - 1)).clamp(min=1e-6).half()
        scales.append(scale)
        zeros.append(torch.full_like(low, 2 ** (bits - 1)) if symmetric else (-low / scale.float()).round())
    scale, zero = torch.stack(scales, 1), torch.stack(zeros, 1).clamp(0, 2**bits - 1)
    codes = (weight.float() / scale.float()[:, groups] + zero[:, groups]).round().clamp(0, 2**bits - 1)
    return Rounded(codes.int(), zero.int(), scale, groups)


@dataclass(frozen=True)
class Gptq:
    """A version of GPTQ."""

    bits: int = 4
    group_size: int = 32
    version: str = "gptq"
    symmetric: bool = True
    act_order: bool = False
    has_order: bool = True

    @property
    def config(self) -> dict[str, Any]:
        return {
            "quant_method": "gptq", "bits": self.bits, "group_size": self.group_size, "sym": self.symmetric,
            "desc_act": self.act_order, "checkpoint_format": self.version,
        }  # fmt: skip

    def pack(self, weight: Tensor, seed: int = 0) -> Packed:
        order = None
        if self.act_order:
            order = torch.randperm(weight.shape[1], generator=torch.Generator().manual_seed(seed))
        made = rounded(weight, self.bits, self.group_size, self.symmetric, order)
        zeros = made.zeros.T.contiguous()  # [G, N]
        words = in_words(zeros, self.bits)
        if self.version == "gptq":  # subtracted from whole words; of 3 bits from each
            ones = in_words(torch.ones_like(zeros), self.bits)
            words = words - ones if self.bits != 3 else in_words((zeros - 1) & 7, 3)
        tensors = {
            "qweight": in_words(made.codes, self.bits).T.contiguous(),  # down each column
            "qzeros": words,
            "scales": made.scales.T.contiguous(),
        }
        if self.has_order:
            tensors["g_idx"] = made.groups.int()
        return tensors, made.values


@dataclass(frozen=True)
class Awq:
    """AWQ's version ``gemm``."""

    group_size: int = 32

    @property
    def config(self) -> dict[str, Any]:
        return {
            "quant_method": "awq", "bits": 4, "group_size": self.group_size, "zero_point": True, "version": "gemm"
        }  # fmt: skip

    def pack(self, weight: Tensor, seed: int = 0) -> Packed:
        made = rounded(weight, 4, self.group_size, symmetric=False)
        place = torch.tensor([8 * word + each for word in range(len(weight) // 8) for each in AWQ_ORDER])
        words = {"qweight": made.codes.T, "qzeros": made.zeros.T}
        tensors = {name: in_words(codes[:, place], 4) for name, codes in words.items()}
        return {**tensors, "scales": made.scales.T.contiguous()}, made.values


@dataclass(frozen=True)
class CompressedTensors:
    """compressed-tensors' ``pack-quantized``; ``bits_of`` may give other bits to the modules with its words."""

    bits: int = 4
    group_size: int = 32
    symmetric: bool = True
    act_order: bool = False
    bits_of: Mapping[str, int] = field(default_factory=dict)

    @property
    def config(self) -> dict[str, Any]:
        groups = {self.bits: "Linear"} | {bits: f"re:.*{word}$" for word, bits in self.bits_of.items()}
        return {
            "quant_method": "compressed-tensors", "format": "pack-quantized", "quantization_status": "compressed",
            "ignore": ["lm_head"],
            "config_groups": {
                f"group_{i}": {
                    "targets": [target],
                    "weights": {
                        "num_bits": bits, "type": "int", "symmetric": self.symmetric, "dynamic": False,
                        "strategy": "channel" if self.group_size < 0 else "group",
                        "group_size": None if self.group_size < 0 else self.group_size,
                    },
                }
                for i, (bits, target) in enumerate(groups.items())
            },
        }  # fmt: skip

    def of(self, module: str) -> "CompressedTensors":
        bits = next((bits for word, bits in self.bits_of.items() if module.endswith(word)), self.bits)
        return CompressedTensors(bits, self.group_size, self.symmetric, self.act_order)

    def pack(self, weight: Tensor, seed: int = 0) -> Packed:
        order = None
        if self.act_order:
            order = torch.randperm(weight.shape[1], generator=torch.Generator().manual_seed(seed))
        made = rounded(weight, self.bits, self.group_size, self.symmetric, order)
        tensors = {
            "weight_packed": in_words(made.codes, self.bits),
            "weight_scale": made.scales,
            "weight_shape": torch.tensor(weight.shape),
        }
        if not self.symmetric:
            tensors["weight_zero_point"] = in_words(made.zeros.T, self.bits).T.contiguous()
        if self.act_order:
            tensors["weight_g_idx"] = made.groups.int()
        return tensors, made.values


Format = Gptq | Awq | CompressedTensors


def is_packed(name: str) -> bool:
    """Return whether these formats pack a tensor of a Llama: the projections within blocks."""
    return name.endswith("_proj.weight")


def packed_folder(
    plain: Path, into: Path, kind: Format, *, wanted: Callable[[str], bool] = is_packed, **config: Any
) -> dict[str, Tensor]:
    """Write ``plain``, a folder with one file of weights, into ``into`` with its projections packed; return the values
    that they stand for, by name. ``config`` changes what is said of them."""
    shutil.copytree(plain, into, dirs_exist_ok=True)
    tensors, values = load_file(plain / "model.safetensors"), {}
    for seed, name in enumerate([name for name in tensors if wanted(name)]):
        module = name.removesuffix(".weight")
        own = kind.of(module) if isinstance(kind, CompressedTensors) else kind
        parts, values[name] = own.pack(tensors.pop(name), seed)
        tensors |= {f"{module}.{end}": part for end, part in parts.items()}
    save_file({name: tensor.contiguous() for name, tensor in tensors.items()}, into / "model.safetensors")
    told = json.loads((plain / "config.json").read_text()) | {"quantization_config": kind.config | config}
    (into / "config.json").write_text(json.dumps(told))
    return values
