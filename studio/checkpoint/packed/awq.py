"""AWQ in its ``gemm`` version, as AutoAWQ writes it. Knows headers and settings only; its maths is in
``words.py``.

``X.qweight`` int32 [K, N/8], ``X.qzeros`` int32 [K/g, N/8], ``X.scales`` [K/g, N], all of 4 bits: the i-th nibble of a
word, lowest first, is column 0, 2, 4, 6, 1, 3, 5, 7 of its eight. W[n, k] = (q - z) · s of k's group.
"""

from collections.abc import Iterator, Mapping
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from studio.base.errors import CheckpointError
from studio.checkpoint.headers import FLOATS, TensorEntry
from studio.checkpoint.packed.packing import Index, Packing, Settings, mismatch

if TYPE_CHECKING:  # headers need no torch
    from torch import Tensor

TITLE = "AWQ"
CODES = ".qweight"
BITS = 4
PER_WORD = 8
PLACES = (0, 4, 1, 5, 2, 6, 3, 7)
"""Which nibble of a word each of its eight columns is in: the inverse of 0 2 4 6 1 3 5 7."""


def settings(said: Mapping[str, Any]) -> Packing:
    """Return what a config says of all weights. Raises ModelError for what is not read."""
    read = Settings(TITLE, said)
    read.whole("bits", BITS, str(BITS), (BITS,))
    read.word("version" if said.get("version") is not None else "format", "gemm", ("gemm",))
    group_size, has_zeros = read.group_size(128), read.flag("zero_point", True)
    return Packing("awq", TITLE, BITS, (0, 0), group_size, not has_zeros, (), 0)


def described(said: Mapping[str, Any], entries: Mapping[str, TensorEntry]) -> Iterator[tuple[str, Packing, str]]:
    """Yield every packed weight: its module's name, its packing, and the dtype of its scales.

    Raises CheckpointError where tensors are missing or do not fit each other.
    """
    usual = settings(said)
    for name in [name for name in entries if name.endswith(CODES)]:
        module = name.removesuffix(CODES)
        parts = {"codes": name, "scales": f"{module}.scales", "zeros": f"{module}.qzeros"}
        for part in parts.values():
            if part not in entries:
                raise CheckpointError("tensor_missing", tensor=part[:120])
        codes, scales, zeros = held = [entries[part] for part in parts.values()]
        shapes = [each.shape for each in held]
        is_whole = codes.dtype == zeros.dtype == "I32" and scales.dtype in FLOATS
        if not is_whole or not all(len(shape) == 2 and all(shape) for shape in shapes):
            raise mismatch(TITLE, name, f"{codes.dtype} {list(codes.shape)}, {scales.dtype}, {zeros.dtype}")
        width, words = codes.shape
        groups = 1 if usual.group_size < 0 else -(-width // usual.group_size)
        if scales.shape != (groups, words * PER_WORD) or zeros.shape != (groups, words):
            raise mismatch(TITLE, name, f"{', '.join(str(list(shape)) for shape in shapes)}, {usual.group_size}")
        found = replace(usual, shape=(words * PER_WORD, width), parts=tuple(parts.items()))
        yield module, replace(found, nbytes=sum(each.nbytes for each in held)), scales.dtype


def places(packing: Packing, start: int, stop: int) -> dict[str, Index]:
    """Return role -> the part of its tensor that rows ``start:stop`` of the weight are made of."""
    words = packing.span(start, stop)[0]
    return {
        "codes": (slice(None), words),
        "scales": (slice(None), slice(start, stop)),
        "zeros": (slice(None), words),
    }


def values(packing: Packing, read: "Mapping[str, Tensor]", start: int, stop: int) -> "Tensor":
    """Return rows ``start:stop`` as fp32 [rows, K] of what :func:`places` names."""
    from studio.checkpoint.packed.words import dequantized, of_channel

    begin = packing.span(start, stop)[1]
    rows = slice(begin, begin + stop - start)
    width = packing.shape[1]
    numbers, zeros = (_nibbles(read[role])[:, rows].T for role in ("codes", "zeros"))
    per_weight = of_channel(zeros.float(), packing.group_size, width, None)
    return dequantized(numbers, per_weight, of_channel(read["scales"].T, packing.group_size, width, None))


def _nibbles(words: "Tensor") -> "Tensor":
    """Return uint8 [R, 8 W] of int32 ``words`` [R, W], in the order of the columns."""
    from studio.checkpoint.packed.words import codes

    found = codes(words, BITS, PER_WORD * words.shape[1])
    return found.reshape(len(found), -1, PER_WORD)[..., PLACES].flatten(1)
