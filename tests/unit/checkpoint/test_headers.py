"""A safetensors header is believed only where every claim in it holds."""

import json
import random
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors import deserialize
from safetensors.torch import save_file

from studio.base.errors import CheckpointError
from studio.checkpoint.headers import MAX_HEADER_BYTES, MAX_TENSORS, TensorEntry, parse_header, read_header

F32_PAIR: dict[str, Any] = {
    "a": {"dtype": "F32", "shape": [2, 3], "data_offsets": [0, 24]},
    "b": {"dtype": "F32", "shape": [2], "data_offsets": [24, 32]},
}
"""A good header over 32 bytes of data."""


def write(folder: Path, header: object, data_bytes: int = 32, claimed_length: int | None = None) -> Path:
    """Write a file with this header; ``bytes`` go in as they are, anything else as JSON."""
    raw = header if isinstance(header, bytes) else json.dumps(header).encode()
    path = folder / "model.safetensors"
    length = len(raw) if claimed_length is None else claimed_length
    path.write_bytes(length.to_bytes(8, "little") + raw + bytes(data_bytes))
    return path


def changed(name: str, **claims: object) -> dict[str, Any]:
    """Return the good header with some claims of one tensor changed."""
    return F32_PAIR | {name: F32_PAIR[name] | claims}


def test_a_good_header_gives_every_tensor_with_its_place(tmp_path: Path) -> None:
    path = tmp_path / "model.safetensors"
    tensors = {
        "half": torch.arange(6, dtype=torch.float16).reshape(2, 3),
        "brain": torch.arange(8, dtype=torch.bfloat16),
        "byte": torch.arange(5, dtype=torch.uint8),
        "scalar": torch.tensor(7.0),
        "empty": torch.zeros(0, 4),
    }
    save_file(tensors, path, metadata={"format": "pt"})
    entries = read_header(path)
    data = path.read_bytes()
    assert {name: (entry.dtype, entry.shape, entry.numel) for name, entry in entries.items()} == {
        "half": ("F16", (2, 3), 6),
        "brain": ("BF16", (8,), 8),
        "byte": ("U8", (5,), 5),
        "scalar": ("F32", (), 1),
        "empty": ("F32", (0, 4), 0),
    }
    for name, tensor in tensors.items():
        held = data[entries[name].start : entries[name].end]
        assert held == tensor.flatten().view(torch.uint8).numpy().tobytes()


def test_the_written_good_header_is_good(tmp_path: Path) -> None:
    """The ground under every case below: it is the one change in each that is refused."""
    begin = 8 + len(json.dumps(F32_PAIR))
    assert read_header(write(tmp_path, F32_PAIR)) == {
        "a": TensorEntry("model.safetensors", "F32", (2, 3), begin, begin + 24),
        "b": TensorEntry("model.safetensors", "F32", (2,), begin + 24, begin + 32),
    }


@pytest.mark.parametrize(
    "header",
    [
        pytest.param(changed("b", shape=[3]), id="shape_too_large"),
        pytest.param(changed("b", shape=[1]), id="shape_too_small"),
        pytest.param(changed("b", dtype="F16"), id="dtype_of_other_size"),
        pytest.param(changed("b", data_offsets=[24, 36], shape=[3]), id="past_the_end"),
        pytest.param(changed("b", data_offsets=[28, 32], shape=[1]), id="gap"),
        pytest.param(changed("a", data_offsets=[4, 24], shape=[5]), id="gap_at_the_start"),
        pytest.param(changed("b", data_offsets=[20, 28]), id="overlap"),
        pytest.param(changed("b", data_offsets=[0, 24], shape=[6]), id="twice_the_same_bytes"),
        pytest.param({"a": F32_PAIR["a"]}, id="bytes_of_nobody"),
        pytest.param({}, id="no_tensors_but_bytes"),
        pytest.param(changed("b", data_offsets=[32, 24]), id="backwards"),
        pytest.param(changed("b", shape=[-2]), id="negative_shape"),
        pytest.param(changed("b", shape=[-1, -2]), id="negative_shape_of_positive_size"),
        pytest.param(changed("a", data_offsets=[-8, 16]), id="negative_offset"),
        pytest.param(changed("b", shape=[2.0]), id="fractional_shape"),
        pytest.param(changed("b", shape=[True, 2]), id="boolean_shape"),
        pytest.param(changed("b", shape="2"), id="shape_is_text"),
        pytest.param(changed("b", shape=None), id="shape_is_null"),
        pytest.param(changed("b", data_offsets=[24]), id="one_offset"),
        pytest.param(changed("b", data_offsets=[24, 32, 40]), id="three_offsets"),
        pytest.param(F32_PAIR | {"b": {"dtype": "F32", "shape": [2]}}, id="no_offsets"),
        pytest.param(F32_PAIR | {"b": [1, 2, 3]}, id="claim_is_a_list"),
        pytest.param([F32_PAIR], id="header_is_a_list"),
        pytest.param(b"not json at all", id="not_json"),
        pytest.param(json.dumps(F32_PAIR).encode("utf-16"), id="utf_16"),
        pytest.param(json.dumps(F32_PAIR | {"\ud800": F32_PAIR["b"]}).encode(), id="half_a_pair"),
        pytest.param(json.dumps(F32_PAIR | {"__metadata__": {"a": "\ud800"}}).encode(), id="half_a_pair_in_metadata"),
        pytest.param(F32_PAIR | {"__metadata__": {"a": 1}}, id="metadata_are_numbers"),
        pytest.param(F32_PAIR | {"__metadata__": [1]}, id="metadata_are_a_list"),
        pytest.param(changed("b", more=float("nan")), id="not_a_number"),
        pytest.param(b'{"a": NaN, ' + json.dumps(F32_PAIR).encode()[1:], id="a_name_twice"),
        pytest.param(json.dumps(F32_PAIR).encode().replace(b"[0,", b"[-0,"), id="minus_nothing"),
        pytest.param(b"\xff\xfe\xfd" * 5, id="not_text"),
        pytest.param(b'{"a": ' + b"9" * 5000 + b"}", id="number_without_end"),
        pytest.param(b"[" * 100_000, id="nested_without_end"),
        pytest.param(json.dumps(F32_PAIR).encode()[:-2], id="json_cut_short"),
    ],
)
def test_a_lying_header_is_refused(tmp_path: Path, header: object) -> None:
    with pytest.raises(CheckpointError) as caught:
        read_header(write(tmp_path, header))
    assert (caught.value.key, caught.value.values) == ("damaged_file", {"file": "model.safetensors"})


