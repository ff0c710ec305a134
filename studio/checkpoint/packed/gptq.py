"""GPTQ, as AutoGPTQ and GPTQModel write it. Knows headers and settings only; its maths is in
``words.py``.

``X.qweight`` int32 [K·b/32, N], codes low bits first down a column; ``X.scales`` [G, N]; ``X.qzeros`` int32
[G, N·b/32], low bits first along a row; ``X.g_idx`` [K], the group of each input channel, in any order where the
channels were quantized in another (act-order), else left out or counting up. W[n, k] = (q - z) · s of k's group.

Version 1 stores zero points less one, subtracted from whole *words*: a zero point of 0 borrows from its neighbour, and
adding to whole words gives it back (GPTQModel, ``convert_gptq_v1_to_v2_format_module``). Version 2 (``gptq_v2``) stores
them as they are. Of 3 bits, whose codes run over the ends of words, each is taken by itself.
"""

from collections.abc import Iterator, Mapping
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from studio.base.errors import CheckpointError
from studio.checkpoint.headers import FLOATS, TensorEntry
from studio.checkpoint.packed.packing import WORD_BITS, Index, Packing, Settings, mismatch

if TYPE_CHECKING:  # headers need no torch
    from torch import Tensor

TITLE = "GPTQ"
CODES = ".qweight"
BITS = (2, 3, 4, 8)
VERSIONS = ("gptq", "gptq_v2")
"""``checkpoint_format``: what the zero points mean. Others (marlin, …) are laid out in another way."""


def settings(said: Mapping[str, Any]) -> Packing:
    """Return what a config says of all weights. Raises ModelError for what is not read."""
    read = Settings(TITLE, said)
    bits = read.whole("bits", None, ", ".join(map(str, BITS)), BITS)
    key = "format" if "checkpoint_format" not in said and "format" in said else "checkpoint_format"
    version = read.word(key, "gptq", VERSIONS)
    group_size, is_symmetric = read.group_size(128), read.flag("sym", True)
    return Packing("gptq", TITLE, bits, (0, 0), group_size, is_symmetric, (), 0, zeros_are_one_less=version == "gptq")


def described(said: Mapping[str, Any], entries: Mapping[str, TensorEntry]) -> Iterator[tuple[str, Packing, str]]:
    """Yield every packed weight: its module's name, its packing, and the dtype of its scales.

    Raises CheckpointError where tensors are missing or do not fit each other.
    """
    usual = settings(said)
    # Rules for single modules, which are patterns: what they change is seen in the sizes.
    is_free = bool(said.get("dynamic"))
    for name in [name for name in entries if name.endswith(CODES)]:
        module = name.removesuffix(CODES)
        parts = {"codes": name, "scales": f"{module}.scales", "zeros": f"{module}.qzeros"}
        for part in parts.values():
            if part not in entries:
                raise CheckpointError("tensor_missing", tensor=part[:120])
        if f"{module}.g_idx" in entries:
            parts["order"] = f"{module}.g_idx"
        elif said.get("desc_act") is True:
            raise CheckpointError("tensor_missing", tensor=f"{module}.g_idx"[:120])
        held = {role: entries[part] for role, part in parts.items()}
        packing = replace(
            _packing(usual, name, held, is_free),
            parts=tuple(parts.items()),
            nbytes=sum(e.nbytes for e in held.values()),
        )
        yield module, packing, held["scales"].dtype


def _packing(usual: Packing, name: str, held: Mapping[str, TensorEntry], is_free: bool) -> Packing:
    """Return the packing that the sizes of a weight's tensors make. Raises CheckpointError."""
    codes, scales, zeros = (held[role] for role in ("codes", "scales", "zeros"))
    whole = codes.dtype == zeros.dtype == "I32" and scales.dtype in FLOATS
    if not whole or not all(len(each.shape) == 2 and all(each.shape) for each in (codes, scales, zeros)):
        raise mismatch(TITLE, name, f"{codes.dtype} {list(codes.shape)}, {scales.dtype}, {zeros.dtype}")
    high, rows = codes.shape
    groups, bits = scales.shape[0], usual.bits
    if is_free:
        bits = next((b for b in BITS if Packing("", "", b, (0, 0), 0, True, (), 0).words(rows) == zeros.shape[1]), bits)
    width = high * WORD_BITS // bits
    group_size = usual.group_size
    if is_free and group_size > 0 and -(-width // group_size) != groups:
        group_size = width // groups
    found = replace(usual, bits=bits, shape=(rows, width), group_size=group_size)
    expected = 1 if group_size < 0 else -(-width // group_size)
    if high * WORD_BITS % bits or scales.shape[1] != rows or zeros.shape != (groups, found.words(rows)):
        raise mismatch(TITLE, name, f"{list(codes.shape)}, {list(scales.shape)}, {list(zeros.shape)}, {bits} bits")
    if groups != expected:
        raise mismatch(TITLE, name, f"{list(codes.shape)}, {list(scales.shape)}, group_size {group_size}")
    order = held.get("order")
    if order is not None and (order.dtype not in ("I32", "I64") or order.shape != (width,)):
        raise mismatch(TITLE, name, f"g_idx {order.dtype} {list(order.shape)}, {width}")
    return found


def places(packing: Packing, start: int, stop: int) -> dict[str, Index]:
    """Return role -> the part of its tensor that rows ``start:stop`` of the weight are made of."""
    rows, zeros = slice(start, stop), packing.span(start, stop)[0]
    found: dict[str, Index] = {
        "codes": (slice(None), rows),
        "scales": (slice(None), rows),
        "zeros": (slice(None), zeros),
    }
    return found | ({"order": ()} if "order" in dict(packing.parts) else {})


def values(packing: Packing, read: "Mapping[str, Tensor]", start: int, stop: int) -> "Tensor":
    """Return rows ``start:stop`` as fp32 [rows, K] of what :func:`places` names.

    Raises CheckpointError for channels of groups that are not there.
    """
    from studio.checkpoint.packed.words import codes, dequantized, of_channel

    bits, width = packing.bits, packing.shape[1]
    begin = packing.span(start, stop)[1]
    # [K·b/32, N] -> [N, K]; [G, N·b/32] -> [N, G]
    numbers = codes(read["codes"].T, bits, width)
    words = read["zeros"]
    if packing.zeros_are_one_less and WORD_BITS % bits == 0:
        ones = sum(1 << place for place in range(0, WORD_BITS, bits))
        words = words + ones
    zeros = codes(words, bits, begin + stop - start)[:, begin:]
    if packing.zeros_are_one_less and WORD_BITS % bits:
        zeros = (zeros + 1) & ((1 << bits) - 1)
    order = read.get("order")
    if order is not None:
        order = checked_order(packing, order, len(zeros))
    scales = of_channel(read["scales"].T, packing.group_size, width, order)
    return dequantized(numbers, of_channel(zeros.T.float(), packing.group_size, width, order), scales)


def checked_order(packing: Packing, order: "Tensor", groups: int) -> "Tensor":
    """Return the group of each channel as indices. Raises CheckpointError for one that is not there."""
    if int(order.min()) < 0 or int(order.max()) >= groups:
        raise mismatch(
            packing.title, dict(packing.parts)["order"], f"{int(order.min())} … {int(order.max())}, {groups}"
        )
    return order.long()
