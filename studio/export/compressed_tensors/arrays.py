"""A packed weight as compressed-tensors' ``pack-quantized`` lays it out: which schemes it holds, and its three arrays.

Of a weight [N, K] in groups of g: ``weight_packed`` int32 [N, ceil(K * bits / 32)], each integer from
``-2^(bits - 1)`` with that added, along a row, low bits first, the last word filled with zero; ``weight_scale`` fp16
[N, K / g], [N, 1] where a row has one; ``weight_shape`` int64 [2], N and K. ``w = q * scale``, so that no number
changes.

Only what is even about zero is held, though the form has packed zero points: compressed-tensors 0.18 to 0.20.1 make a
place of another size for them than 0.17 did, and folders with them do not load, or give other logits. Source:
``PackedQuantizationCompressor`` of compressed-tensors 0.20. Knows no files.
"""

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.nn.functional import pad

from studio.checkpoint.tensor_writer import Slot
from studio.quantization.packing import PackedTensor, pack_bits, unpack
from studio.quantization.rounding.quantized_weight import Codes
from studio.quantization.scheme import WHOLE_CHANNEL, Mode, Scheme

GROUP_SIZES = (128, 64, 32)
"""What vLLM's kernels have, beside the whole channel."""
BITS = (4, 8)
WORD = 32
"""Bits that codes are packed into."""


@dataclass(frozen=True)
class Settings:
    """What the config says of a weight: ``Settings(4, 64)``; -1 is one scale a row."""

    bits: int
    group_size: int

    def slots(self, shape: tuple[int, int]) -> dict[str, Slot]:
        """Return the arrays of a weight [N, K], by the end of their names."""
        rows, width = shape
        groups = 1 if self.group_size == WHOLE_CHANNEL else width // self.group_size
        return {
            "weight_packed": Slot("I32", (rows, -(-width * self.bits // WORD))),
            "weight_scale": Slot("F16", (rows, groups)),
            "weight_shape": Slot("I64", (2,)),
        }

    def told(self) -> dict[str, Any]:
        """Return the ``weights`` of a group in the config."""
        strategy: dict[str, Any] = {"strategy": "group", "group_size": self.group_size}
        if self.group_size == WHOLE_CHANNEL:
            strategy = {"strategy": "channel"}
        return {"num_bits": self.bits, "type": "int", "symmetric": True, **strategy, "dynamic": False}


def settings_of(scheme: Scheme, width: int) -> Settings | None:
    """Return how weights [N, ``width``] in this scheme are held without loss, None where they are not."""
    mode = scheme.mode
    if mode.bits not in BITS:
        return None
    if mode.is_in_blocks:
        form = mode.block_format
        return Settings(mode.bits, form.sub_block) if form.is_symmetric and form.sub_block in GROUP_SIZES else None
    if mode.grid.codes is not Codes.SYMMETRIC or mode.stored_as.scale_dtype != "F16":
        return None
    if scheme.group_size == WHOLE_CHANNEL:
        return Settings(mode.bits, WHOLE_CHANNEL)
    size = next((size for size in GROUP_SIZES if scheme.group_size % size == 0), None)
    return None if size is None else Settings(mode.bits, size)


def becomes(scheme: Scheme, width: int) -> Scheme:
    """Return the nearest scheme that is held, of as many bits or the next more."""
    if scheme.mode.bits > min(BITS):
        return Scheme.parse("int8_sym")
    sizes = [size for size in GROUP_SIZES if width % size == 0]
    own = scheme.group_size if scheme.group_size in sizes else next((s for s in sizes if s <= 64), WHOLE_CHANNEL)
    return Scheme(Mode("int4_sym"), own)


def arrays_of(packed: PackedTensor) -> dict[str, Tensor]:
    """Return ``weight_packed`` and ``weight_scale`` for some rows of a weight that :func:`settings_of` holds."""
    settings = settings_of(packed.scheme, packed.shape[1])
    if settings is None:
        raise ValueError(f"compressed-tensors does not hold {packed.scheme}")
    rounded = unpack(packed)
    codes = pad(rounded.codes, (0, -packed.shape[1] % (WORD // settings.bits)))
    words = codes if settings.bits == 8 else pack_bits(codes, settings.bits)
    scale = packed.scale if rounded.blocks is None else rounded.blocks.d
    groups = settings.slots(packed.shape)["weight_scale"].shape[1]
    return {
        "weight_packed": words.contiguous().view(torch.int32),
        "weight_scale": scale.half().repeat_interleave(groups // scale.shape[1], 1),
    }
