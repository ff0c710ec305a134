"""GGUF files whose header, metadata or tensors lie."""

import math
import struct
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from tests.corpus.case import COMPRESS, GGUF, Case, Place

BAD = ("gguf_unreadable", "gguf_larger", "gguf_bad_value", "gguf_too_many", "gguf_twice", "gguf_overlap",
       "gguf_key_missing", "gguf_tensor_missing", "gguf_tensor_shape", "gguf_tensor_no_place", "gguf_vocabulary",
       "gguf_tokenizer", "gguf_rope", "gguf_setting", "gguf_header_too_long", "damaged_file",
       "wrong_config_value", "unaccepted_value", "bad_config_pair")  # fmt: skip
U8, I32, STRING, ARRAY, U64 = 0, 5, 8, 9, 10
ARCHITECTURE = b"general.architecture"


def number(value: int) -> bytes:
    return struct.pack("<Q", value)


def string(value: bytes) -> bytes:
    return number(len(value)) + value


def key(name: bytes, kind: int, value: bytes) -> bytes:
    return string(name) + struct.pack("<I", kind) + value


def tensor(name: bytes, sizes: tuple[int, ...], kind: int = 0, offset: int = 0) -> bytes:
    said = string(name) + struct.pack("<I", len(sizes)) + b"".join(map(number, sizes))
    return said + struct.pack("<I", kind) + number(offset)


LLAMA = key(ARCHITECTURE, STRING, string(b"llama"))


def raw(content: bytes) -> Callable[[Place], object]:
    return lambda place: (place.folder / GGUF).write_bytes(content)


def header(
    *parts: bytes, tensors: int = 0, keys: int = 1, version: int = 3, data: int = 4096
) -> Callable[[Place], object]:
    """Write a header that counts so many tensors and keys."""
    said = b"GGUF" + struct.pack("<I", version) + number(tensors) + number(keys) + b"".join(parts)
    return raw(said + b"\0" * (-len(said) % 32 + data))


def told(**metadata: Any) -> Callable[[Place], object]:
    """Say something else of the tiny model; ``__`` stands for a dot, a name with one before it is Llama's own."""
    return lambda place: place.gguf({name.replace("__", "."): value for name, value in metadata.items()})


def arrays(change: Callable[[dict[str, Any]], object]) -> Callable[[Place], object]:
    return lambda place: place.gguf(None, change)


def changed(change: Callable[[bytes], bytes]) -> Callable[[Place], object]:
    """Change the bytes of the file."""

    def build(place: Place) -> None:
        file = place.gguf()
        file.write_bytes(change(file.read_bytes()))

    return build


def linked(place: Place) -> None:
    place.secret.write_text("secret")
    (place.folder / GGUF).symlink_to(place.secret)


def nothing_in(values: dict[str, Any]) -> None:
    values["blk.0.ffn_up.weight"] = np.full_like(values["blk.0.ffn_up.weight"], math.nan)


def opened(name: str, build: Callable[[Place], object], *keys: str, may_work: bool = False) -> Case:
    return Case(name, build, (*BAD, *keys), COMPRESS, GGUF, may_work)


def endless(place: Place) -> Path:
    return place.gguf({"tokenizer.chat_template": "{% for i in range(10**9) %}{% endfor %}"})


