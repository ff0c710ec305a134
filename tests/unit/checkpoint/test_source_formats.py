"""Weights stored in FP8 and MXFP4 stand for the numbers that transformers makes of them, whatever rows are read."""

from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor
from transformers.integrations.finegrained_fp8 import Fp8Dequantize
from transformers.integrations.mxfp4 import convert_moe_packed_tensors

from studio.base.errors import CheckpointError
from studio.checkpoint.headers import TensorEntry, read_header
from studio.checkpoint.source_formats import Files, StoredTensor, dequantize_fp8, dequantize_mxfp4, is_readable
from tests.small import CountedRanges

E4M3 = torch.float8_e4m3fn


def random_fp8(*shape: int, dtype: torch.dtype = E4M3) -> Tensor:
    return torch.randn(shape).to(dtype)


def transformers_fp8(weight: Tensor, scale: Tensor) -> Tensor:
    made: Tensor = Fp8Dequantize(None)._dequantize_one(weight, scale, output_dtype=torch.float32)
    return made


@pytest.mark.parametrize("dtype", [E4M3, torch.float8_e5m2], ids=["e4m3", "e5m2"])
@pytest.mark.parametrize(
    ("shape", "grid"),
    [((32, 64), (2, 4)), ((32, 64), (1, 1)), ((32, 64), (32, 1)), ((16, 96), (16, 3)), ((128, 256), (1, 2))],
    ids=["blocks", "tensor", "channel", "mx", "wide"],
)
def test_fp8_is_what_transformers_makes_of_it(
    shape: tuple[int, int], grid: tuple[int, int], dtype: torch.dtype
) -> None:
    weight, scale = random_fp8(*shape, dtype=dtype), torch.rand(grid) + 0.1
    expected = transformers_fp8(weight, scale)
    assert torch.equal(dequantize_fp8(weight, scale, slice(0, shape[0]), shape), expected)
    assert torch.equal(dequantize_fp8(weight[5:9], scale, slice(5, 9), shape), expected[5:9])


def test_fp8_exponents_in_bytes_are_powers_of_two() -> None:
    weight, scale = random_fp8(32, 64), torch.randint(120, 134, (32, 2), dtype=torch.uint8)
    assert torch.equal(dequantize_fp8(weight, scale, slice(0, 32), (32, 64)), transformers_fp8(weight, scale))


@pytest.mark.parametrize("scale", [torch.tensor(0.5), torch.tensor([0.5]), torch.full((40,), 0.5)])
def test_fp8_scales_may_have_fewer_axes(scale: Tensor) -> None:
    weight = random_fp8(40, 8)
    assert torch.equal(dequantize_fp8(weight[3:7], scale, slice(3, 7), (40, 8)), 0.5 * weight[3:7].float())


def test_the_last_fp8_blocks_may_be_cut_short() -> None:
    """As 576 rows in blocks of 128 are: DeepSeek's."""
    weight, scale = random_fp8(576, 160), torch.rand(5, 2) + 0.1
    wide = scale.repeat_interleave(128, 0).repeat_interleave(128, 1)[:576, :160]
    assert torch.equal(dequantize_fp8(weight, scale, slice(0, 576), (576, 160)), weight.float() * wide)


def test_mxfp4_is_what_transformers_makes_of_it() -> None:
    blocks = torch.randint(0, 256, (3, 8, 2, 16), dtype=torch.uint8)
    scales = torch.randint(110, 135, (3, 8, 2), dtype=torch.uint8)
    expected = convert_moe_packed_tensors(blocks, scales).mT
    for expert in range(3):
        assert torch.equal(dequantize_mxfp4(blocks[expert, 2:5], scales[expert, 2:5]), expected[expert, 2:5])


@pytest.fixture
def stored(tmp_path: Path) -> Any:
    """Write tensors to a file, and return what reads one of them."""

    def write(**tensors: Tensor) -> tuple[dict[str, TensorEntry], Files]:
        save_file(tensors, tmp_path / "a.safetensors")
        entries = read_header(tmp_path / "a.safetensors")
        return entries, Files(entries, CountedRanges(tmp_path))

    return write


