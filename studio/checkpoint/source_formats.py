"""Weights as repositories hold them: 16 or 32 bits as they stand, FP8 and MXFP4 with scales beside them, and packed.

Reads a few rows at a time, wherever the files lie; knows nothing of models, nor of how the formats in ``packed/`` are
laid out. Every other kind of quantization is refused before anything is read.

FP8 (``fp8``, ``fbgemm_fp8``, ``compressed-tensors`` with floats): ``X.weight`` [N, K] in 8-bit floats and
``X.weight_scale_inv`` or ``X.weight_scale``, one number per block, per row, or for all; the weight is their product.
MXFP4: ``X_blocks`` [..., N, K/32, 16], two 4-bit floats a byte, and ``X_scales`` [..., N, K/32], the exponents.
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from studio.base.dtypes import DTYPE_BYTES
from studio.base.errors import CheckpointError
from studio.checkpoint.byte_ranges import ByteRanges
from studio.checkpoint.headers import FLOATS, TensorEntry
from studio.checkpoint.packed.formats import FORMATS, format_of
from studio.checkpoint.packed.packing import Index
from studio.checkpoint.scale_names import BLOCKS, FP8, FP8_SCALES, SCALES

MXFP4_GROUP = 32
"""Weights that share an exponent: 16 bytes."""
MXFP4_LEVELS = torch.tensor((0, 0.5, 1, 1.5, 2, 3, 4, 6, -0.0, -0.5, -1, -1.5, -2, -3, -4, -6), dtype=torch.bfloat16)
EXPONENT_BIAS = 127
DTYPES = {
    "F64": torch.float64, "F32": torch.float32, "F16": torch.float16, "BF16": torch.bfloat16,
    "F8_E4M3": torch.float8_e4m3fn, "F8_E5M2": torch.float8_e5m2, "F8_E8M0": torch.float8_e8m0fnu,
    "I64": torch.int64, "I32": torch.int32, "I16": torch.int16, "I8": torch.int8,
    "U64": torch.uint64, "U32": torch.uint32, "U16": torch.uint16, "U8": torch.uint8, "BOOL": torch.bool,
}  # fmt: skip
SPAN_WEIGHTS = 1 << 21
"""Weights read at once where only some columns of them are wanted."""


def is_readable(quantization: Any) -> bool:
    """Return whether weights that a ``quantization_config`` describes can be read here.

    Raises ModelError for a packed format with settings that are not read: it says which.
    """
    if not isinstance(quantization, Mapping):
        return False
    packed = format_of(quantization)
    if packed is not None:
        packed.settings(quantization)
        return True
    method = quantization.get("quant_method")
    if method == "compressed-tensors":
        return quantization.get("format") == "float-quantized"
    blocks = quantization.get("weight_block_size") or ()
    sizes_fit = isinstance(blocks, list | tuple) and all(
        type(size) is int and size & (size - 1) == 0 for size in blocks
    )
    return method in ("fp8", "fbgemm_fp8", "mxfp4") and sizes_fit


def dequantize_fp8(weight: Tensor, scale: Tensor, rows: slice, shape: tuple[int, int]) -> Tensor:
    """Return ``rows`` of an FP8 weight as fp32 [rows, K].

    ``weight`` is those rows [rows, K], ``scale`` all the scales of the [N, K] matrix that ``shape`` says: one number,
    [N] or [N, 1] for each row, or [N/b, K/c] for blocks, the last of which may be cut short.
    """
    grid = decoded(scale)
    grid = grid.reshape(-1, 1) if grid.ndim < 2 else grid
    high, wide = (_block(size, count) for size, count in zip(shape, grid.shape, strict=True))
    of_row = torch.arange(rows.start, rows.stop, dtype=torch.int64) // high
    of_column = torch.arange(shape[1], dtype=torch.int64) // wide
    return weight.float().mul_(grid[of_row][:, of_column])


def dequantize_mxfp4(blocks: Tensor, scales: Tensor) -> Tensor:
    """Return bf16 [rows, K] of ``blocks`` [rows, K/32, 16] and ``scales`` [rows, K/32], both uint8."""
    values = MXFP4_LEVELS[torch.stack((blocks & 15, blocks >> 4), dim=-1).flatten(-2).int()]
    exponents = scales.int().unsqueeze(-1) - EXPONENT_BIAS
    return torch.ldexp(values, exponents).to(torch.bfloat16).flatten(-2)


def decoded(scale: Tensor) -> Tensor:
    """Return scales as fp32, of which a byte is an exponent."""
    if scale.dtype == torch.uint8:
        return torch.exp2(scale.float() - EXPONENT_BIAS)
    return scale.float()


def _block(size: int, count: int) -> int:
    """Return how many weights share a scale. Blocks are powers of two, so the count of them tells, also of cut ones."""
    return 1 << (math.ceil(size / max(1, count)) - 1).bit_length()


@dataclass(frozen=True)
class StoredTensor:
    """One tensor of a file as the model means it: ``StoredTensor("….gate_up_proj_blocks", entries)``."""

    name: str
    entries: Mapping[str, TensorEntry]

    @property
    def entry(self) -> TensorEntry:
        return self.entries[self.name]

    @property
    def is_mxfp4(self) -> bool:
        return self.name.endswith(BLOCKS) and self.entry.dtype == "U8" and len(self.entry.shape) > 2

    @property
    def is_packed(self) -> bool:
        """Whether several of the file's tensors hold it, in one of the formats of ``packed/``."""
        return self.entry.packing is not None

    @property
    def is_output_first(self) -> bool:
        """Whether it is [N, K], or [E, N, K], whatever the model's parameter is."""
        return self.is_mxfp4 or self.is_packed

    @property
    def is_read_whole(self) -> bool:
        """Whether a few rows cost as much to read as all."""
        return self.entry.packing is not None and FORMATS[self.entry.packing.format].is_by_columns

    @property
    def format(self) -> str:
        """What to call it: a dtype of the header, ``MXFP4``, or ``GPTQ int4_asym-g128``."""
        if self.entry.packing is not None:
            return self.entry.packing.name
        return "MXFP4" if self.is_mxfp4 else self.entry.dtype

    @property
    def shape(self) -> tuple[int, ...]:
        """The shape of the values it stands for."""
        shape = self.entry.shape
        return (*shape[:-2], shape[-2] * 2 * shape[-1]) if self.is_mxfp4 else shape

    @property
    def scale(self) -> str | None:
        """The name of the tensor with its scales, None where the values are as they stand.

        Raises CheckpointError when there ought to be one.
        """
        if self.is_mxfp4:
            names = [self.name.removesuffix(BLOCKS) + SCALES]
        elif self.entry.dtype in FP8:
            names = [self.name + end for end in FP8_SCALES]
        else:
            return None
        found = next((name for name in names if name in self.entries), None)
        if found is None:
            raise CheckpointError("tensor_missing", tensor=names[0][:120])
        return found

    def check(self) -> bool:
        """Return whether the header's facts are those of a weight that can be read."""
        if self.entry.dtype in FLOATS:
            return True
        if self.scale is None:
            return False
        scale = self.entries[self.scale]
        if self.is_mxfp4:
            bytes_fit = self.entry.shape[-1] == MXFP4_GROUP // 2
            return bytes_fit and scale.dtype == "U8" and scale.shape == self.entry.shape[:-1]
        return (
            len(self.shape) > 1 and scale.dtype in FLOATS | {"F8_E8M0", "U8"} and _scale_fits(self.shape, scale.shape)
        )

    def rows(self, files: "Files", expert: int, start: int, stop: int) -> Tensor:
        """Return rows ``start:stop`` of matrix ``expert`` of a [N, K] (then 0) or [E, N, K] tensor, [rows, K]."""
        packing = self.entry.packing
        if packing is not None:
            roles, kind = dict(packing.parts), FORMATS[packing.format]
            places = kind.places(packing, start, stop).items()
            return kind.values(packing, {role: files.part(roles[role], at) for role, at in places}, start, stop)
        values, *scales = (files.part(name, index) for name, index in self._parts(expert, start, stop))
        if not scales:
            return values
        if self.is_mxfp4:
            return dequantize_mxfp4(values, scales[0])
        return self._scaled(values, scales[0], expert, start)

    def columns(self, files: "Files", expert: int, start: int, stop: int) -> Tensor:
        """Return columns ``start:stop`` of a matrix as rows: [columns, N] of a [N, K] or [E, N, K] tensor."""
        if self.scale is None and not self.is_packed:
            return files.part(self.name, (*self._before(expert), slice(None), slice(start, stop))).T.contiguous()
        return self.rows(files, expert, 0, self.shape[-2]).T[start:stop]

    def read_bytes(self, expert: int, start: int, stop: int) -> int:
        """Return how many bytes :meth:`rows` reads; :meth:`columns` reads as many as all rows."""
        return sum(_part_bytes(self.entries[name], index) for name, index in self._parts(expert, start, stop))

    def _parts(self, expert: int, start: int, stop: int) -> list[tuple[str, Index]]:
        """Return what rows are made of: those of the tensor, and their scales."""
        packing = self.entry.packing
        if packing is not None:
            roles, places = dict(packing.parts), FORMATS[packing.format].places(packing, start, stop)
            return [(roles[role], at) for role, at in places.items()]
        before = self._before(expert)
        own: tuple[str, Index] = (self.name, (*before, slice(start, stop)))
        if self.scale is None:
            return [own]
        if self.is_mxfp4:
            return [own, (self.scale, own[1])]
        if self._high is None:
            return [own, (self.scale, ())]
        return [own, (self.scale, (*before, slice(start // self._high, -(-stop // self._high))))]

    @property
    def _high(self) -> int | None:
        """How many rows of an FP8 matrix share its scales, None where all do."""
        assert self.scale is not None
        grid = self.entries[self.scale].shape
        grid = grid[1:] if len(self.shape) == 3 else grid
        return None if math.prod(grid) == 1 or not grid else _block(self.shape[-2], grid[0])

    def _scaled(self, values: Tensor, scale: Tensor, expert: int, start: int) -> Tensor:
        """Return the rows from ``start`` on that FP8 ``values`` stand for, with the scales :meth:`_parts` names."""
        if self._high is None:
            scale = scale[expert] if len(self.shape) == 3 and scale.numel() > 1 else scale
            return dequantize_fp8(values, scale, slice(0, len(values)), (self.shape[-2], self.shape[-1]))
        first = start // self._high * self._high  # the blocks read are those of a matrix of their own
        last = min(self.shape[-2], first + self._high * len(scale))
        rows = slice(start - first, start - first + len(values))
        return dequantize_fp8(values, scale, rows, (last - first, self.shape[-1]))

    def _before(self, expert: int) -> tuple[int, ...]:
        return (expert,) if len(self.shape) == 3 else ()

    def whole(self, files: "Files") -> Tensor:
        """Return all of it in its own shape."""
        if self.scale is None and not self.is_packed:
            return files.part(self.name, ())
        experts = math.prod(self.shape[:-2])
        return torch.cat([self.rows(files, i, 0, self.shape[-2]) for i in range(experts)]).reshape(self.shape)


class Files:
    """Safetensors files whose headers are known, so that no byte is read but of the parts asked for."""

    def __init__(self, entries: Mapping[str, TensorEntry], ranges: ByteRanges) -> None:
        """``ranges`` is where the bytes come from."""
        self._entries = entries
        self._ranges = ranges

    def part(self, name: str, index: Index) -> Tensor:
        """Return part of a tensor as it is stored. Raises CheckpointError for a damaged file, and what the place where
        it lies raises."""
        shape = self._entries[name].shape
        if not index:
            return self._read(self._entries[name], 0, self._entries[name].nbytes).reshape(shape)
        expert = index[0] if isinstance(index[0], int) else None
        rows, *columns = (each for each in index if isinstance(each, slice))
        inner = shape[1:] if expert is not None else shape
        start, stop, _ = rows.indices(inner[0])
        first = (expert or 0) * inner[0]
        if not columns:
            return self._rows(name, inner[1:], first + start, first + stop)
        left, right, _ = columns[0].indices(inner[1])
        found = torch.empty(stop - start, right - left, dtype=DTYPES[self._entries[name].dtype])
        step = max(1, SPAN_WEIGHTS // max(1, inner[1]))
        for row in range(start, stop, step):  # whole rows: on a disk, as in a web server, one read is worth many
            end = min(row + step, stop)
            found[row - start : end - start] = self._rows(name, inner[1:], first + row, first + end)[:, left:right]
        return found

    def _rows(self, name: str, inner: tuple[int, ...], start: int, stop: int) -> Tensor:
        """Return ``start:stop`` of what a tensor has if it is seen as rows of the shape ``inner``."""
        entry = self._entries[name]
        size = math.prod(inner) * DTYPE_BYTES[entry.dtype]
        return self._read(entry, start * size, max(0, stop - start) * size).reshape(max(0, stop - start), *inner)

    def _read(self, entry: TensorEntry, start: int, length: int) -> Tensor:
        """Return numbers of a tensor, flat, from byte ``start`` of it."""
        try:
            return self._ranges.read(entry.file, entry.start + start, length).view(DTYPES[entry.dtype])
        except OSError as error:
            raise CheckpointError("damaged_file", file=entry.file) from error


def _part_bytes(entry: TensorEntry, index: Index) -> int:
    """Return how many bytes :meth:`Files.part` reads for part of a tensor; for some columns it reads all of them."""
    taken = list(entry.shape)
    rows = next((axis for axis, at in enumerate(index) if isinstance(at, slice)), -1)
    for axis, at in enumerate(index[: rows + 1]):
        taken[axis] = 1 if isinstance(at, int) else len(range(*at.indices(taken[axis])))
    return math.prod(taken) * DTYPE_BYTES[entry.dtype]


def _scale_fits(shape: tuple[int, ...], scale: tuple[int, ...]) -> bool:
    """Return whether scales of this shape can be those of a weight [N, K] or [E, N, K]."""
    if math.prod(scale) == 1:
        return True
    if len(shape) == 3:
        return scale[0] == shape[0] and _scale_fits(shape[1:], scale[1:])
    if len(scale) == 1:
        return scale[0] == shape[0]
    return len(scale) == 2 and all(
        0 < count <= size and math.ceil(size / _block(size, count)) == count
        for size, count in zip(shape, scale, strict=True)
    )
