"""What each tensor of a file is, and the bytes that it takes: its scales are its own, and no tensor beside it."""

from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from studio.checkpoint.headers import read_header
from studio.checkpoint.stored_as import StoredAs, by_type, joined, of_entries


def test_scales_belong_to_their_weight(tmp_path: Path) -> None:
    tensors = {
        "a.weight": torch.zeros(32, 64, dtype=torch.float8_e4m3fn),
        "a.weight_scale_inv": torch.ones(2, 4),
        "e.gate_up_proj_blocks": torch.zeros(3, 8, 2, 16, dtype=torch.uint8),
        "e.gate_up_proj_scales": torch.zeros(3, 8, 2, dtype=torch.uint8),
        "norm.weight": torch.zeros(64, dtype=torch.bfloat16),
        "other_scale": torch.zeros(5),
    }
    save_file(tensors, tmp_path / "a.safetensors")
    assert {each.name: each for each in of_entries(read_header(tmp_path / "a.safetensors"))} == {
        "a.weight": StoredAs("a.weight", "F8_E4M3", (32, 64), 32 * 64 + 4 * 8),
        "e.gate_up_proj": StoredAs("e.gate_up_proj", "MXFP4", (3, 8, 64), 3 * 8 * 2 * 17),
        "norm.weight": StoredAs("norm.weight", "BF16", (64,), 128),
        "other_scale": StoredAs("other_scale", "F32", (5,), 20),
    }


def test_types_are_summed_up_that_of_most_bytes_first() -> None:
    some = [StoredAs("a", "Q8_0", (32,), 34), StoredAs("b", "Q4_K", (4, 256), 576), StoredAs("c", "Q8_0", (64,), 68)]
    found = by_type(some)
    assert [(each.type, each.tensors, each.weights, each.nbytes) for each in found] == [
        ("Q4_K", 1, 1024, 576),
        ("Q8_0", 2, 96, 102),
    ]
    assert [each.bits for each in found] == [4.5, 8.5]


def test_several_tensors_that_became_one_have_all_their_bytes() -> None:
    gate, up = StoredAs("gate", "Q4_K", (4, 256), 576), StoredAs("up", "Q6_K", (4, 256), 840)
    assert joined("w", [gate]) == StoredAs("w", "Q4_K", (4, 256), 576)
    both = joined("w", [gate, up])
    assert (both.type, both.nbytes, both.numel) == ("Q4_K/Q6_K", 1416, 2048)
    assert both.bits == pytest.approx(8 * 1416 / 2048)