def test_experts_in_mxfp4_have_the_shape_of_their_values(stored: Any) -> None:
    blocks = torch.randint(0, 256, (3, 8, 2, 16), dtype=torch.uint8)
    scales = torch.randint(110, 135, (3, 8, 2), dtype=torch.uint8)
    entries, files = stored(w_blocks=blocks, w_scales=scales)
    tensor = StoredTensor("w_blocks", entries)
    expected = convert_moe_packed_tensors(blocks, scales).mT
    assert tensor.check()
    assert (tensor.format, tensor.shape) == ("MXFP4", (3, 8, 64))
    assert torch.equal(tensor.whole(files), expected)
    assert torch.equal(tensor.rows(files, 1, 3, 6), expected[1, 3:6])
    assert torch.equal(tensor.columns(files, 2, 10, 20), expected[2].T[10:20])


@pytest.mark.parametrize("grid", [(3, 2, 4), (3, 1, 1), (1,)], ids=["blocks", "expert", "tensor"])
def test_experts_in_fp8_have_their_own_scales(stored: Any, grid: tuple[int, ...]) -> None:
    weight, scale = random_fp8(3, 32, 64), torch.rand(grid) + 0.1
    entries, files = stored(w=weight, w_scale_inv=scale)
    tensor = StoredTensor("w", entries)
    assert tensor.check()
    each = scale if len(grid) == 3 else scale.reshape(1, 1, 1).expand(3, 1, 1)
    expected = torch.stack([transformers_fp8(weight[i], each[i]) for i in range(3)])
    assert torch.equal(tensor.whole(files), expected)
    assert torch.equal(tensor.rows(files, 2, 15, 18), expected[2, 15:18])
    assert torch.equal(tensor.columns(files, 1, 5, 9), expected[1].T[5:9])


def test_plain_tensors_are_read_as_they_are(stored: Any) -> None:
    values = {"scalar": torch.tensor(2.0), "flat": torch.rand(5), "none": torch.empty(0, 4), "w": torch.rand(6, 4)}
    entries, files = stored(**values)
    for name, value in values.items():
        assert torch.equal(StoredTensor(name, entries).whole(files), value)
    assert torch.equal(StoredTensor("w", entries).columns(files, 0, 1, 3), values["w"].T[1:3])


OF_ROWS = {
    "plain": {"w": torch.rand(40, 32)},
    "experts": {"w": torch.rand(3, 40, 32)},
    "fp8_blocks": {"w": random_fp8(40, 32), "w_scale": torch.rand(3, 2) + 0.1},
    "fp8_of_a_row": {"w": random_fp8(40, 32), "w_scale": torch.rand(40, 1) + 0.1},
    "fp8_of_a_row_flat": {"w": random_fp8(40, 32), "w_scale": torch.rand(40) + 0.1},
    "fp8_tensor": {"w": random_fp8(40, 32), "w_scale": torch.tensor(0.5)},
    "fp8_columns": {"w": random_fp8(40, 32), "w_scale": torch.rand(1, 4) + 0.1},
    "fp8_experts": {"w": random_fp8(3, 40, 32), "w_scale_inv": torch.rand(3, 3, 2) + 0.1},
    "fp8_an_expert": {"w": random_fp8(3, 40, 32), "w_scale_inv": torch.rand(3, 1, 1) + 0.1},
    "mxfp4": {
        "w_blocks": torch.randint(0, 256, (3, 40, 2, 16), dtype=torch.uint8),
        "w_scales": torch.randint(110, 135, (3, 40, 2), dtype=torch.uint8),
    },
}


@pytest.mark.parametrize("tensors", OF_ROWS.values(), ids=OF_ROWS.keys())
@pytest.mark.parametrize(("start", "stop"), [(0, 40), (0, 1), (15, 18), (16, 32), (33, 40), (7, 39)])
def test_no_byte_is_read_but_those_of_the_rows_and_their_scales(
    stored: Any, tmp_path: Path, tensors: dict[str, Tensor], start: int, stop: int
) -> None:
    entries, files = stored(**tensors)
    tensor = StoredTensor(next(iter(tensors)), entries)
    whole = tensor.whole(files)
    for expert in range(3 if len(tensor.shape) == 3 else 1):
        place = CountedRanges(tmp_path)
        rows = tensor.rows(Files(entries, place), expert, start, stop)
        assert torch.equal(rows, (whole[expert] if len(tensor.shape) == 3 else whole)[start:stop])
        assert sum(place.asked) == tensor.read_bytes(expert, start, stop)
        own = entries[tensor.name].nbytes * (stop - start) // whole[..., 0].numel()
        scales = [entry.nbytes for name, entry in entries.items() if name != tensor.name]
        assert own <= sum(place.asked) <= own + sum(scales)
        place.asked.clear()
        columns = tensor.columns(Files(entries, place), expert, 3, 5)
        assert torch.equal(columns, (whole[expert] if len(tensor.shape) == 3 else whole)[:, 3:5].T)
        assert sum(place.asked) == tensor.read_bytes(expert, 0, 40)


