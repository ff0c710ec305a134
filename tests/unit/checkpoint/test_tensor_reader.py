"""Rows of a weight are those that the model means, however the file holds it; no others are read."""

from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor

from studio.checkpoint.headers import read_header
from studio.checkpoint.layers import Kind, Layer
from studio.checkpoint.tensor_reader import TensorReader
from tests.small import CountedRanges, random

PLAIN = {"w": random(40, 64)}
EXPERTS = {"w": random(3, 20, 64)}
PARTS = {"q": random(24, 64, seed=1), "k": random(8, 64, seed=2), "v": random(8, 64, seed=3)}
CASES: dict[str, tuple[dict[str, Tensor], Layer, Tensor]] = {
    "plain": (PLAIN, Layer("w", ("w",), Kind.LINEAR, (40, 64)), PLAIN["w"]),
    "columns": (
        {"w": PLAIN["w"].T.contiguous()},
        Layer("w", ("w",), Kind.LINEAR, (40, 64), transposed=True),
        PLAIN["w"],
    ),
    "experts": (EXPERTS, Layer("w", ("w",), Kind.LINEAR, (3, 20, 64)), EXPERTS["w"].reshape(60, 64)),
    "experts' columns": (
        {"w": EXPERTS["w"].mT.contiguous()},
        Layer("w", ("w",), Kind.LINEAR, (3, 20, 64), transposed=True),
        EXPERTS["w"].reshape(60, 64),
    ),
    "experts the other way round": (
        {"w": EXPERTS["w"].mT.contiguous()},
        Layer("w", ("w",), Kind.LINEAR, (3, 20, 64)),
        EXPERTS["w"].reshape(60, 64),
    ),
    "fused": (PARTS, Layer("qkv", ("q", "k", "v"), Kind.LINEAR, (40, 64)), torch.cat(list(PARTS.values()))),
}
cases = pytest.mark.parametrize("name", CASES)


def reader_of(tensors: dict[str, Tensor], folder: Path) -> TensorReader:
    file = folder / "model.safetensors"
    save_file(tensors, file)
    return TensorReader(read_header(file))


@cases
def test_a_weight_is_what_the_model_means(name: str, tmp_path: Path) -> None:
    tensors, layer, whole = CASES[name]
    assert torch.equal(reader_of(tensors, tmp_path).read(tmp_path, layer), whole)


@cases
@pytest.mark.parametrize(("start", "stop"), [(0, 1), (7, 29), (22, 26), (39, 40)])
def test_rows_cost_what_is_said_of_them(name: str, start: int, stop: int, tmp_path: Path) -> None:
    tensors, layer, whole = CASES[name]
    reader, place = reader_of(tensors, tmp_path), CountedRanges(tmp_path)
    assert torch.equal(reader.read(place, layer, start, stop), whole[start:stop])
    assert sum(place.asked) == reader.read_bytes(layer, start, stop)
    if reader.rows_at_once(layer) == 1:
        assert sum(place.asked) == 2 * 64 * (stop - start)


@cases
def test_columns_are_read_for_all_rows_of_a_matrix_at_once(name: str, tmp_path: Path) -> None:
    tensors, layer, _ = CASES[name]
    across = {"columns": 40, "experts' columns": 20, "experts the other way round": 20}
    assert reader_of(tensors, tmp_path).rows_at_once(layer) == across.get(name, 1)


def test_what_is_no_weight_keeps_its_shape(tmp_path: Path) -> None:
    tensors = {"conv": random(6, 1, 4), "scale": torch.tensor(2.0), "a": random(4), "b": random(3)}
    reader = reader_of(tensors, tmp_path)
    conv = Layer("conv", ("conv",), Kind.OTHER, (6, 4))
    assert torch.equal(reader.read(tmp_path, conv, 2, 4), tensors["conv"].reshape(6, 4)[2:4])
    assert torch.equal(reader.read(tmp_path, Layer("scale", ("scale",), Kind.OTHER, ())), tensors["scale"])
    both = Layer("ab", ("a", "b"), Kind.OTHER, (7,))
    assert torch.equal(reader.read(tmp_path, both), torch.cat([tensors["a"], tensors["b"]]))


@pytest.mark.parametrize(
    ("stored", "saved"),
    [
        (torch.float16, torch.float16),
        (torch.bfloat16, torch.bfloat16),
        (torch.float32, torch.bfloat16),
        (torch.float64, torch.bfloat16),
        (torch.float8_e4m3fn, torch.bfloat16),
    ],
    ids=str,
)
def test_what_is_not_compressed_is_stored_at_16_bits(stored: torch.dtype, saved: torch.dtype, tmp_path: Path) -> None:
    reader = reader_of({"w": torch.ones(2, 2).to(stored)}, tmp_path)
    assert reader.saved_dtype(Layer("w", ("w",), Kind.LINEAR, (2, 2))) is saved
