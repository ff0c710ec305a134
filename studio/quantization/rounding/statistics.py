"""What is known of the inputs that a weight meets, for methods that round with it. Knows nothing of models."""

from dataclasses import dataclass
from functools import cached_property

import torch
from torch import Tensor

DAMP = 0.1
"""Added to the diagonal, in mean diagonals: a few thousand tokens do not know 1,536 channels well enough for less."""
MOST_DAMP = 1e3


@dataclass(frozen=True, eq=False)
class Statistics:
    """Of the inputs X [T, K] of a weight [N, K]; weights that are given the same share one object."""

    hessian: Tensor
    """[K, K] fp32: X^T X / T, or X^T D X / T where D [T], of mean 1, says how much each token counts."""
    tokens: int

    @property
    def power(self) -> Tensor:
        """[K] fp32: the mean square of each input channel."""
        return self.hessian.diagonal()

    @property
    def is_active(self) -> bool:
        """Whether any input was other than zero, and all were finite."""
        power = self.power.sum()
        return bool(power > 0) and bool(power.isfinite())

    @cached_property
    def inverse_cholesky(self) -> tuple[Tensor, Tensor]:
        """The channels in falling order of power [K], and in that order U [K, K], upper, with U^T U = H^-1.

        From H = R R^T with R upper, a Cholesky decomposition from the last channel to the first, U is R^-1. H is
        ``hessian`` with its diagonal damped, more where it is still singular; a channel that is always zero stands
        alone. Source: GPTQ (Frantar et al. 2022), section 4, with activation order. Raises ValueError where no damping
        makes it positive: no second moments are so.
        """
        order = self.power.argsort(descending=True, stable=True)
        matrix = self.hessian[order][:, order]
        diagonal = matrix.diagonal()
        mean = float(diagonal.mean())
        damp = DAMP
        while True:
            damped = matrix.clone()
            damped.diagonal().add_(damp * mean)
            damped.diagonal()[diagonal == 0] = mean
            lower, failed = torch.linalg.cholesky_ex(damped.flip(0, 1))
            if not failed:
                one = torch.eye(len(damped), dtype=damped.dtype, device=damped.device)
                upper = torch.linalg.solve_triangular(lower.flip(0, 1), one, upper=True)
                if bool(upper.isfinite().all()):
                    return order, upper
            if damp >= MOST_DAMP:  # not a matrix of second moments at all
                raise ValueError("the second moments are not positive")
            damp *= 10
