"""How a model's tensors came: each one's type or scheme, and the bytes that it takes in the files. Read off headers.

Knows no model: a tensor is called what the file calls it, or the parameter that it became.
"""

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace

from studio.checkpoint.headers import TensorEntry
from studio.checkpoint.scale_names import BLOCKS, FP8, FP8_SCALES, SCALES


@dataclass(frozen=True)
class StoredAs:
    """One tensor: ``StoredAs("blk.0.attn_q.weight", "Q4_K", (4096, 4096), 9437184)``."""

    name: str
    type: str
    """A dtype of safetensors, a type of ggml, or what it is packed as: ``"GPTQ int4_asym-g128"``."""
    shape: tuple[int, ...]
    """Of its values."""
    nbytes: int
    """Its codes, scales and zero points together."""

    @property
    def numel(self) -> int:
        return math.prod(self.shape)

    @property
    def bits(self) -> float:
        """Bits per weight."""
        return 8 * self.nbytes / max(1, self.numel)


@dataclass(frozen=True)
class OfType:
    """All tensors of one type: ``OfType("Q4_K", 193, 6_000_000_000, 3_375_000_000)``."""

    type: str
    tensors: int
    weights: int
    nbytes: int

    @property
    def bits(self) -> float:
        """Bits per weight."""
        return 8 * self.nbytes / max(1, self.weights)


def by_type(tensors: Iterable[StoredAs]) -> list[OfType]:
    """Return tensors summed up by their type, that of most bytes first."""
    sums: dict[str, OfType] = {}
    for each in tensors:
        so_far = sums.get(each.type, OfType(each.type, 0, 0, 0))
        sums[each.type] = OfType(
            each.type, so_far.tensors + 1, so_far.weights + each.numel, so_far.nbytes + each.nbytes
        )
    return sorted(sums.values(), key=lambda found: -found.nbytes)


def of_entries(entries: Mapping[str, TensorEntry]) -> list[StoredAs]:
    """Return the weights of safetensors files, each with the scales and zero points that belong to it."""
    parts = {part for entry in entries.values() if entry.packing is not None for _, part in entry.packing.parts}
    found: dict[str, StoredAs] = {}
    for name in entries:
        if name in parts or _is_scale(name, entries) or name.endswith(".weight_shape"):
            continue
        stored = of_entry(name, entries)
        found[stored.name] = stored
    return list(found.values())


def of_entry(name: str, entries: Mapping[str, TensorEntry]) -> StoredAs:
    """Return one of them."""
    entry = entries[name]
    if entry.packing is not None:
        return StoredAs(name, entry.packing.name, entry.shape, entry.stored_bytes)
    if _is_mxfp4(name, entries):
        plain, shape = name.removesuffix(BLOCKS), entry.shape
        nbytes = entry.nbytes + entries[plain + SCALES].nbytes
        return StoredAs(plain, "MXFP4", (*shape[:-2], shape[-2] * 2 * shape[-1]), nbytes)
    scale = next((name + end for end in FP8_SCALES if name + end in entries), None) if entry.dtype in FP8 else None
    nbytes = entry.nbytes + (0 if scale is None else entries[scale].nbytes)
    return StoredAs(name, entry.dtype, entry.shape, nbytes)


def parts_of(name: str, entries: Mapping[str, TensorEntry]) -> list[str]:
    """Return the names of all that one of them takes: codes, scales, zero points, a shape."""
    ends = ("", BLOCKS, SCALES, *FP8_SCALES) if name in entries else (BLOCKS, SCALES)
    packing = entries[name].packing if name in entries else None
    packed = () if packing is None else (*(part for _, part in packing.parts), f"{name}_shape")
    return [part for part in dict.fromkeys([*(name + end for end in ends), *packed]) if part in entries]


def joined(name: str, parts: Iterable[StoredAs]) -> StoredAs:
    """Return the one parameter ``name`` that several of a file's tensors became, or one under another name."""
    found = list(parts)
    if len(found) == 1:
        return replace(found[0], name=name)
    types = "/".join(dict.fromkeys(each.type for each in found))
    return StoredAs(name, types, (sum(each.numel for each in found),), sum(each.nbytes for each in found))


def _is_mxfp4(name: str, entries: Mapping[str, TensorEntry]) -> bool:
    is_named = name.endswith(BLOCKS) and name.removesuffix(BLOCKS) + SCALES in entries
    return is_named and entries[name].dtype == "U8" and len(entries[name].shape) > 2


def _is_scale(name: str, entries: Mapping[str, TensorEntry]) -> bool:
    """Return whether a tensor holds the scales of another."""
    if name.endswith(SCALES) and name.removesuffix(SCALES) + BLOCKS in entries:
        return True
    owner = next((name.removesuffix(end) for end in FP8_SCALES if name.endswith(end)), None)
    return owner is not None and owner in entries and entries[owner].dtype in FP8
