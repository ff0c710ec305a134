"""The header of one GGUF file: its metadata, and what tensors it holds and where. Knows nothing of models.

Anyone may have written a header, so every length is checked against the bytes that there are before anything is read,
and nothing is kept that the file does not hold: a lying one costs no more than an honest one.

The format: magic, version, counts of tensors and of metadata; the metadata, each a name, a type and a value; for each
tensor a name, dimensions (the innermost first), a type and an offset; then, aligned, the tensors.
"""

import math
import struct
from collections.abc import Collection
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import BinaryIO

from studio.base.errors import CheckpointError
from studio.base.units import format_bytes

MAGIC = b"GGUF"
VERSIONS = (2, 3)
NUMBERS = {
    0: "B", 1: "b", 2: "H", 3: "h", 4: "I", 5: "i", 6: "f", 7: "?", 10: "Q", 11: "q", 12: "d",
}  # fmt: skip
"""Metadata of a fixed size, by the type's number: how ``struct`` reads it."""
STRING, ARRAY = 8, 9

DEFAULT_ALIGNMENT = 32
MAX_ALIGNMENT = 1 << 20
MAX_HEADER = 100_000_000
"""Bytes; the largest known takes a fifth of it."""
READ_AHEAD = 1 << 20
MAX_NAME = 1 << 10
"""Bytes of a tensor's or a key's name; llama.cpp takes 64."""
MAX_DIMENSIONS = 4
"""The most that ggml has."""
MAX_TENSORS = 1 << 14
MAX_TENSOR = 1 << 42
"""Bytes; no disk at home holds more."""
MAX_KEYS = 10_000
MAX_ITEMS = 1 << 21
"""Strings that a header may hold, and numbers in an array of it: several times the largest vocabulary's merges."""
MAX_TOKEN = 1 << 14
"""Bytes of a string within an array."""
MAX_NESTED = 4
"""Arrays within each other; no model has any."""
NESTED_COST = 1 << 6
"""How many strings take as long to read as one array within another."""
KEPT_NUMBERS = 1 << 12
"""An array of more numbers is a vocabulary's scores; only how many there are is kept."""


@dataclass(frozen=True)
class Array:
    """An array of which only this is kept: ``Array("tokenizer.ggml.scores", 49152)``."""

    key: str
    length: int


Value = int | float | bool | str | list[int | float | bool] | list[str] | Array


@dataclass(frozen=True)
class GgufTensor:
    """One tensor: ``GgufTensor("blk.0.attn_q.weight", "Q4_K", (576, 576), 1024, 187520)``."""

    name: str
    type: str
    """ggml's name of it."""
    shape: tuple[int, ...]
    """As torch has it, the innermost dimension last."""
    start: int
    """First byte, counted from the beginning of the file."""
    end: int

    @property
    def numel(self) -> int:
        return math.prod(self.shape)

    @property
    def nbytes(self) -> int:
        return self.end - self.start


@dataclass(frozen=True)
class GgufHeader:
    """What one file says, as far as it can be so."""

    path: Path
    size: int
    metadata: dict[str, Value]
    tensors: tuple[GgufTensor, ...]


def read_gguf_header(path: Path, keep: Collection[str] = ()) -> GgufHeader:
    """Return the header of a .gguf file. Strings of an array are kept where ``keep`` names its key.

    Raises CheckpointError for a file that is not GGUF, is cut short, or says what cannot be.
    """
    size = path.stat().st_size
    with path.open("rb") as file:
        if file.read(len(MAGIC)) != MAGIC:
            raise CheckpointError("gguf_no_magic", file=path.name)
        return _Reader(path, file, size, keep).header()