CASES = (
    opened("empty", raw(b""), "gguf_no_magic"),
    opened("other first bytes", raw(b"GGML" + b"\0" * 64), "gguf_no_magic"),
    opened("nothing but its first bytes", raw(b"GGUF")),
    opened("version 99", header(LLAMA, version=99), "gguf_version"),
    opened("the other byte order", header(LLAMA, version=3 << 24), "gguf_byte_order", "gguf_version"),
    opened("2^62 tensors", header(LLAMA, tensors=1 << 62)),
    opened("2^62 keys", header(LLAMA, keys=1 << 62)),
    opened("a key of 2^63 bytes", header(number(1 << 63) + b"a")),
    opened("a string of 2^63 bytes", header(LLAMA, key(b"a", STRING, number(1 << 63)), keys=2)),
    opened("an array of 2^62 numbers", header(LLAMA, key(b"a", ARRAY, struct.pack("<I", I32) + number(1 << 62)),
                                              keys=2)),
    opened("an array of 2^40 strings", header(LLAMA, key(b"a", ARRAY, struct.pack("<I", STRING) + number(1 << 40)),
                                              keys=2)),
    opened("arrays within arrays", header(LLAMA, key(b"a", ARRAY, (struct.pack("<I", ARRAY) + number(1)) * 20_000),
                                          keys=2)),
    opened("a value of no type", header(LLAMA, key(b"a", 77, b"\0" * 8), keys=2)),
    opened("an architecture that is a number", header(key(ARCHITECTURE, U64, number(7))), "gguf_architecture"),
    opened("no architecture", header(key(b"a", U64, number(7))), "gguf_architecture"),
    opened("an architecture that is a path", header(key(ARCHITECTURE, STRING, string(b"../../evil"))),
           "gguf_architecture"),
    opened("an architecture of escapes", header(key(ARCHITECTURE, STRING, string(b"\x1b[2J"))), "gguf_architecture"),
    opened("a name in another encoding", header(LLAMA, key(b"\xff\xfe", U64, number(7)), keys=2)),
    opened("one key twice", header(LLAMA, LLAMA, keys=2)),
    opened("a tensor of 2^64 numbers", header(LLAMA, tensor(b"t", (1 << 32, 1 << 32)), tensors=1)),
    opened("a tensor of 200 dimensions", header(LLAMA, tensor(b"t", (1,) * 200), tensors=1)),
    opened("a tensor of no size", header(LLAMA, tensor(b"token_embd.weight", (0, 64)), tensors=1)),
    opened("a tensor of no type", header(LLAMA, tensor(b"t", (32,), 199), tensors=1), "unknown_dtype"),
    opened("a tensor beyond the file", header(LLAMA, tensor(b"t", (32,), 0, 1 << 50), tensors=1)),
    opened("a tensor beside the rows of 32", header(LLAMA, tensor(b"t", (32,), 0, 7), tensors=1)),
    opened("two tensors in one place", header(LLAMA, tensor(b"t", (32,)), tensor(b"u", (32,)), tensors=2)),
    opened("one tensor twice", header(LLAMA, tensor(b"t", (32,)), tensor(b"t", (32,), 0, 128), tensors=2)),
    opened("alignment of 0", told(general__alignment=0)),
    opened("alignment of 2^31", header(LLAMA, key(b"general.alignment", 4, struct.pack("<I", 1 << 31)), keys=2)),
    opened("cut in half", changed(lambda whole: whole[: len(whole) // 2])),
    opened("cut in its last tensor", changed(lambda whole: whole[:-64])),
    opened("without a norm", arrays(lambda each: each.pop("output_norm.weight"))),
    opened("without a block's weight", arrays(lambda each: each.pop("blk.1.ffn_up.weight"))),
    opened("with a weight too many", arrays(lambda each: each.update(extra=np.zeros((32, 32), np.float32)))),
    opened("a weight of another shape", arrays(lambda each: each.update({
        "blk.0.ffn_up.weight": np.zeros((32, 64), np.float32)}))),
    opened("weights that are no numbers", arrays(nothing_in), "gguf_tensor_not_finite", "not_finite"),
    opened("10^9 blocks", told(**{".block_count": 10**9}), "too_many_layers"),
    opened("no blocks", told(**{".block_count": 0})),
    opened("no heads", told(**{".attention.head_count": 0})),
    opened("more heads that are shared than heads", told(**{".attention.head_count_kv": 16})),
    opened("3 heads that share 2", told(**{".attention.head_count": 3})),
    opened("a width of 2^31", told(**{".embedding_length": 1 << 31})),
    opened("a context of 2^31", told(**{".context_length": 1 << 31}), "large_buffers", may_work=True),
    opened("rotations of no number", told(**{".rope.freq_base": math.nan})),
    opened("rotations without end", told(**{".rope.dimension_count": 1 << 20})),
    opened("no epsilon", told(**{".attention.layer_norm_rms_epsilon": math.nan})),
    opened("no width", told(**{".embedding_length": None})),
    opened("no tokens", told(tokenizer__ggml__tokens=None), "no_tokenizer"),
    opened("tokens that are numbers", told(tokenizer__ggml__tokens=[1, 2, 3])),
    opened("one token", told(tokenizer__ggml__tokens=["a"])),
    opened("merges of words that are not there", told(tokenizer__ggml__merges=["q z9", "nothing"]), may_work=True),
    opened("merges that are no pairs", told(tokenizer__ggml__merges=["one", "two three four"]), may_work=True),
    opened("a tokenizer of no kind", told(tokenizer__ggml__model="oracle")),
    opened("an end beyond the tokens", told(tokenizer__ggml__eos_token_id=1 << 31), may_work=True),
    opened("the first of 65000 parts", told(split__no=0, split__count=65000, split__tensors__count=3),
           "gguf_part_missing", "gguf_part_renamed", "gguf_join_first"),
    opened("a link to another file", linked, "gguf_no_magic", "link_out"),
    Case("a template that loops", endless, ("template_endless", "template_failed"),
         ("chat", "{model}", "--prompt", "Hello"), GGUF),
)  # fmt: skip
