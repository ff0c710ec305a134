"""Levels that are learned: never worse than those they begin from, rising, and zero stays zero."""

import torch

from studio.quantization.rounding.codebook import LEARNED, Levels, encode, values
from studio.quantization.rounding.levels import NF4_LEVELS


def grouped(seed: int = 0) -> torch.Tensor:
    """Return weights that NF4 is not made for: most of them small."""
    return torch.randn(64, 4, 32, generator=torch.Generator().manual_seed(seed), dtype=torch.float32) ** 3


def learned(*pieces: torch.Tensor) -> torch.Tensor:
    levels = Levels()
    for piece in pieces:
        levels.add(piece)
    return levels.result()


def error(weights: torch.Tensor, levels: torch.Tensor) -> float:
    codes, scale, _ = LEARNED.round(weights, levels)
    return float((values(codes.to(torch.uint8), levels) * scale.unsqueeze(2) - weights).square().sum())


def test_they_lose_less_than_those_they_begin_from() -> None:
    weights = grouped()
    assert error(weights, learned(weights)) < 0.9 * error(weights, torch.tensor(NF4_LEVELS).half())


def test_they_rise_and_zero_is_one_of_them() -> None:
    levels = learned(grouped())
    assert bool((levels.diff() > 0).all())
    assert float(levels[7]) == 0
    assert levels.dtype == torch.float16
    assert values(encode(torch.zeros(3), levels), levels).tolist() == [0, 0, 0]


def test_in_pieces_they_are_the_same() -> None:
    first, second = grouped(1), grouped(2)
    assert torch.equal(learned(first, second), learned(torch.cat((first, second))))


def test_of_nothing_but_zeros_they_stay_where_they_were() -> None:
    assert torch.equal(learned(torch.zeros(2, 2, 8)), torch.tensor(NF4_LEVELS, dtype=torch.float64).half())
