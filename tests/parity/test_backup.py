"""What NNCF gives the embedding and the head beside each mode, and that a plan gives them the same."""

import pytest
import torch

from studio.checkpoint.layers import Kind, Layer
from studio.planning.choice import Choice
from studio.planning.plan import make_plan
from studio.quantization.scheme import Mode, Scheme
from tests.parity.nncf_side import INT8, MODES, constants, listening, model, nncf

WIDTH, GROUP = 128, 64
FORMATS = {  # codes, scales, weights under one scale
    Scheme(Mode.INT8_ASYM): ("u8", "f16", WIDTH),
    Scheme(Mode.FP8_E4M3, GROUP): ("f8e4m3", "f16", GROUP),
    Scheme(Mode.MXFP8_E4M3, 32): ("f8e4m3", "f8e8m0", 32),
}
LAYERS = [
    Layer("embedding", ("embedding",), Kind.EMBEDDING, (16, WIDTH)),
    Layer("linear", ("linear",), Kind.LINEAR, (8, WIDTH)),
    Layer("head", ("head",), Kind.HEAD, (8, WIDTH)),
]
beside_every_mode = pytest.mark.parametrize("mode", [mode for mode in MODES if mode not in INT8], ids=str)


@beside_every_mode
def test_the_default_backup_is_nncf_s(mode: Mode) -> None:
    options = {"group_size": GROUP} if mode.is_grouped else {}
    weights = {"linear": torch.randn(8, WIDTH), "head": torch.randn(8, WIDTH)}
    with listening():
        compressed = nncf.compress_weights(
            model(weights, ("embedding", torch.randn(16, WIDTH))), mode=nncf.CompressWeightsMode(mode.value), **options
        )
    found = constants(compressed)
    for name in ("embedding", "head"):
        codes, scale = found[name], found[f"{name}/scale"]
        kinds = codes.get_element_type().to_string(), scale.get_element_type().to_string(), codes.shape[-1]
        assert kinds == FORMATS[Scheme.of(mode.default_backup, GROUP)]


@beside_every_mode
def test_a_plan_gives_embedding_and_head_that_backup(mode: Mode) -> None:
    """FP8_E4M3 takes the group size of the primary mode."""
    plan = make_plan(LAYERS, Choice(mode, GROUP, 1.0, mode.default_backup))
    assert plan.scheme_of("linear") == Scheme.of(mode, GROUP)
    assert plan.scheme_of("embedding") == plan.scheme_of("head") == Scheme.of(mode.default_backup, GROUP)