def test_scales_of_other_rows_are_not_read(stored: Any, tmp_path: Path) -> None:
    entries, _ = stored(w=random_fp8(256, 64), w_scale=torch.rand(256, 1) + 0.1)
    place = CountedRanges(tmp_path)
    StoredTensor("w", entries).rows(Files(entries, place), 0, 100, 102)
    assert place.asked == [2 * 64, 2 * 4]


@pytest.mark.parametrize(
    "tensors",
    [
        {"w": random_fp8(32, 64), "w_scale": torch.rand(5, 5)},
        {"w": random_fp8(32, 64), "w_scale": torch.rand(31)},
        {"w": random_fp8(32, 64), "w_scale": torch.rand(0, 0)},
        {"w": random_fp8(32, 64), "w_scale": torch.ones(2, 4, dtype=torch.int32)},
        {"w": random_fp8(3, 32, 64), "w_scale": torch.rand(2, 2, 4)},
        {"w": random_fp8(64), "w_scale": torch.rand(64)},
        {"w": torch.ones(4, 4, dtype=torch.int8)},
        {"w_blocks": torch.ones(2, 4, 2, 8, dtype=torch.uint8), "w_scales": torch.ones(2, 4, 2, dtype=torch.uint8)},
        {"w_blocks": torch.ones(2, 4, 2, 16, dtype=torch.uint8), "w_scales": torch.ones(2, 4, 3, dtype=torch.uint8)},
    ],
    ids=["grid", "rows", "none", "dtype", "experts", "flat", "int8", "half_block", "scales"],
)
def test_scales_that_do_not_fit_are_found(stored: Any, tensors: dict[str, Tensor]) -> None:
    entries, _ = stored(**tensors)
    assert not StoredTensor(next(iter(tensors)), entries).check()


def test_missing_scales_are_named(stored: Any) -> None:
    entries, _ = stored(w=random_fp8(32, 64))
    with pytest.raises(CheckpointError) as caught:
        StoredTensor("w", entries).check()
    assert (caught.value.key, caught.value.values) == ("tensor_missing", {"tensor": "w_scale_inv"})


def test_a_file_cut_short_is_named(stored: Any, tmp_path: Path) -> None:
    entries, files = stored(w=torch.rand(64, 64))
    with (tmp_path / "a.safetensors").open("r+b") as file:
        file.truncate(1000)
    with pytest.raises(CheckpointError) as caught:
        StoredTensor("w", entries).whole(files)
    assert caught.value.values == {"file": "a.safetensors"}


@pytest.mark.parametrize(
    ("quantization", "is_known"),
    [
        ({"quant_method": "fp8", "weight_block_size": [128, 128]}, True),
        ({"quant_method": "fp8", "weight_block_size": None}, True),
        ({"quant_method": "fbgemm_fp8"}, True),
        ({"quant_method": "mxfp4"}, True),
        ({"quant_method": "compressed-tensors", "format": "float-quantized"}, True),
        ({"quant_method": "gptq", "bits": 4}, True),
        ({"quant_method": "fp8", "weight_block_size": [100, 100]}, False),
        ({"quant_method": "fp8", "weight_block_size": "evil"}, False),
        ({"quant_method": ["fp8"]}, False),
        ({"quant_method": "quip"}, False),
        ({"quant_method": ["gptq"]}, False),
        ({}, False),
        ("fp8", False),
    ],
    ids=str,
)
def test_what_can_be_read_is_known_from_the_config(quantization: object, is_known: bool) -> None:
    assert is_readable(quantization) is is_known
