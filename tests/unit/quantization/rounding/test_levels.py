"""Sixteen fixed levels: each number goes to the nearest, found by a search or by bins, and halfway to the lower."""

import pytest
import torch

from studio.quantization.rounding.levels import BINS, CB4_LEVELS, NF4_LEVELS, fixed, look_up, nearest, tables

both = pytest.mark.parametrize("levels", [NF4_LEVELS, CB4_LEVELS], ids=["nf4", "cb4"])
CPU = torch.device("cpu")


@both
@pytest.mark.parametrize("count", [1000, 32 * BINS], ids=["search", "bins"])
def test_the_nearest_level_is_found(levels: tuple[float, ...], count: int) -> None:
    values, midpoints = tables(levels, CPU)
    numbers = torch.linspace(1.2 * levels[0], 1.2 * levels[-1], count, dtype=torch.float32)
    codes = nearest(numbers, midpoints)
    away = (numbers.double()[:, None] - values.double()).abs()
    assert torch.equal(away.gather(1, codes[:, None].long())[:, 0], away.amin(1))


@both
def test_halfway_takes_the_lower_in_both_ways(levels: tuple[float, ...]) -> None:
    _, midpoints = tables(levels, CPU)
    many = midpoints.repeat(2 * BINS)
    assert torch.equal(nearest(midpoints, midpoints), torch.arange(15, dtype=torch.int32))
    assert torch.equal(nearest(many, midpoints), torch.arange(15, dtype=torch.int32).repeat(2 * BINS))


@both
def test_every_level_stands_for_itself(levels: tuple[float, ...]) -> None:
    grid = fixed(levels)
    codes = torch.arange(16, dtype=torch.uint8)
    values = grid.values(codes, None)
    assert values.tolist() == pytest.approx(levels)
    assert torch.equal(grid.encode(values, None).to(torch.uint8), codes)
    assert torch.equal(look_up(values, codes.reshape(4, 4)), values.reshape(4, 4))


@both
def test_a_groups_largest_weight_becomes_the_largest_level(levels: tuple[float, ...]) -> None:
    grouped = torch.tensor([[[0.1, -0.2, 0.6, 0.0]]], dtype=torch.float32)
    codes, scale, zero = fixed(levels).round(grouped, None)
    top = max(map(abs, levels))
    assert zero is None
    assert float(scale) == pytest.approx(0.6 / top)
    assert int(codes[0, 0, 2]) == 15
    assert float(fixed(levels).values(codes.to(torch.uint8), None)[0, 0, 3]) == 0
