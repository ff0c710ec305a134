"""A GGUF header is believed only where the file can hold what it says."""

import random
import resource
import struct
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from gguf import GGUFReader, GGUFWriter

from studio.base.errors import CheckpointError
from studio.checkpoint.gguf.header import MAX_ITEMS, Array, read_gguf_header
from studio.checkpoint.gguf.model import READABLE

U64 = "<Q"
SEED = 11
FUZZED = 1500


def number(value: int, form: str = "<I") -> bytes:
    return struct.pack(form, value)


def string(value: str | bytes) -> bytes:
    raw = value.encode() if isinstance(value, str) else value
    return number(len(raw), U64) + raw


def key(name: str, kind: int, value: bytes) -> bytes:
    return string(name) + number(kind) + value


def tensor(name: str, sizes: tuple[int, ...], kind: int = 0, offset: int = 0) -> bytes:
    dims = b"".join(number(size, U64) for size in sizes)
    return string(name) + number(len(sizes)) + dims + number(kind) + number(offset, U64)


def header(keys: list[bytes], tensors: list[bytes], version: int = 3, counts: tuple[int, int] | None = None) -> bytes:
    many, few = counts or (len(tensors), len(keys))
    return b"GGUF" + number(version) + number(many, U64) + number(few, U64) + b"".join(keys + tensors)


def with_data(raw: bytes, nbytes: int, alignment: int = 32) -> bytes:
    return raw + b"\0" * (-len(raw) % alignment) + b"\0" * nbytes


ARCHITECTURE = key("general.architecture", 8, string("llama"))


@pytest.fixture
def put(tmp_path: Path) -> Callable[[bytes], Path]:
    def write(raw: bytes) -> Path:
        path = tmp_path / "m.gguf"
        path.write_bytes(raw)
        return path

    return write


def test_all_of_a_header_is_read_as_gguf_reads_it(tmp_path: Path) -> None:
    writer = GGUFWriter(tmp_path / "m.gguf", "llama")
    writer.add_block_count(2)
    writer.add_rope_freq_base(5e5)
    writer.add_bool("llama.attention.causal", True)
    writer.add_array("llama.attention.head_count_kv", [0, 8, -1])
    writer.add_array("tokenizer.ggml.tokens", ["a", "", "ü" * 300])
    writer.add_array("tokenizer.ggml.scores", [0.5] * 5000)
    writer.add_tensor("token_embd.weight", np.ones((3, 64), np.float16))
    writer.add_tensor("blk.0.attn_norm.weight", np.ones(64, np.float32))
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    found = read_gguf_header(tmp_path / "m.gguf", keep=("tokenizer.ggml.tokens",))
    assert found.metadata == {
        "general.architecture": "llama",
        "llama.block_count": 2,
        "llama.rope.freq_base": 5e5,
        "llama.attention.causal": True,
        "llama.attention.head_count_kv": [0, 8, -1],
        "tokenizer.ggml.tokens": ["a", "", "ü" * 300],
        "tokenizer.ggml.scores": Array("tokenizer.ggml.scores", 5000),
    }
    theirs = GGUFReader(tmp_path / "m.gguf").tensors
    assert [(each.name, each.start, each.nbytes, each.shape) for each in found.tensors] == [
        (each.name, each.data_offset, each.n_bytes, tuple(reversed(each.shape.tolist()))) for each in theirs
    ]


HUGE = 1 << 62
LIES: dict[str, tuple[bytes, str]] = {
    "no-gguf": (b"words, words", "gguf_no_magic"),
    "empty": (b"", "gguf_no_magic"),
    "magic-alone": (b"GGUF", "damaged_file"),
    "version-1": (header([ARCHITECTURE], [], version=1), "gguf_version"),
    "big-endian": (header([ARCHITECTURE], [], version=3 << 24), "gguf_byte_order"),
    "array-of-2^62-numbers": (header([ARCHITECTURE, key("a", 9, number(4) + number(HUGE, U64))], []), "gguf_larger"),
    "array-of-2^62-strings": (header([ARCHITECTURE, key("a", 9, number(8) + number(HUGE, U64))], []), "gguf_larger"),
    "array-of-2^62-arrays": (header([ARCHITECTURE, key("a", 9, number(9) + number(HUGE, U64))], []), "gguf_larger"),
    "string-of-2^62": (header([ARCHITECTURE, key("a", 8, number(HUGE, U64))], []), "gguf_larger"),
    "string-in-an-array-of-2^63": (
        header([key("a", 9, number(8) + number(1, U64) + number(1 << 63, U64))], []),
        "gguf_larger",
    ),
    "key-name-of-2^62": (header([number(HUGE, U64)], []), "gguf_larger"),
    "2^62-tensors": (header([ARCHITECTURE], [], counts=(HUGE, 1)), "gguf_larger"),
    "2^62-keys": (header([ARCHITECTURE], [], counts=(0, HUGE)), "gguf_larger"),
    "one-key-more": (header([ARCHITECTURE], [], counts=(0, 2)), "damaged_file"),
    "unknown-type": (header([key("a", 99, number(1))], []), "gguf_bad_value"),
    "unknown-type-in-an-array": (header([key("a", 9, number(99) + number(0, U64))], []), "gguf_bad_value"),
    "arrays-without-end": (header([key("a", 9, (number(9) + number(1, U64)) * 5000)], []), "gguf_bad_value"),
    "text-that-is-none": (header([key("a", 8, string(b"\xff\xfe"))], []), "gguf_bad_value"),
    "bool-of-7": (header([key("a", 7, b"\x07")], []), "gguf_bad_value"),
    "key-twice": (header([ARCHITECTURE, ARCHITECTURE], []), "gguf_twice"),
    "nameless-key": (header([key("", 4, number(1))], []), "gguf_bad_value"),
    "long-name": (header([], [tensor("x" * 5000, (32,))]), "gguf_bad_value"),
    "alignment-of-3": (header([key("general.alignment", 4, number(3))], []), "gguf_bad_value"),
    "alignment-of-0": (header([key("general.alignment", 4, number(0))], []), "gguf_bad_value"),
    "alignment-in-words": (header([key("general.alignment", 8, string("32"))], []), "gguf_bad_value"),
    "no-dimensions": (with_data(header([], [tensor("t", ())]), 64), "gguf_bad_value"),
    "a-billion-dimensions": (
        header([], [string("t") + number(1 << 30) + number(1, U64) * 3 + number(0) + number(0, U64)]),
        "gguf_bad_value",
    ),
    "empty-tensor": (with_data(header([], [tensor("t", (32, 0))]), 64), "gguf_bad_value"),
    "tensor-of-2^62": (with_data(header([], [tensor("t", (HUGE,))]), 64), "gguf_larger"),
    "dimensions-that-overflow": (with_data(header([], [tensor("t", (1 << 32, 1 << 32))]), 64), "gguf_larger"),
    "half-a-block": (with_data(header([], [tensor("t", (33,), kind=2)]), 64), "gguf_bad_value"),
    "unknown-tensor-type": (with_data(header([], [tensor("t", (32,), kind=999)]), 64), "unknown_dtype"),
    "beyond-the-end": (with_data(header([], [tensor("t", (16,), offset=1 << 40)]), 64), "damaged_file"),
    "unaligned": (with_data(header([], [tensor("t", (4,), offset=4)]), 64), "gguf_bad_value"),
    "tensor-twice": (
        with_data(header([], [tensor("t", (8,)), tensor("t", (8,), offset=32)]), 64), "gguf_twice",
    ),
    "into-each-other": (
        with_data(header([], [tensor("t", (16,)), tensor("u", (8,), offset=32)]), 64), "gguf_overlap",
    ),
    "the-same-bytes": (with_data(header([], [tensor("t", (8,)), tensor("u", (8,))]), 64), "gguf_overlap"),
}  # fmt: skip


