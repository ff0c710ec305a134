"""Which of ggml's types a scheme is, and its bytes there. Knows no files and no names of tensors."""

import gguf
import torch
from torch import Tensor

from studio.export.gguf.file import Slot
from studio.planning.plan import Assignment
from studio.quantization.ggml.blocks import Blocks
from studio.quantization.packing import PackedTensor, unpack
from studio.quantization.scheme import Mode, Scheme

SAME = {"int4_sym-g32": "q4_0", "int5_sym-g32": "q5_0", "int4_affine-g32": "q4_1", "int5_affine-g32": "q5_1"}
"""Schemes of ours that are one of ggml's, number for number: the same codes under the same fp16 scales and offsets."""
KEPT = {torch.float16: gguf.GGMLQuantizationType.F16, torch.bfloat16: gguf.GGMLQuantizationType.BF16}


def mode_of(scheme: Scheme) -> Mode | None:
    """Return the mode in blocks that holds a scheme without loss, None where there is none."""
    if scheme.mode.is_in_blocks:
        return scheme.mode
    return Mode(SAME[str(scheme)]) if str(scheme) in SAME else None


def slot(assignment: Assignment, kept: torch.dtype) -> Slot:
    """Return what a tensor takes in the file: norms and biases are F32 there, other ``kept`` ones stay as they are.

    Raises ValueError for a scheme that no type is.
    """
    kind = gguf.GGMLQuantizationType.F32
    if assignment.scheme is not None:
        kind = gguf.GGMLQuantizationType[_held_by(assignment.scheme).value.upper()]
    elif len(assignment.layer.shape) > 1:
        kind = KEPT.get(kept, kind)
    return Slot(kind, assignment.layer.shape)


def slot_or_raw(assignment: Assignment) -> Slot:
    """Return what a tensor of 16 bits takes in the file; one of a scheme that is refused anyway, its bytes here."""
    try:
        return slot(assignment, torch.bfloat16)
    except ValueError:
        return Slot(gguf.GGMLQuantizationType.I8, (assignment.nbytes,))


def block_bytes(packed: PackedTensor) -> Tensor:
    """Return a packed weight in blocks, uint8 [N, bytes of a row]; no number changes."""
    mode = _held_by(packed.scheme)
    if mode is packed.scheme.mode:
        return packed.codes
    rounded = unpack(packed)
    return mode.block_format.pack(Blocks(rounded.codes, rounded.scale, rounded.offset))


def _held_by(scheme: Scheme) -> Mode:
    mode = mode_of(scheme)
    if mode is None:
        raise ValueError(f"no type of GGUF is {scheme}")
    return mode


def kept_bytes(tensor: Tensor, kind: gguf.GGMLQuantizationType) -> Tensor:
    """Return a kept tensor's bytes in the dtype of the file, uint8."""
    dtypes = {value: key for key, value in KEPT.items()}
    return tensor.to(dtypes.get(kind, torch.float32)).contiguous().view(torch.uint8).flatten()
