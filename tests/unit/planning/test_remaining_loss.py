"""What is left is known for every scheme of the studio and GGUF, and best never makes it more."""

import pytest

from studio.planning.palettes import PALETTES
from studio.planning.remaining_loss import LEFT_BY_BEST, remaining_loss
from studio.quantization.methods import BEST, Method
from studio.quantization.scheme import Mode, Scheme

SCHEMES = {str(scheme): scheme for palette in PALETTES.values() for scheme in palette.schemes}


@pytest.mark.parametrize("scheme", SCHEMES.values(), ids=list(SCHEMES))
def test_best_leaves_a_share_of_what_nearest_loses(scheme: Scheme) -> None:
    assert remaining_loss(scheme, Method.NEAREST) == 1
    assert 0 < remaining_loss(scheme, BEST) <= 1
    assert remaining_loss(scheme, Method.DISTILLED) <= remaining_loss(scheme, Method.TWO_SIDED) <= 1


def test_no_more_is_promised_than_the_text_and_the_layout_let_a_method_do() -> None:
    free, fixed = Scheme(Mode.INT4_ASYM, 64), Scheme.of(Mode.MXFP4, 32)
    best = {scheme: remaining_loss(scheme, BEST) for scheme in (free, fixed)}
    assert remaining_loss(free, Method.DISTILLED, 341) == pytest.approx(0.72 * best[free])
    assert remaining_loss(free, Method.DISTILLED, 100) == pytest.approx(0.85 * best[free])
    assert remaining_loss(fixed, Method.DISTILLED) == pytest.approx(0.85 * best[fixed])
    for method in (Method.TWO_SIDED, Method.DISTILLED):
        assert remaining_loss(free, method, 7) == remaining_loss(free, BEST, 7) == best[free]


@pytest.mark.parametrize("name", ["studio", "gguf"])
def test_what_the_studio_and_gguf_hold_was_measured(name: str) -> None:
    assert {str(scheme) for scheme in PALETTES[name].schemes if scheme.mode.bits < 8} <= LEFT_BY_BEST.keys()
