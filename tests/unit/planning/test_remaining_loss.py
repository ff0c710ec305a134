"""What is left is known for every scheme that a budget can choose, and best never makes it more."""

import pytest

from studio.planning.palettes import PALETTES
from studio.planning.remaining_loss import LEFT_BY_BEST, remaining_loss
from studio.quantization.methods import BEST, Method
from studio.quantization.scheme import Scheme

SCHEMES = {str(scheme): scheme for palette in PALETTES.values() for scheme in palette.schemes}


@pytest.mark.parametrize("scheme", SCHEMES.values(), ids=list(SCHEMES))
def test_best_leaves_a_share_of_what_nearest_loses(scheme: Scheme) -> None:
    assert remaining_loss(scheme, Method.NEAREST) == 1
    assert (str(scheme) in LEFT_BY_BEST) == (scheme.mode.bits < 8)
    assert 0 < remaining_loss(scheme, BEST) <= 1
