"""The header of a safetensors file: what tensors it holds and where. Knows nothing of models.

Anyone may have written a header, so every claim is checked before it is believed: shape x dtype against the offsets,
offsets against the file's size, no gaps, no overlaps (the rules of the safetensors format). Its JSON is read by
``header_json.py``.
"""

import math
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from studio.base.dtypes import DTYPE_BYTES
from studio.base.errors import CheckpointError
from studio.checkpoint.header_json import claims_of
from studio.checkpoint.packed.packing import Packing

FLOATS = frozenset({"F64", "F32", "F16", "BF16"})
"""Dtypes whose values are weights as they stand."""

PREFIX_BYTES = 8
"""Before the header stands its length."""
MAX_HEADER_BYTES = 100_000_000
"""The limit of the safetensors library itself."""
MAX_TENSORS = 200_000
"""Of all files of a model together. The largest known, hundreds of experts in 8 bits with scales, have 140,000."""
CLAIM_MARKS = 16
"""Commas and brackets that a tensor's claim has at most, but for long metadata: MAX_AXES and a few more."""
MAX_AXES = 8
"""No weight has more, and the product of a million numbers is a long time coming."""


@dataclass(frozen=True)
class TensorEntry:
    """One tensor of a file: ``TensorEntry("model-00001.safetensors", "BF16", (576, 576), 34112, 697664)``."""

    file: str
    dtype: str
    shape: tuple[int, ...]
    start: int
    """First byte, counted from the beginning of the file."""
    end: int
    """One past the last byte."""
    packing: Packing | None = None
    """Where the tensor is a weight that several of the file's are packed into: how. Shape and dtype are then those of
    its values, and the bytes those of its codes."""

    @property
    def nbytes(self) -> int:
        return self.end - self.start

    @property
    def stored_bytes(self) -> int:
        """All bytes that the values take in the file: of a packed weight, its scales and zero points too."""
        return self.nbytes if self.packing is None else self.packing.nbytes

    @property
    def numel(self) -> int:
        return math.prod(self.shape)


def read_header(path: Path) -> dict[str, TensorEntry]:
    """Return the tensors of a local safetensors file, reading nothing but its header.

    Raises CheckpointError when the file is shorter than its header says, or the header is not one.
    """
    size = path.stat().st_size
    with path.open("rb") as file:
        prefix = file.read(PREFIX_BYTES)
        length = int.from_bytes(prefix, "little") if len(prefix) == PREFIX_BYTES else -1
        if not 0 < length <= min(MAX_HEADER_BYTES, size - PREFIX_BYTES):
            raise CheckpointError("damaged_file", file=path.name)
        raw = file.read(length)
    return parse_header(path.name, raw, size - PREFIX_BYTES - length)


def parse_header(file: str, raw: bytes, data_bytes: int) -> dict[str, TensorEntry]:
    """Return the tensors that a header's bytes promise, checked against the ``data_bytes`` behind it.

    Raises CheckpointError when it is no header or promises what cannot be.
    """
    check_count(file, raw.count(b'"dtype"'))
    if raw.count(b",") + raw.count(b"[") + raw.count(b"{") > CLAIM_MARKS * MAX_TENSORS:
        raise CheckpointError("too_many_values", file=file, limit=CLAIM_MARKS * MAX_TENSORS)
    try:
        claims = claims_of(raw)
        begin = PREFIX_BYTES + len(raw)
        entries = {name: _claimed(file, claim, begin) for name, claim in claims.items()}
    except (ValueError, TypeError, KeyError, AttributeError, RecursionError) as error:
        raise CheckpointError("damaged_file", file=file) from error
    check_count(file, len(entries))
    _check(file, entries.values(), begin, begin + data_bytes)
    return entries


def check_count(file: str, tensors: int) -> None:
    """Raise CheckpointError for more tensors than a model has: to match them with its parameters takes minutes."""
    if tensors > MAX_TENSORS:
        raise CheckpointError("too_many_tensors", file=file, limit=MAX_TENSORS)


def _claimed(file: str, claim: dict[str, Any], begin: int) -> TensorEntry:
    if claim.keys() != {"dtype", "shape", "data_offsets"} or type(claim["dtype"]) is not str:
        raise ValueError("a claim is of a dtype, a shape and a place")
    start, end = claim["data_offsets"]
    shape = tuple(claim["shape"])
    if len(shape) > MAX_AXES or not all(type(number) is int and number >= 0 for number in (start, end, *shape)):
        raise ValueError("a shape is a few numbers, none negative")
    return TensorEntry(file, claim["dtype"], shape, begin + start, begin + end)


def _check(file: str, entries: Iterable[TensorEntry], begin: int, end: int) -> None:
    """Check one file's entries against each other and against the bytes there are, ``begin`` to ``end``.

    Raises CheckpointError("damaged_file") for a lie, CheckpointError("unknown_dtype") for a dtype we cannot size.
    """
    position = begin
    for entry in sorted(entries, key=lambda entry: (entry.start, entry.end)):
        if entry.dtype not in DTYPE_BYTES:
            raise CheckpointError("unknown_dtype", file=file, dtype=entry.dtype[:20])
        if entry.start != position or entry.nbytes != entry.numel * DTYPE_BYTES[entry.dtype]:
            raise CheckpointError("damaged_file", file=file)
        position = entry.end
    if position != end:
        raise CheckpointError("damaged_file", file=file)
