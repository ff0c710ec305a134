"""Files of tensors written in pieces, in any order, so that no tensor need be whole in memory: safetensors', and one
of bare numbers that another file describes.

All sizes are known before the first byte: a header is written first, the disk space is taken at once, so that a full
disk is found before the work, not after it. Knows no scheme.
"""

import json
import math
import os
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Self

import torch
from torch import Tensor

from studio.base.dtypes import DTYPE_BYTES
from studio.base.errors import disk_error

TORCH_DTYPES = {
    "F32": torch.float32, "F16": torch.float16, "BF16": torch.bfloat16, "U8": torch.uint8, "I8": torch.int8,
    "F8_E4M3": torch.float8_e4m3fn, "F8_E8M0": torch.float8_e8m0fnu,
}  # fmt: skip
DTYPE_NAMES = {dtype: name for name, dtype in TORCH_DTYPES.items()} | {
    torch.uint32: "U32", torch.int32: "I32", torch.int64: "I64",
}  # fmt: skip
"""What can be written: words of packed codes and sizes too, which no folder of ours has."""


@dataclass(frozen=True)
class Slot:
    """A tensor to be written: ``Slot("F16", (576, 9))``."""

    dtype: str
    shape: tuple[int, ...]

    @property
    def nbytes(self) -> int:
        return math.prod(self.shape) * DTYPE_BYTES[self.dtype]


class SlotFile:
    """A file with a place for each of its tensors, written in pieces, in any order; use as a context manager.

    Raises ResourceError("export_disk_full") when the disk cannot hold the file; removing it is the caller's.
    """

    def __init__(
        self,
        path: Path,
        slots: Mapping[str, Slot],
        starts: Mapping[str, int],
        size: int,
        around: Mapping[int, bytes],
        kept: Collection[str] = (),
    ) -> None:
        """``starts``: the first byte of each tensor; ``size``: bytes of the whole file; ``around``: by their first
        byte what else is in it; ``kept``: names of tensors that it holds already, from a run before this one."""
        self.path, self.slots, self.size = path, dict(slots), size
        self.nbytes = sum(slot.nbytes for slot in slots.values())
        """Bytes of the tensors alone."""
        self.written = sum(slots[name].nbytes for name in kept)
        """Bytes of tensors in the file so far."""
        self._starts, self._around, self._kept = starts, around, kept

    def place(self, name: str, start: int = 0) -> int:
        """Return the byte at which a tensor's element number ``start`` stands."""
        return self._starts[name] + start * DTYPE_BYTES[self.slots[name].dtype]

    @property
    def around(self) -> Mapping[int, bytes]:
        """What is in the file beside its tensors, by its first byte."""
        return self._around

    def __enter__(self) -> Self:
        with _disk_errors(self.path):
            self._file = self.path.open("r+b" if self._kept else "wb")
        try:
            with _disk_errors(self.path):
                if hasattr(os, "posix_fallocate"):
                    os.posix_fallocate(self._file.fileno(), 0, max(self.size, 1))
                self._file.truncate(self.size)
                for start, raw in self._around.items():
                    self._file.seek(start)
                    self._file.write(raw)
        except BaseException:
            self._file.close()
            raise
        return self

    def sync(self) -> None:
        """Wait until the disk has everything written so far."""
        with _disk_errors(self.path):
            self._file.flush()
            os.fsync(self._file.fileno())

    def write(self, name: str, tensor: Tensor, start: int = 0) -> None:
        """Write ``tensor`` into the slot ``name``, from its element number ``start`` on.

        Raises ValueError when dtype or place are not the slot's.
        """
        slot = self.slots[name]
        size = DTYPE_BYTES[slot.dtype]
        if DTYPE_NAMES.get(tensor.dtype) != slot.dtype or start * size + tensor.nbytes > slot.nbytes:
            raise ValueError(f"{name}: {tensor.dtype} {tuple(tensor.shape)} from {start} does not fit {slot}")
        with _disk_errors(self.path):
            self._file.seek(self.place(name, start))
            self._file.write(tensor.contiguous().flatten().view(torch.uint8).cpu().numpy().data)
        self.written += tensor.nbytes

    def write_bytes(self, name: str, raw: Tensor, start: int = 0) -> None:
        """Write bytes, uint8 [n], into the slot ``name``, from its byte number ``start`` on, whatever they mean.

        Raises ValueError where they do not fit.
        """
        if raw.dtype != torch.uint8 or start + raw.nbytes > self.slots[name].nbytes:
            raise ValueError(f"{name}: {raw.nbytes} bytes from {start} do not fit {self.slots[name]}")
        with _disk_errors(self.path):
            self._file.seek(self._starts[name] + start)
            self._file.write(raw.contiguous().numpy().data)
        self.written += raw.nbytes

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        with _disk_errors(self.path):
            self._file.close()
        if kind is None and self.written != self.nbytes:
            raise ValueError(f"{self.path.name}: {self.written} of {self.nbytes} bytes were written")


class TensorFile(SlotFile):
    """A safetensors file: its header says where each tensor is."""

    def __init__(
        self, path: Path, slots: Mapping[str, Slot], metadata: Mapping[str, str], kept: Collection[str] = ()
    ) -> None:
        """``kept``: names of tensors that the file holds already, from a run before this one with the same slots."""
        claims: dict[str, object] = {"__metadata__": dict(metadata)}
        position = 0
        starts: dict[str, int] = {}
        # Wide dtypes first keeps every tensor aligned, which the format asks for.
        for name, slot in sorted(slots.items(), key=lambda item: -DTYPE_BYTES[item[1].dtype]):
            end = position + slot.nbytes
            claims[name] = {"dtype": slot.dtype, "shape": slot.shape, "data_offsets": (position, end)}
            starts[name] = position
            position = end
        text = json.dumps(claims).encode()
        text += b" " * (-len(text) % 8)
        header = len(text).to_bytes(8, "little") + text
        placed = {name: len(header) + start for name, start in starts.items()}
        super().__init__(path, slots, placed, len(header) + position, {0: header}, kept)


class ConstantFile(SlotFile):
    """Numbers and nothing else, each tensor at a multiple of some bytes; another file says where."""

    ALIGNMENT = 64
    """Bytes, as memory is lent by programs that map such a file."""

    def __init__(self, path: Path, slots: Mapping[str, Slot], tail: bytes = b"") -> None:
        """``tail``: what follows the tensors."""
        self.starts, end = self.layout(slots)
        """The first byte of each tensor."""
        super().__init__(path, slots, self.starts, end + len(tail), {end: tail})

    @classmethod
    def layout(cls, slots: Mapping[str, Slot]) -> tuple[dict[str, int], int]:
        """Return the first byte of each tensor, and that of what follows them."""
        starts, position = {}, 0
        for name, slot in slots.items():
            starts[name] = position
            position = -(-(position + slot.nbytes) // cls.ALIGNMENT) * cls.ALIGNMENT
        return starts, position


class _disk_errors:  # noqa: N801 - reads as a statement
    """Turn a failure to write into the sentence for it."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __enter__(self) -> None: ...

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if isinstance(error, OSError):
            raise disk_error(error, self.path) from error
