"""``pack-quantized``, as compressed-tensors (llm-compressor, for vLLM) writes it. Knows headers and
settings only; its maths is in ``words.py``.

``X.weight_packed`` int32 [N, ceil(K·b/32)], codes + 2^(b-1) low bits first along K, without gaps; ``X.weight_scale``
[N, G], [N, 1] or one number; ``X.weight_shape`` [2]; where asymmetric ``X.weight_zero_point`` int32 [ceil(N·b/32), G],
packed down a column with the same offset; in some ``X.weight_g_idx`` [K], the group of each input channel.
W = (q - z) · s (compressed-tensors 0.20, ``pack_quantized``).

A config may have several groups of settings (4 bits here, 8 there), each with patterns for its modules. A pattern is a
regular expression that anyone may have written, and could run for ever: which group a weight is of is told by its sizes
instead, among the groups that the config has; where two fit, by its ``weight_shape``.
"""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from studio.base.errors import CheckpointError
from studio.checkpoint.headers import FLOATS, TensorEntry
from studio.checkpoint.packed.gptq import checked_order
from studio.checkpoint.packed.packing import MAX_GROUP, WHOLE_CHANNEL, WORD_BITS, Index, Packing, Settings, mismatch

if TYPE_CHECKING:  # headers need no torch
    from torch import Tensor

TITLE = "compressed-tensors"
CODES = ".weight_packed"
PACKED, FLOAT, MIXED = "pack-quantized", "float-quantized", "mixed-precision"
STRATEGIES = ("group", "channel", "tensor")
MAX_GROUPS = 1000
"""Of settings; the largest known has a handful."""
ReadShape = Callable[[TensorEntry], bytes]
"""The tensor with a weight's shape -> its bytes."""


def settings(said: Mapping[str, Any]) -> tuple[Packing, ...]:
    """Return what a config says of its groups of weights, each setting once. Raises ModelError for what is not read."""
    read = Settings(TITLE, said)
    layout = read.word("format", PACKED, (PACKED, MIXED))
    groups = said.get("config_groups")
    if not isinstance(groups, Mapping) or not 0 < len(groups) <= MAX_GROUPS:
        read.refuse("config_groups", groups, f"1 … {MAX_GROUPS}")
    found: dict[Packing, None] = {}
    for name, group in groups.items():
        own = Settings(TITLE, group if isinstance(group, Mapping) else {})
        if own.word("format", PACKED if layout == PACKED else "?", (PACKED, FLOAT)) == PACKED:
            found[_of_group(Settings(TITLE, own.said.get("weights") or {}), str(name))] = None
    return tuple(found)


def _of_group(read: Settings, name: str) -> Packing:
    """Return what one group says of its weights."""
    if not isinstance(read.said, Mapping):
        read = Settings(TITLE, {})
    bits = read.whole("num_bits", None, "1 … 8", range(1, 9))
    read.word("type", "int", ("int",))
    is_symmetric = read.flag("symmetric", True)
    has_group = read.said.get("group_size") not in (None, WHOLE_CHANNEL)
    strategy = "group" if has_group else "channel"
    if read.said.get("strategy") is not None:
        strategy = read.word("strategy", strategy, STRATEGIES)
    group_size = WHOLE_CHANNEL
    if strategy == "group":
        group_size = read.whole("group_size", None, f"1 … {MAX_GROUP}", range(1, MAX_GROUP + 1))
    return Packing("compressed-tensors", TITLE, bits, (0, 0), group_size, is_symmetric, (), 0)


def described(
    said: Mapping[str, Any], entries: Mapping[str, TensorEntry], read_shape: ReadShape, is_near: bool = True
) -> Iterator[tuple[str, Packing, str]]:
    """Yield every packed weight: its module's name, its packing, and the dtype of its scales.

    ``is_near``: whether reading a few bytes of each weight costs nothing; else only what headers leave open is read.
    Raises CheckpointError where tensors are missing or do not fit each other.
    """
    usual = settings(said)
    for name in [name for name in entries if name.endswith(CODES)]:
        module = name.removesuffix(CODES)
        parts = {"codes": name, "scales": f"{module}.weight_scale"}
        shape = f"{module}.weight_shape"
        for part in (parts["scales"], shape):
            if part not in entries:
                raise CheckpointError("tensor_missing", tensor=part[:120])
        more = {"zeros": f"{module}.weight_zero_point", "order": f"{module}.weight_g_idx"}
        parts |= {role: part for role, part in more.items() if part in entries}
        held = {role: entries[part] for role, part in parts.items()}
        _check(name, held, entries[shape])
        fitting = [each for setting in usual if (each := _fitted(setting, held, None)) is not None]
        if is_near or len({(each.bits, each.shape) for each in fitting}) > 1:
            rows, width = _shape_in(read_shape(entries[shape]), entries[shape].dtype)
            fitting = [each for setting in usual if (each := _fitted(setting, held, width)) is not None]
            fitting = [each for each in fitting if each.shape[0] == rows]
        if not fitting:
            sizes = ", ".join(str(list(each.shape)) for each in held.values())
            raise mismatch(TITLE, name, f"{sizes}; {', '.join(each.scheme for each in usual)}")
        nbytes = sum(each.nbytes for each in held.values())
        yield module, replace(fitting[0], parts=tuple(parts.items()), nbytes=nbytes), held["scales"].dtype


