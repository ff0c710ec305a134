"""What is left is known for every scheme of the studio and GGUF, and best never makes it more."""

import pytest

from studio.planning.palettes import PALETTES
from studio.planning.remaining_loss import LEFT_BY_BEST, remaining_loss
from studio.quantization.methods import BEST, Method
from studio.quantization.scheme import Scheme

SCHEMES = {str(scheme): scheme for palette in PALETTES.values() for scheme in palette.schemes}


@pytest.mark.parametrize("scheme", SCHEMES.values(), ids=list(SCHEMES))
def test_best_leaves_a_share_of_what_nearest_loses(scheme: Scheme) -> None:
    assert remaining_loss(scheme, Method.NEAREST) == 1
    assert 0 < remaining_loss(scheme, BEST) <= 1
    assert remaining_loss(scheme, Method.DISTILLED) <= remaining_loss(scheme, Method.TWO_SIDED) <= 1


@pytest.mark.parametrize("name", ["studio", "gguf"])
def test_what_the_studio_and_gguf_hold_was_measured(name: str) -> None:
    assert {str(scheme) for scheme in PALETTES[name].schemes if scheme.mode.bits < 8} <= LEFT_BY_BEST.keys()
