"""A GGUF file, written tensor by tensor: nothing of it is held in memory but the piece that is being written.

The official ``gguf`` package lays out header and metadata; it takes each tensor's bytes as they come. Knows no model
and no mode.
"""

import math
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

import gguf
import numpy as np
from torch import Tensor

ALIGNMENT = 32


@dataclass(frozen=True)
class Slot:
    """A tensor that a file will hold: its type, its shape [N, K] or [N], its bytes."""

    kind: gguf.GGMLQuantizationType
    shape: tuple[int, ...]

    @property
    def nbytes(self) -> int:
        block, size = gguf.GGML_QUANT_SIZES[self.kind]
        return math.prod(self.shape) // int(block) * int(size)


def write_tensors(
    writer: gguf.GGUFWriter, slots: Mapping[str, Slot], pieces: Iterable[tuple[str, Iterator[Tensor]]]
) -> Iterator[int]:
    """Write header, metadata and tensors, yielding the bytes of tensors written so far.

    ``pieces`` gives every tensor of ``slots``, in their order, as uint8 pieces that follow one another.
    Raises RuntimeError where a tensor's pieces are not as many bytes as its slot.
    """
    for name, slot in slots.items():
        writer.add_tensor_info(name, slot.shape, np.dtype(np.float32), slot.nbytes, raw_dtype=slot.kind)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_ti_data_to_file()
    assert writer.fout is not None  # write_header_to_file has opened it
    [out] = writer.fout
    done = 0
    for name, parts in pieces:
        writer.write_padding(out, out.tell())
        written = 0
        for part in parts:
            out.write(part.contiguous().numpy().data)  # ``tofile`` would not say that a disk is full
            written += part.numel()
            done += part.numel()
            yield done
        if written != slots[name].nbytes:
            raise RuntimeError(f"{name}: {written} bytes instead of {slots[name].nbytes}")
        writer.write_padding(out, written)


def tensor_bytes(slots: Mapping[str, Slot]) -> int:
    """Return the bytes of all tensors in a file, padding included."""
    return sum(-(-slot.nbytes // ALIGNMENT) * ALIGNMENT for slot in slots.values())


def new_writer(path: Path, arch: str) -> gguf.GGUFWriter:
    """Return a writer of a file for a model of this architecture."""
    return gguf.GGUFWriter(path, arch)