def test_an_unknown_dtype_is_named(tmp_path: Path) -> None:
    with pytest.raises(CheckpointError) as caught:
        read_header(write(tmp_path, changed("b", dtype="F4_EVIL" + "x" * 1000)))
    assert caught.value.key == "unknown_dtype"
    assert str(caught.value.values["dtype"]).startswith("F4_EVIL")
    assert len(str(caught.value)) < 300


@pytest.mark.parametrize("length", [0, 2**62, 2**63, 2**64 - 1, MAX_HEADER_BYTES + 1, 10_000], ids=str)
def test_an_absurd_header_length_is_refused_without_reading_it(tmp_path: Path, length: int) -> None:
    with pytest.raises(CheckpointError) as caught:
        read_header(write(tmp_path, F32_PAIR, claimed_length=length))
    assert caught.value.key == "damaged_file"


@pytest.mark.parametrize("kept", [0, 4, 8, 9, 60, -1], ids=lambda kept: f"{kept}_bytes" if kept >= 0 else "all_but_one")
def test_a_file_cut_short_is_refused(tmp_path: Path, kept: int) -> None:
    path = tmp_path / "model.safetensors"
    save_file({"a": torch.zeros(4, 4)}, path)
    path.write_bytes(path.read_bytes()[:kept])
    with pytest.raises(CheckpointError) as caught:
        read_header(path)
    assert caught.value.key == "damaged_file"


def test_a_file_with_bytes_behind_its_tensors_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "model.safetensors"
    save_file({"a": torch.zeros(4, 4)}, path)
    path.write_bytes(path.read_bytes() + b"\0")
    with pytest.raises(CheckpointError):
        read_header(path)


def test_whatever_the_library_refuses_is_refused() -> None:
    """A short run of a seeded fuzz; 100,000 rounds found UTF-16, surrogates, NaN, twins and -0, all named above."""
    good, pieces = json.dumps({"__metadata__": {"format": "pt"}} | F32_PAIR).encode(), [
        b"\\ud800", b"\xed\xa0\x80", b"NaN", b"-0", b"1e2", b"\x00", b'"x":1,', b'"__metadata__":{"a":1},', b"[",
        b",", b"\xff", b'"a":{"dtype":"F32","shape":[2,3],"data_offsets":[0,24]},', b'"__metadata__":{"a":"\\udc00"},',
    ]  # fmt: skip
    chance, accepted = random.Random(0), 0
    for _ in range(3000):
        raw = bytearray(good)
        for _ in range(chance.choice([1, 1, 2])):
            at = chance.randrange(len(raw))
            raw[at : at + chance.choice([0, 0, 1, 3])] = chance.choice(pieces)
        try:
            parse_header("model.safetensors", bytes(raw), 32)
        except CheckpointError:
            continue
        deserialize(len(raw).to_bytes(8, "little") + bytes(raw) + bytes(32))  # raises where the library refuses
        accepted += 1
    assert accepted > 10


def test_more_tensors_than_any_model_has_are_refused_before_they_are_read(tmp_path: Path) -> None:
    claim = b'"%d":{"dtype":"F32","shape":[0],"data_offsets":[0,0]},'
    header = b"{" + b"".join(claim % number for number in range(MAX_TENSORS)) + claim[:-1] % MAX_TENSORS + b"}"
    with pytest.raises(CheckpointError) as caught:
        read_header(write(tmp_path, header, 0))
    assert caught.value.key == "too_many_tensors"