class _Reader:
    """Reads one header from front to back."""

    def __init__(self, path: Path, file: BinaryIO, size: int, keep: Collection[str]) -> None:
        self._path, self._file, self._size, self._keep = path, file, size, keep
        # Read, not mapped: a file that someone cuts short meanwhile would end the process.
        self._data = bytearray(MAGIC)
        self._at = len(MAGIC)
        self._items = 0
        """Strings in arrays, so far."""

    def header(self) -> GgufHeader:
        version = self._number("I", "version")
        if version not in VERSIONS:
            swapped = int.from_bytes(int(version).to_bytes(4, "little"), "big")
            if swapped in VERSIONS:
                raise CheckpointError("gguf_byte_order", file=self._path.name)
            raise CheckpointError("gguf_version", file=self._path.name, version=version)
        tensors = int(self._count("tensor_count", 24, MAX_TENSORS))
        keys = int(self._count("kv_count", 13, MAX_KEYS))
        metadata: dict[str, Value] = {}
        for _ in range(keys):
            key = self._name("kv_count")
            if key in metadata:
                raise CheckpointError("gguf_twice", file=self._path.name, name=shown(key))
            metadata[key] = self._value(key, int(self._number("I", key)))
        claims = [self._claim() for _ in range(tensors)]
        alignment = metadata.get("general.alignment", DEFAULT_ALIGNMENT)
        if type(alignment) is not int or not 0 < alignment <= MAX_ALIGNMENT or alignment & (alignment - 1):
            raise self._wrong("general.alignment", alignment)
        begin = -(-self._at // alignment) * alignment
        return GgufHeader(self._path, self._size, metadata, self._placed(claims, begin, alignment))

    def _placed(
        self, claims: list[tuple[str, str, tuple[int, ...], int, int]], begin: int, alignment: int
    ) -> tuple[GgufTensor, ...]:
        """Return the tensors, checked against each other and against the file's end."""
        names: set[str] = set()
        found = []
        for name, kind, shape, offset, nbytes in claims:
            if name in names:
                raise CheckpointError("gguf_twice", file=self._path.name, name=shown(name))
            names.add(name)
            if offset % alignment:
                raise self._wrong(f"{name} offset", offset)
            self._fits(nbytes, name, MAX_TENSOR)
            if begin + offset + nbytes > self._size:
                raise CheckpointError("damaged_file", file=self._path.name)
            found.append(GgufTensor(name, kind, shape, begin + offset, begin + offset + nbytes))
        for before, after in pairwise(sorted(found, key=lambda tensor: (tensor.start, tensor.end))):
            if before.end > after.start:
                raise CheckpointError(
                    "gguf_overlap", file=self._path.name, first=shown(before.name), second=shown(after.name)
                )
        return tuple(found)

    def _claim(self) -> tuple[str, str, tuple[int, ...], int, int]:
        """Return what the header says of the next tensor: name, type, shape, offset and, from these, its bytes."""
        name = self._name("tensor_count")
        dimensions = self._number("I", name)
        if not 0 < dimensions <= MAX_DIMENSIONS:
            raise self._wrong(f"{name} n_dimensions", dimensions)
        sizes = [int(self._number("Q", name)) for _ in range(int(dimensions))]
        number = int(self._number("I", name))
        offset = int(self._number("Q", name))
        kind, block, block_bytes = _tensor_type(number, self._path.name)
        if not all(sizes):
            raise self._wrong(f"{name} dimensions", sizes)
        if sizes[0] % block:
            raise self._wrong(f"{name} dimensions", f"{sizes}, {kind}")
        nbytes = math.prod(sizes) // block * block_bytes
        return name, kind, tuple(reversed(sizes)), offset, nbytes

    def _value(self, key: str, kind: int) -> Value:
        if kind in NUMBERS:
            return self._number(NUMBERS[kind], key)
        if kind == STRING:
            return self._text(key, self._size)
        if kind == ARRAY:
            return self._array(key, 1)
        raise self._wrong(f"{key} type", kind)

    def _array(self, key: str, depth: int) -> Value:
        kind = int(self._number("I", key))
        length = int(self._number("Q", key))
        if kind in NUMBERS:
            width = struct.calcsize(f"<{NUMBERS[kind]}")
            self._fits(length * width, key)
            if length > MAX_ITEMS:
                raise CheckpointError(
                    "gguf_too_many", file=self._path.name, key=shown(key), count=length, limit=MAX_ITEMS
                )
            start = self._take(length * width)
            if length > KEPT_NUMBERS:
                return Array(key, length)
            return list(struct.unpack_from(f"<{length}{NUMBERS[kind]}", self._data, start))
        if kind == STRING:
            return self._strings(key, length)
        if kind == ARRAY and depth < MAX_NESTED:
            self._fits(length * 12, key)
            self._count_items(key, length * NESTED_COST)
            for _ in range(length):
                self._array(key, depth + 1)
            return Array(key, length)
        raise self._wrong(f"{key} type", kind)

    def _strings(self, key: str, length: int) -> Value:
        self._fits(length * 8, key)
        self._count_items(key, length)
        kept: list[str] = []
        data, at, unpack = self._data, self._at, struct.Struct("<Q").unpack_from
        for _ in range(length):
            if at + 8 > len(data):
                self._load(at + 8)
            (count,) = unpack(data, at)
            at += 8
            if count > MAX_TOKEN:
                self._fits(count, key)
                raise self._wrong(f"{key} length", count)
            if at + count > len(data):
                self._load(at + count)
            if key in self._keep:
                kept.append(self._decoded(data[at : at + count], key))
            at += count
        self._at = at
        return kept if key in self._keep else Array(key, length)

    def _count_items(self, key: str, length: int) -> None:
        self._items += length
        if self._items > MAX_ITEMS:
            raise CheckpointError("gguf_too_many", file=self._path.name, key=shown(key), count=length, limit=MAX_ITEMS)

    def _count(self, key: str, each: int, most: int) -> int:
        """Return how many there are of something that takes ``each`` bytes at least."""
        count = int(self._number("Q", key))
        self._fits(count * each, key)
        if count > most:
            raise CheckpointError("gguf_too_many", file=self._path.name, key=key, count=count, limit=most)
        return count

    def _name(self, where: str) -> str:
        name = self._text(where, MAX_NAME)
        if not name:
            raise self._wrong(f"{where} name", '""')
        return name

    def _text(self, key: str, most: int) -> str:
        length = int(self._number("Q", key))
        self._fits(length, key)
        if length > most:
            raise self._wrong(f"{key} length", length)
        start = self._take(length)
        return self._decoded(self._data[start : start + length], key)

    def _decoded(self, raw: bytes | bytearray, key: str) -> str:
        try:
            return raw.decode("utf-8")
        except UnicodeDecodeError as error:
            raise self._wrong(key, repr(raw[:20])) from error

    def _number(self, form: str, key: str) -> int | float | bool:
        width = struct.calcsize(f"<{form}")
        start = self._take(width)
        if form == "?" and self._data[start] > 1:
            raise self._wrong(key, self._data[start])
        value: int | float | bool = struct.unpack_from(f"<{form}", self._data, start)[0]
        return value

    def _take(self, length: int) -> int:
        """Return where the next bytes begin, and go past them."""
        start, self._at = self._at, self._at + length
        if self._at > len(self._data):
            self._load(self._at)
        return start

    def _load(self, end: int) -> None:
        """Read on, to ``end`` at least."""
        if end > MAX_HEADER:
            raise CheckpointError("gguf_header_too_long", file=self._path.name, limit=format_bytes(MAX_HEADER))
        self._data += self._file.read(max(end - len(self._data), READ_AHEAD))
        if end > len(self._data):
            raise CheckpointError("damaged_file", file=self._path.name)

    def _fits(self, nbytes: int, name: str, most: int = MAX_HEADER) -> None:
        """Raise CheckpointError for something larger than the whole file: one that was cut short where the file could
        have been so long, a lie where it is more than the ``most`` that any has."""
        if nbytes <= self._size:
            return
        if nbytes <= most:
            raise CheckpointError("damaged_file", file=self._path.name)
        need, size = format_bytes(nbytes), format_bytes(self._size)
        raise CheckpointError("gguf_larger", file=self._path.name, name=shown(name), need=need, size=size)

    def _wrong(self, key: str, value: object) -> CheckpointError:
        return CheckpointError("gguf_bad_value", file=self._path.name, key=shown(key), value=shown(str(value)))


def shown(name: str) -> str:
    """Return a stranger's name as it can be put into a sentence."""
    return "".join(character if character.isprintable() else "?" for character in name[:100])


def _tensor_type(number: int, file: str) -> tuple[str, int, int]:
    """Return a ggml type's name, the weights of a block of it, and the block's bytes."""
    from gguf import GGML_QUANT_SIZES, GGMLQuantizationType

    try:
        kind = GGMLQuantizationType(number)
        block, nbytes = GGML_QUANT_SIZES[kind]
    except (ValueError, KeyError):
        raise CheckpointError("unknown_dtype", file=file, dtype=f"ggml {number}") from None
    return kind.name, int(block), int(nbytes)
