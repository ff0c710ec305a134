"""Codes, zero points and stored scales are those of ``nncf.compress_weights``, to the last bit, in every format."""

import numpy as np
import pytest
from nncf.quantization.algorithms.weight_compression.config import WeightCompressionConfig
from nncf.quantization.algorithms.weight_compression.weight_lowering import do_integer_quantization
from nncf.tensor import Tensor as NncfTensor
from torch import Tensor

from studio.checkpoint.checkpoint import Checkpoint
from studio.checkpoint.layers import ratio_defining
from studio.quantization.rounding import round_to_nearest
from studio.quantization.rounding.levels import CB4_LEVELS
from studio.quantization.scheme import Mode, Scheme
from tests import hostile
from tests.parity.compare import differences
from tests.parity.nncf_side import MODES, codebook, compress, listening, model, nncf

SCHEMES = [Scheme(mode, group) for mode in MODES for group in mode.stored_as.group_sizes if group in (-1, 16, 32, 64)]
INTEGERS = [scheme for scheme in SCHEMES if scheme.mode.value.startswith("int")]
in_every_scheme = pytest.mark.parametrize("scheme", SCHEMES, ids=str)


@pytest.mark.share(3)
@in_every_scheme
def test_hostile_weights(scheme: Scheme) -> None:
    weights = hostile.weights_for(scheme)
    assert differences(weights, compress(weights, scheme), scheme) == {}


@pytest.mark.parametrize("scheme", [Scheme.parse("mxfp4"), Scheme.parse("mxfp8_e4m3")], ids=str)
def test_scales_that_are_powers_of_two(scheme: Scheme) -> None:
    """Where a maximum is a power of two times the format's largest number, the logarithm's last bit decides."""
    top = 6.0 if scheme.mode is Mode.MXFP4 else 448.0
    maxima = {"fp16": hostile.ALL_FP16, "around": hostile.around_powers_of_two(top)}
    weights = {name: hostile.constant_groups(values) for name, values in maxima.items()}
    assert differences(weights, compress(weights, scheme), scheme) == {}


@pytest.mark.real
@pytest.mark.parametrize("scheme", [Scheme.of(mode, 64) for mode in MODES], ids=str)
def test_a_block_of_the_built_in_model(builtin: Checkpoint, scheme: Scheme) -> None:
    """All 210 weights stand in the report; these seven have every shape of them."""
    weights = {layer.name: builtin.read(layer) for layer in ratio_defining(builtin.layers) if layer.block == 17}
    assert len(weights) == 7
    assert differences(weights, compress(weights, scheme), scheme) == {}


@pytest.mark.parametrize("backend", ["numpy", "torch"])
@pytest.mark.parametrize("scheme", INTEGERS, ids=str)
def test_nncf_s_own_functions_on_their_other_backends(scheme: Scheme, backend: str) -> None:
    """``do_integer_quantization``: compiled for numpy, plain torch for torch; codes, zero points and the fp32 scale."""
    config = WeightCompressionConfig(nncf.CompressWeightsMode(scheme.mode.value), scheme.group_size)
    half = 0 if scheme.mode.has_zero_point else 2 ** (scheme.mode.bits - 1)
    for name, weight in hostile.WEIGHTS.items():
        given = weight.float()
        with listening():
            theirs = do_integer_quantization(NncfTensor(given.numpy() if backend == "numpy" else given), config, (1,))
        mine = round_to_nearest(weight, scheme)
        assert np.array_equal(_numbers(theirs.tensor).flatten() + half, mine.codes.numpy().flatten()), name
        assert np.array_equal(_numbers(theirs.scale).flatten(), mine.scale.numpy().flatten()), name
        if mine.zero_point is not None:
            assert np.array_equal(_numbers(theirs.zero_point).flatten(), mine.zero_point.numpy().flatten()), name


def _numbers(tensor: NncfTensor) -> np.ndarray:
    data = tensor.data
    numbers = data.numpy() if isinstance(data, Tensor) else np.asarray(data)
    return numbers.astype(np.float32) if numbers.dtype.kind == "f" else numbers.astype(np.int32)


def test_the_levels_of_cb4_are_nncf_s() -> None:
    weight = hostile.noise()
    with listening():
        compressed = nncf.compress_weights(
            model({"weight": weight}), mode=nncf.CompressWeightsMode.CB4, group_size=64, ratio=1.0, all_layers=True
        )
    assert codebook(compressed, "weight").tolist() == list(CB4_LEVELS)
