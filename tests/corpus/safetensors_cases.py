"""Weight files whose headers lie, and indexes that point elsewhere."""

import json
from collections.abc import Callable
from typing import Any

from tests.corpus.case import INDEX, WEIGHTS, Case, Place, read_header, write_header

NORM, UP = "model.norm.weight", "model.layers.0.mlp.up_proj.weight"
DAMAGED = ("damaged_file",)
Header = dict[str, Any]


def raw(change: Callable[[bytes], bytes]) -> Callable[[Place], None]:
    """Change the file's bytes."""

    def build(place: Place) -> None:
        file = place.llama() / WEIGHTS
        file.write_bytes(change(file.read_bytes()))

    return build


def header(change: Callable[[Header], object]) -> Callable[[Place], None]:
    """Change the header as JSON; what is returned stands in its place."""

    def build(place: Place) -> None:
        file = place.llama() / WEIGHTS
        said, data = read_header(file)
        changed = change(said)
        write_header(file, json.dumps(said if changed is None else changed).encode(), data)

    return build


def instead(text: bytes) -> Callable[[Place], None]:
    """Put other bytes in the header's place."""
    return lambda place: write_header(place.llama() / WEIGHTS, text, b"\0" * 64)


def of(name: str, **said: object) -> Callable[[Place], None]:
    """Say something else of one tensor."""
    return header(lambda each: each[name].update(said))


def index(change: Callable[[dict[str, Any]], object]) -> Callable[[Place], None]:
    """Write an index beside the weights, which are a shard then."""

    def build(place: Place) -> None:
        folder = place.llama()
        (folder / WEIGHTS).rename(folder / "model-00001-of-00001.safetensors")
        names = [name for name in read_header(folder / "model-00001-of-00001.safetensors")[0] if name[0] != "_"]
        content = {"metadata": {}, "weight_map": dict.fromkeys(names, "model-00001-of-00001.safetensors")}
        changed = change(content)
        (folder / INDEX).write_text(json.dumps(changed if isinstance(changed, list | dict) else content))

    return build


def shard(name: object) -> Callable[[Place], None]:
    return index(lambda content: content["weight_map"].update({NORM: name}))


def overlapping(said: Header) -> None:
    start, _ = said[UP]["data_offsets"]
    said[NORM]["data_offsets"] = [start, start + 128]


def hole(place: Place) -> None:
    file = place.llama() / WEIGHTS
    said, data = read_header(file)
    for entry in said.values():
        if "data_offsets" in entry:
            entry["data_offsets"] = [each + 64 for each in entry["data_offsets"]]
    write_header(file, json.dumps(said).encode(), b"\0" * 64 + data)


def sparse(place: Place) -> None:
    """A header of half a gigabyte that takes no disk."""
    file = place.llama() / WEIGHTS
    with file.open("wb") as out:
        out.write((500 << 20).to_bytes(8, "little"))
        out.truncate(600 << 20)


def crowded(place: Place) -> None:
    """Two hundred thousand tensors of nothing beside the model's own."""
    file = place.llama() / WEIGHTS
    said, data = read_header(file)
    end = len(data)
    said |= {f"x{i}": {"dtype": "BF16", "shape": [0], "data_offsets": [end, end]} for i in range(200_000)}
    write_header(file, json.dumps(said).encode(), data)


def not_numbers(place: Place) -> None:
    file = place.llama() / WEIGHTS
    said, data = read_header(file)
    start, _ = said[UP]["data_offsets"]
    write_header(file, json.dumps(said).encode(), data[:start] + b"\xc0\x7f" * 8 + data[start + 16 :])


