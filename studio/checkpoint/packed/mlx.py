"""MLX's affine layout, as mlx-lm and this studio write it. Knows headers and settings only; codes are read by
``words.py``.

``X.weight`` uint32 [N, K·b/32], codes low bits first along K, without gaps; ``X.scales`` and ``X.biases`` [N, K/g].
W = q · s + bias, of 2, 3, 4, 5, 6 or 8 bits in groups of 32, 64 or 128. A config says the settings of all weights and,
by a module's name, those of one; ``false`` is one that is not packed (``mlx_lm.utils``, ``mlx.core.quantize``, 0.32).

The codes have the weight's own name: they are given another (:data:`CODES`), so that this can be the weight's.
"""

from collections.abc import Iterator, Mapping
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from studio.base.errors import CheckpointError
from studio.checkpoint.headers import FLOATS, TensorEntry
from studio.checkpoint.packed.packing import WORD_BITS, Index, Packing, Settings, mismatch

if TYPE_CHECKING:  # headers need no torch
    from torch import Tensor

TITLE = "MLX"
KEY = "quantization"
"""Of a config; newer versions repeat it as ``quantization_config``, without a method's name."""
CODES = ".codes"
"""What is added to a weight's name for its codes."""
SCALES, BIASES = ".scales", ".biases"
BITS = (2, 3, 4, 5, 6, 8)
GROUP_SIZES = (32, 64, 128)
MODE = "affine"


def is_mlx(said: Any) -> bool:
    """Return whether what a config says of its quantization is said as MLX says it."""
    return isinstance(said, Mapping) and "quant_method" not in said and {"bits", "group_size"} <= said.keys()


def settings(said: Mapping[str, Any]) -> Packing:
    """Return what a config says of all weights. Raises ModelError for what is not read."""
    read = Settings(TITLE, said)
    read.word("mode", MODE, (MODE,))
    bits = read.whole("bits", None, ", ".join(map(str, BITS)), BITS)
    group_size = read.whole("group_size", None, ", ".join(map(str, GROUP_SIZES)), GROUP_SIZES)
    return Packing("mlx", TITLE, bits, (0, 0), group_size, False, (), 0, has_offset=True)


def described(said: Mapping[str, Any], entries: Mapping[str, TensorEntry]) -> Iterator[tuple[str, Packing, str]]:
    """Yield every packed weight: its module's name, its packing, and the dtype of its scales.

    Raises CheckpointError where tensors are missing or do not fit each other, ModelError for settings not read.
    """
    usual = settings(said)
    for name in [name for name in entries if name.endswith(SCALES)]:
        module = name.removesuffix(SCALES)
        own = said.get(module, True)
        parts = {"codes": f"{module}.weight", "scales": name, "offsets": f"{module}{BIASES}"}
        for part in parts.values():
            if part not in entries:
                raise CheckpointError("tensor_missing", tensor=part[:120])
        kind = settings(own) if isinstance(own, Mapping) else usual
        codes, scales, biases = held = [entries[part] for part in parts.values()]
        if own is not True and not isinstance(own, Mapping):
            raise mismatch(TITLE, parts["codes"], f"{codes.dtype}, {own!r:.40}")
        shapes = [each.shape for each in held]
        is_whole = codes.dtype == "U32" and scales.dtype in FLOATS and biases.dtype == scales.dtype
        if not is_whole or not all(len(shape) == 2 and all(shape) for shape in shapes):
            raise mismatch(TITLE, parts["codes"], f"{codes.dtype} {list(codes.shape)}, {scales.dtype}, {biases.dtype}")
        rows, words = codes.shape
        width = words * WORD_BITS // kind.bits
        groups = (rows, width // kind.group_size)
        fits = words * WORD_BITS == width * kind.bits and width % kind.group_size == 0
        if not fits or scales.shape != groups or biases.shape != groups:
            raise mismatch(TITLE, parts["codes"], f"{', '.join(str(list(s)) for s in shapes)}, {kind.scheme}")
        parts["codes"] += CODES
        found = replace(kind, shape=(rows, width), parts=tuple(parts.items()))
        yield module, replace(found, nbytes=sum(each.nbytes for each in held)), scales.dtype


def places(packing: Packing, start: int, stop: int) -> dict[str, Index]:
    """Return role -> the part of its tensor that rows ``start:stop`` of the weight are made of."""
    return {role: (slice(start, stop),) for role, _ in packing.parts}


def values(packing: Packing, read: "Mapping[str, Tensor]", start: int, stop: int) -> "Tensor":
    """Return rows ``start:stop`` as fp32 [rows, K] of what :func:`places` names: exact products, one rounding."""
    import torch

    from studio.checkpoint.packed.words import codes, of_channel

    width = packing.shape[1]
    scales, offsets = (
        of_channel(read[role].float(), packing.group_size, width, None) for role in ("scales", "offsets")
    )
    return codes(read["codes"].view(torch.int32), packing.bits, width).float() * scales + offsets