def _check(name: str, held: Mapping[str, TensorEntry], shape: TensorEntry) -> None:
    """Raise CheckpointError for tensors of dtypes or dimensions that no packed weight has."""
    codes, scales = held["codes"], held["scales"]
    is_whole = codes.dtype == "I32" and scales.dtype in FLOATS and len(codes.shape) == 2 and all(codes.shape)
    if not is_whole or shape.dtype not in ("I32", "I64") or shape.shape != (2,):
        raise mismatch(TITLE, name, f"{codes.dtype} {list(codes.shape)}, {scales.dtype}, {shape.dtype}")


def _shape_in(raw: bytes, dtype: str) -> tuple[int, int]:
    size = 8 if dtype == "I64" else 4
    rows, width = (int.from_bytes(raw[i * size : (i + 1) * size], "little", signed=True) for i in range(2))
    return rows, width


def _fitted(setting: Packing, held: Mapping[str, TensorEntry], width: int | None) -> Packing | None:
    """Return a setting with the shape of a weight whose tensors have the sizes that it asks for, None otherwise.

    ``width`` is K where it is known; else words are taken to be full.
    """
    (rows, words), scales = held["codes"].shape, held["scales"].shape
    if setting.group_size > 0:
        of_scales = scales[1] * setting.group_size if len(scales) == 2 else 0
        width = of_scales if width is None else width
        groups, fits = scales[-1] if scales else 0, len(scales) == 2 and scales[0] == rows and of_scales == width
    else:
        width = words * WORD_BITS // setting.bits if width is None else width
        groups, fits = 1, scales in ((rows, 1), (1, 1), (1,), ())
    if not fits or width < 1 or setting.words(width) != words:
        return None
    zeros, order = held.get("zeros"), held.get("order")
    if (zeros is None) != setting.is_symmetric:
        return None
    if zeros is not None and (zeros.dtype != "I32" or zeros.shape != (setting.words(rows), groups)):
        return None
    if order is not None and (order.dtype not in ("I32", "I64") or order.shape != (width,)):
        return None
    return replace(setting, shape=(rows, width))


def places(packing: Packing, start: int, stop: int) -> dict[str, Index]:
    """Return role -> the part of its tensor that rows ``start:stop`` of the weight are made of; of scales, all."""
    roles = dict(packing.parts)
    found: dict[str, Index] = {"codes": (slice(start, stop),), "scales": ()}
    if "zeros" in roles:
        found["zeros"] = (packing.span(start, stop)[0],)
    return found | ({"order": ()} if "order" in roles else {})


def values(packing: Packing, read: "Mapping[str, Tensor]", start: int, stop: int) -> "Tensor":
    """Return rows ``start:stop`` as fp32 [rows, K] of what :func:`places` names.

    Raises CheckpointError for channels of groups that are not there.
    """
    from studio.checkpoint.packed.words import codes, dequantized, of_channel

    bits, (rows, width) = packing.bits, packing.shape
    scales = read["scales"]
    scales = scales[start:stop] if scales.ndim == 2 and len(scales) == rows else scales.reshape(1, 1)
    order = read.get("order")
    if order is not None:
        order = checked_order(packing, order, scales.shape[1])
    zeros: Tensor | float = float(1 << (bits - 1))
    if "zeros" in read:
        begin = packing.span(start, stop)[1]
        points = codes(read["zeros"].T, bits, begin + stop - start)[:, begin:]  # [G, rows]
        zeros = of_channel(points.T.float(), packing.group_size, width, order)
    per_weight = of_channel(scales, packing.group_size, width, order)
    return dequantized(codes(read["codes"], bits, width), zeros, per_weight)