CASES = (
    Case("empty", raw(lambda _: b""), DAMAGED),
    Case("cut in its length", raw(lambda whole: whole[:5]), DAMAGED),
    Case("cut in its header", raw(lambda whole: whole[:100]), DAMAGED),
    Case("cut in its data", raw(lambda whole: whole[:-9]), DAMAGED),
    Case("bytes after its data", raw(lambda whole: whole + b"\0" * 32), DAMAGED),
    Case("header of 2^63 bytes", raw(lambda whole: (1 << 63).to_bytes(8, "little") + whole[8:]), DAMAGED),
    Case("header of none", raw(lambda whole: b"\0" * 8 + whole[8:]), DAMAGED),
    Case("header of half a gigabyte", sparse, DAMAGED),
    Case("header that is a list", header(lambda said: [said]), DAMAGED),
    Case("header in another encoding", instead(b'{"a\xff": 1}'), DAMAGED),
    Case("header nested a million deep", instead(b"[" * 1_000_000), DAMAGED),
    Case("header nested in objects", instead(b'{"a":' * 200_000), DAMAGED),
    Case("number of a million digits", instead(b'{"a":' + b"9" * 1_000_000 + b"}"), DAMAGED),
    Case("one name twice", instead(b'{"a":{"dtype":"F32","shape":[8],"data_offsets":[0,32]},'
                                   b'"a":{"dtype":"F32","shape":[8],"data_offsets":[32,64]}}'), DAMAGED),
    Case("two tensors in one place", header(overlapping), DAMAGED),
    Case("hole before the first", hole, DAMAGED),
    Case("ends before it begins", of(UP, data_offsets=[4096, 0]), DAMAGED),
    Case("begins before the file", of(UP, data_offsets=[-4096, 12288]), DAMAGED),
    Case("ends beyond the file", of(UP, data_offsets=[0, 1 << 60]), DAMAGED),
    Case("offsets of floats", of(NORM, data_offsets=[0.0, 128.0]), DAMAGED),
    Case("offsets of words", of(NORM, data_offsets=["0", "128"]), DAMAGED),
    Case("offsets that are none", of(NORM, data_offsets=None), DAMAGED),
    Case("sizes below nothing", of(NORM, shape=[-64]), DAMAGED),
    Case("sizes whose product is 0 in 64 bits", of(UP, shape=[1 << 32, 1 << 32]), DAMAGED),
    Case("sizes of floats", of(NORM, shape=[64.0]), DAMAGED),
    Case("sizes of truths", of(NORM, shape=[True, 64]), DAMAGED),
    Case("ten thousand dimensions", of(NORM, shape=[1] * 10_000), (*DAMAGED, "tensor_mismatch", "file_too_large")),
    Case("dtype that is none", of(NORM, dtype="F128"), (*DAMAGED, "unknown_dtype")),
    Case("dtype that is a list", of(NORM, dtype=["F32"]), DAMAGED),
    Case("weights of integers", of(UP, dtype="I16"), (*DAMAGED, "unknown_dtype", "tensor_mismatch", "integer_weight")),
    Case("metadata of numbers", header(lambda said: said.update(__metadata__={"format": [1]})), DAMAGED, may_work=True),
    Case("two hundred thousand tensors", crowded, (*DAMAGED, "file_too_large"), may_work=True),
    Case("tensor called by a path", header(lambda said: said.update({"../../" + NORM: said.pop(NORM)})),
         ("tensor_missing", "tensor_no_place"), named="model.norm"),
    Case("tensor called by escapes", header(lambda said: said.update({"\x1b[2J\x07" + UP: said.pop(UP)})),
         ("tensor_missing", "tensor_no_place", *DAMAGED)),
    Case("tensor with a name of a megabyte", header(lambda said: said.update({"a" * 1_000_000: said.pop(NORM)})),
         ("tensor_missing", "tensor_no_place", *DAMAGED)),
    Case("tensor called __class__", header(lambda said: said.update({"__class__.weight": said.pop(NORM)})),
         ("tensor_missing", "tensor_no_place")),
    Case("weights that are no numbers", not_numbers, ("not_finite",), named=UP),
    Case("shard above the folder", shard("../model.safetensors"), ("bad_index",)),
    Case("shard by a whole path", shard("/etc/passwd"), ("bad_index",)),
    Case("shard by a path of another system", shard("..\\model.safetensors"), ("bad_index",)),
    Case("shard with a nul", shard("model\0.safetensors"), ("bad_index",)),
    Case("shard that is a number", shard(7), ("bad_index",)),
    Case("shard that is a pickle", shard("pytorch_model.bin"), ("bad_index", "missing_file", "only_pickles")),
    Case("shard that is not there", shard("model-00002-of-00001.safetensors"), ("missing_file",)),
    Case("shard called by escapes", shard("\x1b[31m.safetensors"), ("bad_index", "missing_file")),
    Case("index without a map", index(lambda _: {"metadata": {}}), ("index_without_map",)),
    Case("index that is a list", index(lambda content: list(content)), ("not_an_object", "index_without_map")),
    Case("index of a hundred thousand shards", index(lambda content: content["weight_map"].update(
        {f"t{i}": f"model-{i}.safetensors" for i in range(100_000)})), ("missing_file", "bad_index", "file_too_large")),
    Case("index that leaves a tensor out", index(lambda content: content["weight_map"].pop(UP)),
         ("tensor_missing", "bad_index"), may_work=True),
)  # fmt: skip