@pytest.mark.parametrize("name", LIES)
def test_a_header_that_lies_is_refused_with_the_true_reason(name: str, put: Callable[[bytes], Path]) -> None:
    raw, reason = LIES[name]
    with pytest.raises(CheckpointError) as refused:
        read_gguf_header(put(raw))
    assert refused.value.key == reason
    assert "m.gguf" in str(refused.value)


def test_a_vocabulary_of_millions_is_refused_before_it_is_read(put: Callable[[bytes], Path]) -> None:
    count = MAX_ITEMS + 1
    raw = header([key("tokenizer.ggml.tokens", 9, number(8) + number(count, U64) + bytes(8 * count))], [])
    began = time.process_time()
    with pytest.raises(CheckpointError, match=r"tokenizer\.ggml\.tokens") as refused:
        read_gguf_header(put(raw))
    assert refused.value.key == "gguf_too_many"
    assert time.process_time() - began < 1


@pytest.mark.parametrize("share", [0.1, 0.5, 0.9, 0.999])
def test_a_header_cut_short_is_called_so(share: float, put: Callable[[bytes], Path]) -> None:
    tokens = b"".join(string(f"token {index}") for index in range(300))
    raw = header([ARCHITECTURE, key("tokenizer.ggml.tokens", 9, number(8) + number(300, U64) + tokens)], [])
    with pytest.raises(CheckpointError) as refused:
        read_gguf_header(put(raw[: int(share * len(raw))]))
    assert refused.value.key == "damaged_file"


def test_any_change_of_a_file_is_read_or_refused(put: Callable[[bytes], Path]) -> None:
    """Bytes flipped, lengths set to extremes, the end cut off: never another kind of error, never much memory."""
    scores = number(6) + number(40, U64) + bytes(160)
    tokens = number(8) + number(40, U64) + b"".join(string(f"t{index}") for index in range(40))
    keys = [ARCHITECTURE, key("llama.block_count", 4, number(1)), key("s", 9, scores), key("t", 9, tokens)]
    nested = key("n", 9, number(9) + number(2, U64) + (number(4) + number(1, U64) + number(7)) * 2)
    sound = with_data(header([*keys, nested], [tensor("a", (8, 8)), tensor("b", (32,), 8, 256)]), 320)
    pick, outcomes = random.Random(SEED), {"read": 0, "refused": 0}
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    for _ in range(FUZZED):
        raw = bytearray(sound)
        for _ in range(pick.randint(1, 3)):
            at, way = pick.randrange(4, len(raw) - 340), pick.random()
            if way < 0.5:
                raw[at] = pick.randrange(256)
            elif way < 0.9:
                raw[at : at + 8] = number(pick.choice((0, 1, 255, 1 << 31, 1 << 32, HUGE, (1 << 64) - 1)), U64)
            else:
                del raw[at + 30 :]
                break
        try:
            read_gguf_header(put(bytes(raw)))
            outcomes["read"] += 1
        except CheckpointError:
            outcomes["refused"] += 1
    assert outcomes["refused"] > FUZZED / 4
    assert outcomes["read"] > FUZZED / 100
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 100_000  # kB


@pytest.mark.parametrize("kind", sorted(READABLE))
def test_types_said_to_be_readable_are(kind: str) -> None:
    from gguf import GGML_QUANT_SIZES, GGMLQuantizationType, dequantize

    block, nbytes = GGML_QUANT_SIZES[GGMLQuantizationType[kind]]
    values = dequantize(np.zeros((2, nbytes), np.uint8), GGMLQuantizationType[kind])
    assert values.shape == (2, block)
    assert values.dtype == np.float32
