"""A GGUF file, written tensor by tensor: nothing of it is held in memory but the pieces that are being written.

The official ``gguf`` package lays out header and metadata; what follows is each tensor's bytes as they come. Knows no
model and no mode.
"""

import io
import math
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass

import gguf
import numpy as np
from gguf.gguf_writer import WriterState
from torch import Tensor

from studio.export.checksummed_file import ChecksummedFile

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


def header(writer: gguf.GGUFWriter, slots: Mapping[str, Slot]) -> bytes:
    """Return all that stands before the tensors: header, metadata, what each tensor is, padding."""
    for name, slot in slots.items():
        writer.add_tensor_info(name, slot.shape, np.dtype(np.float32), slot.nbytes, raw_dtype=slot.kind)
    held = io.BytesIO()
    writer.fout, writer.state = [held], WriterState.EMPTY
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_ti_data_to_file()
    writer.write_padding(held, held.tell())
    return held.getvalue()


def write_tensors(
    out: ChecksummedFile, slots: Mapping[str, Slot], pieces: Iterable[tuple[str, Tensor]]
) -> Iterator[int]:
    """Write the tensors after their header, yielding the bytes of the file so far.

    ``pieces`` gives every tensor of ``slots``, in their order, as uint8 pieces that follow one another.
    Raises RuntimeError where a tensor's pieces are not as many bytes as its slot.
    """
    left = 0
    waiting = iter(slots.items())
    now = ""
    for name, piece in pieces:
        if name != now:
            now, slot = next(waiting)
            if name != now or left:
                raise RuntimeError(f"{name}: not what follows, or {left} bytes before it are missing")
            left = slot.nbytes
        out.write(piece)
        left -= piece.numel()
        if not left:
            out.write(bytes(-slot.nbytes % ALIGNMENT))
        yield out.written
    if left or next(waiting, None) is not None:
        raise RuntimeError(f"{now}: {left} bytes, or what follows it, are missing")


def tensor_bytes(slots: Mapping[str, Slot]) -> int:
    """Return the bytes of all tensors in a file, padding included."""
    return sum(-(-slot.nbytes // ALIGNMENT) * ALIGNMENT for slot in slots.values())


def new_writer(arch: str) -> gguf.GGUFWriter:
    """Return what lays out a file for a model of this architecture."""
    return gguf.GGUFWriter(None, arch)
