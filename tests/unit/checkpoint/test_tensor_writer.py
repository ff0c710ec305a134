"""A safetensors file written in pieces: the library reads what was written, and what was not promised is refused."""

from pathlib import Path

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import load_file

from studio.checkpoint.tensor_writer import DTYPE_NAMES, ConstantFile, Slot, TensorFile

SLOTS = {"bytes": Slot("U8", (3,)), "wide": Slot("F32", (2, 3)), "half": Slot("BF16", (5,))}
TENSORS = {
    "bytes": torch.tensor([1, 2, 3], dtype=torch.uint8),
    "wide": torch.arange(6, dtype=torch.float32).reshape(2, 3),
    "half": torch.arange(5, dtype=torch.bfloat16),
}


def test_the_library_reads_what_was_written_in_any_order_and_pieces(tmp_path: Path) -> None:
    file = tmp_path / "a.safetensors"
    with TensorFile(file, SLOTS, {"format": "pt"}) as out:
        out.write("wide", TENSORS["wide"][1], 3)
        out.write("bytes", TENSORS["bytes"])
        out.write("half", TENSORS["half"])
        out.write("wide", TENSORS["wide"][0])
    assert file.stat().st_size == out.size
    read = load_file(file)
    assert read.keys() == TENSORS.keys()
    assert all(torch.equal(read[name], tensor) for name, tensor in TENSORS.items())
    with safe_open(file, framework="pt") as opened:
        assert opened.metadata() == {"format": "pt"}


def test_a_second_run_keeps_what_the_first_wrote(tmp_path: Path) -> None:
    file = tmp_path / "a.safetensors"
    with pytest.raises(ValueError, match="of 37 bytes were written"), TensorFile(file, SLOTS, {}) as out:
        out.write("wide", TENSORS["wide"])
    with TensorFile(file, SLOTS, {}, kept=["wide"]) as out:
        out.write("bytes", TENSORS["bytes"])
        out.write("half", TENSORS["half"])
    assert torch.equal(load_file(file)["wide"], TENSORS["wide"])


@pytest.mark.parametrize(
    ("name", "tensor", "start"),
    [
        ("bytes", torch.zeros(3, dtype=torch.int8), 0),
        ("bytes", torch.zeros(4, dtype=torch.uint8), 0),
        ("wide", torch.zeros(1, dtype=torch.float32), 6),
    ],
    ids=["dtype", "size", "place"],
)
def test_what_does_not_fit_its_slot_is_refused(tmp_path: Path, name: str, tensor: torch.Tensor, start: int) -> None:
    with pytest.raises(ValueError, match="does not fit"), TensorFile(tmp_path / "a", SLOTS, {}) as out:
        out.write(name, tensor, start)


def test_bare_numbers_lie_where_it_is_said_and_the_rest_is_zero(tmp_path: Path) -> None:
    file = tmp_path / "numbers.bin"
    with ConstantFile(file, SLOTS, b"tail") as out:
        out.write("half", TENSORS["half"])
        out.write("wide", TENSORS["wide"][1], 3)
        out.write("wide", TENSORS["wide"][0])
        out.write("bytes", TENSORS["bytes"])
    raw = file.read_bytes()
    assert len(raw) == out.size
    assert all(start % ConstantFile.ALIGNMENT == 0 for start in out.starts.values())
    found = bytearray(raw)
    for name, tensor in TENSORS.items():
        place = slice(out.starts[name], out.starts[name] + SLOTS[name].nbytes)
        assert torch.equal(torch.frombuffer(bytearray(raw[place]), dtype=tensor.dtype), tensor.flatten())
        found[place] = bytes(SLOTS[name].nbytes)
    starts, end = ConstantFile.layout(SLOTS)
    assert (starts, found) == (out.starts, bytearray(end) + b"tail")


@pytest.mark.parametrize("dtype", DTYPE_NAMES, ids=str)
def test_every_dtype_has_the_bytes_that_torch_gives_it(dtype: torch.dtype) -> None:
    assert Slot(DTYPE_NAMES[dtype], (3, 5)).nbytes == 15 * dtype.itemsize
