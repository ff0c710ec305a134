"""Scales that grow: what a file will hold of them, and layouts that have none to train."""

import pytest
import torch

from studio.compression.trained_scale import TrainedScale
from studio.quantization.packing import pack
from studio.quantization.rounding import round_to_nearest
from studio.quantization.scheme import Mode, Scheme

WEIGHT = torch.randn(8, 64, generator=torch.Generator().manual_seed(0))
TRAINED = [Scheme(Mode.INT4_ASYM, 32), Scheme(Mode.NF4, 64), Scheme(Mode.INT4_AFFINE, 32), Scheme(Mode.CB4_LEARNED, 32)]
FIXED = [Scheme.of(Mode.MXFP4, 32), Scheme.of(Mode.NVFP4, 16), Scheme.of(Mode.Q4_0, 32)]


@pytest.mark.parametrize("scheme", TRAINED, ids=str)
def test_it_begins_as_it_was_and_ends_as_it_is_stored(scheme: Scheme) -> None:
    packed = pack(round_to_nearest(WEIGHT, scheme), scheme)
    scale = TrainedScale(packed)
    assert torch.equal(scale.dense().detach(), packed.dequantize())
    scale.dense().square().sum().backward()
    assert scale.growth.grad is not None
    assert bool(scale.growth.grad.abs().sum() > 0)
    with torch.no_grad():
        scale.growth.fill_(0.25)
    stored = scale.packed()
    assert torch.equal(stored.codes, packed.codes)
    assert torch.allclose(
        stored.dequantize(), scale.dense().detach(), atol=1e-2
    )  # codes up to 15 times what fp16 leaves
    assert not torch.equal(stored.scale, packed.scale)


def test_a_scale_that_16_bits_cannot_hold_stays() -> None:
    packed = pack(round_to_nearest(WEIGHT, TRAINED[0]), TRAINED[0])
    for growth in (-1.0, 1e9, torch.nan):
        scale = TrainedScale(packed)
        with torch.no_grad():
            scale.growth.fill_(growth)
        assert torch.equal(scale.packed().scale, packed.scale)


@pytest.mark.parametrize("scheme", FIXED, ids=str)
def test_a_layout_without_free_scales_is_refused(scheme: Scheme) -> None:
    assert not scheme.mode.has_free_scales
    with pytest.raises(ValueError, match=str(scheme)):
        TrainedScale(pack(round_to_nearest(WEIGHT, scheme), scheme))
