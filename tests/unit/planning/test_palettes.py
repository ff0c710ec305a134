"""What a budget is spent on is what the target of that name holds."""

import pytest

from studio.export.gguf.types import mode_of
from studio.export.targets import TARGETS
from studio.planning.palettes import DEFAULT, PALETTES, Palette
from tests.unit.planning.test_plan import a_model


def test_every_palette_is_a_targets() -> None:
    assert PALETTES.keys() <= TARGETS.keys()
    assert DEFAULT in PALETTES


def test_gguf_holds_all_of_its_own() -> None:
    assert all(mode_of(scheme) is scheme.mode for scheme in PALETTES["gguf"].schemes)
    assert len(PALETTES["gguf"].schemes) == 12


@pytest.mark.parametrize("palette", PALETTES.values(), ids=list(PALETTES))
def test_only_what_fits_is_offered(palette: Palette) -> None:
    assert {scheme.fits(576) for scheme in palette.fitting(576)} == {True}
    assert len(palette.fitting(1536)) > len(palette.fitting(576)) > 1
    assert len(palette.fitting(2048)) == len(palette.schemes)


def test_bytes_are_those_of_the_target() -> None:
    norm = next(layer for layer in a_model() if not layer.is_weight)
    assert PALETTES["studio"].nbytes(norm, None) == 2 * norm.numel
    assert PALETTES["gguf"].nbytes(norm, None) == 4 * norm.numel
    weight = next(layer for layer in a_model() if layer.is_weight)
    scheme = PALETTES["gguf"].schemes[0]
    assert PALETTES["gguf"].nbytes(weight, scheme) == scheme.nbytes(weight.matrix)
    assert PALETTES["gguf"].nbytes(weight, None) == 2 * weight.numel
