"""Weights on which two implementations of one formula part first."""

from itertools import pairwise

import torch
from torch import Tensor

from studio.quantization.scheme import Mode, Scheme

ROWS, WIDTH = 96, 192
"""Large enough for NNCF's compiled path (10,000 weights), which is what real weights meet."""
FP16_MAX = 65504.0


def noise(seed: int = 0) -> Tensor:
    return torch.randn(ROWS, WIDTH, generator=torch.Generator().manual_seed(seed))


def outlier(value: float) -> Tensor:
    weight = 0.02 * noise()
    weight[:, 5] = value
    return weight


def cycled(values: list[float]) -> Tensor:
    return torch.tensor(values).repeat(ROWS * WIDTH // len(values) + 1)[: ROWS * WIDTH].reshape(ROWS, WIDTH)


def halfway(levels: list[float]) -> Tensor:
    """Every level and every point halfway between two, the largest in each group: with its scale a power of two."""
    middles = [(a + b) / 2 for a, b in pairwise(levels)]
    group = [*levels, *middles][:16]
    rest = [*levels, *middles][16:] or group
    top = max(levels, key=abs)
    return cycled([*group[:15], top, *[*rest, *group][:15], top])


E2M1 = [0.0, 0.5, 1.0, 1.5, 2.0, 3.0, 4.0, 6.0]
CB4 = [-3.5, -2.5, -1.875, -1.375, -1.0, -0.625, -0.3125, 0.0, 0.28125, 0.5625, 0.875, 1.125, 1.5, 2.0, 2.5, 3.5]


def constant_groups(maxima: Tensor) -> Tensor:
    """Return a row of 32 for each of these: weights whose groups have every one of them as their maximum."""
    return maxima.unsqueeze(1).expand(-1, 32).contiguous()


def around_powers_of_two(top: float) -> Tensor:
    """Return 40 fp32 numbers on either side of ``top`` times every power of two that a floored scale can be."""
    exact = top * 2.0 ** torch.arange(-22, 118)
    return (
        (exact.view(torch.int32).unsqueeze(1) + torch.arange(-40, 41, dtype=torch.int32)).view(torch.float32).flatten()
    )


ALL_FP16 = torch.arange(1, 0x7C00, dtype=torch.int32).to(torch.int16).view(torch.float16)
"""Every positive number of fp16 but infinity."""

WEIGHTS = {
    "normal": noise(),
    "normal_fp16": noise(1).half(),
    "small_fp16": (0.03 * noise(2)).half(),
    "all_zero": torch.zeros(ROWS, WIDTH),
    "minus_zero": -torch.zeros(ROWS, WIDTH),
    "minus_zero_among_others": torch.where(noise(3) > 0, noise(3), -0.0),
    "one_outlier": outlier(30.0),
    "one_negative_outlier": outlier(-30.0),
    "one_weight": torch.zeros(ROWS, WIDTH).index_fill_(1, torch.tensor([7]), 0.3),
    "constant": torch.full((ROWS, WIDTH), 0.37),
    "negative_constant": torch.full((ROWS, WIDTH), -0.37),
    "constant_rows": torch.linspace(-2, 2, ROWS).unsqueeze(1).expand(ROWS, WIDTH).contiguous(),
    "negative_only": -noise(4).abs() - 0.5,
    "positive_only": noise(5).abs() + 0.5,
    "as_large_both_ways": cycled([-1.0, 1.0, 0.3, -0.2]),
    "halfway_between_integers": cycled([-8.0, -7.5, -2.5, -1.5, -0.5, 0.5, 1.5, 2.5, 3.5, 6.5, 7.0, 0.0]),
    "halfway_between_bytes": cycled([-128.0, *(x + 0.5 for x in range(-127, 127))]),
    "halfway_in_e2m1": halfway(E2M1),
    "halfway_in_negative_e2m1": -halfway(E2M1),
    "halfway_in_cb4": halfway(CB4),
    "halfway_in_e4m3": cycled(
        [448.0, *(1 + (2 * x + 1) / 16 for x in range(8)), *(2.0**-9 * x / 2 for x in range(17))]
    ),
    "just_off_halfway": torch.nextafter(halfway(E2M1), torch.tensor(float("inf"))),
    "just_below_halfway": torch.nextafter(halfway(E2M1), torch.tensor(float("-inf"))),
    "grid_of_thousandths": cycled([x / 1000 for x in range(-1000, 1001)]),
    "subnormal": noise(6) * 1e-40,
    "around_the_smallest_scale": noise(7) * 2**-22,
    "below_the_smallest_scale": noise(8) * 2**-30,
    "powers_of_two": 2.0 ** cycled([float(x) for x in range(-20, 10)]),
    "six_times_powers_of_two": 6
    * 2.0 ** torch.arange(-8.0, -8 + ROWS * 0.25, 0.25).floor().unsqueeze(1)
    * cycled([1.0, 0.3]),
    "fp16_max": cycled([FP16_MAX, -FP16_MAX, 1.0, 0.0]),
    "fp16_max_one_sided": cycled([FP16_MAX, 0.5 * FP16_MAX, 1.0]),
    "all_fp16": torch.arange(ROWS * WIDTH, dtype=torch.int32).to(torch.int16).view(torch.float16).reshape(ROWS, WIDTH),
}


def weights_for(scheme: Scheme) -> dict[str, Tensor]:
    """Return them as tall as it takes for NVFP4, whose scales are a tensor that NNCF compresses in turn."""
    times = 9 if scheme.mode is Mode.NVFP4 else 1
    return {name: weight.repeat(times, 1) for name, weight in WEIGHTS.items()}
