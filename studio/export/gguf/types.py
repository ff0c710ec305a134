"""Which of ggml's types a scheme is, and its bytes there. Knows no files and no names of tensors."""

from dataclasses import dataclass

import gguf
import torch
from torch import Tensor

from studio.export.gguf.file import Slot
from studio.planning.plan import Assignment
from studio.quantization.ggml.blocks import Blocks
from studio.quantization.packing import PackedTensor, unpack
from studio.quantization.scheme import Mode, Scheme

SAME = {"int4_sym-g32": "q4_0", "int5_sym-g32": "q5_0"}
"""Schemes of ours that are one of ggml's, number for number: the same codes under the same fp16 scales."""
KEPT = {torch.float16: gguf.GGMLQuantizationType.F16, torch.bfloat16: gguf.GGMLQuantizationType.BF16}


@dataclass(frozen=True)
class Typed:
    """A tensor's type in the file, and the mode whose blocks it has; None where it is kept."""

    kind: gguf.GGMLQuantizationType
    mode: Mode | None = None


def mode_of(scheme: Scheme) -> Mode | None:
    """Return the mode in blocks that holds a scheme without loss, None where there is none."""
    if scheme.mode.is_in_blocks:
        return scheme.mode
    return Mode(SAME[str(scheme)]) if str(scheme) in SAME else None


def typed(assignment: Assignment, kept: torch.dtype) -> Typed:
    """Return the type of a tensor: norms and biases are F32 there. Raises ValueError for a scheme without one."""
    if assignment.scheme is None:
        is_matrix = len(assignment.layer.shape) > 1
        return Typed(KEPT.get(kept, gguf.GGMLQuantizationType.F32) if is_matrix else gguf.GGMLQuantizationType.F32)
    mode = mode_of(assignment.scheme)
    if mode is None:
        raise ValueError(f"no type of GGUF is {assignment.scheme}")
    return Typed(gguf.GGMLQuantizationType[mode.value.upper()], mode)


def slot(assignment: Assignment, kept: torch.dtype) -> Slot:
    """Return what a tensor takes in the file."""
    return Slot(typed(assignment, kept).kind, assignment.layer.shape)


def block_bytes(packed: PackedTensor) -> Tensor:
    """Return a packed weight in blocks, uint8 [N, bytes of a row]; no number changes."""
    if packed.scheme.mode.is_in_blocks:
        return packed.codes
    mode = mode_of(packed.scheme)
    if mode is None:
        raise ValueError(f"no type of GGUF is {packed.scheme}")
    rounded = unpack(packed)
    return mode.block_format.pack(Blocks(rounded.codes, rounded.scale))


def kept_bytes(tensor: Tensor, kind: gguf.GGMLQuantizationType) -> Tensor:
    """Return a kept tensor's bytes in the dtype of the file, uint8."""
    dtypes = {value: key for key, value in KEPT.items()}
    return tensor.to(dtypes.get(kind, torch.float32)).contiguous().view(torch.uint8).flatten()
