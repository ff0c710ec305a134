"""A weight -> its packed form and how far that is from it: compiled where it can be, in torch where it cannot.

Knows no model and no plan.
"""

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from torch import Tensor

from studio.quantization import native
from studio.quantization.methods import Method
from studio.quantization.packing import PackedTensor, pack
from studio.quantization.rounding import dequantize, round_to_nearest
from studio.quantization.rounding.regained import may_regain, regained
from studio.quantization.scheme import WHOLE_CHANNEL, Mode, Scheme


@dataclass(frozen=True)
class Quantized:
    """Some rows of a weight, packed."""

    packed: PackedTensor
    difference: float
    """‖W - Ŵ‖², Ŵ being what the stored numbers stand for; not finite where a weight is not."""
    square: float
    """‖W‖²."""


@dataclass(frozen=True)
class Measured:
    """Some rows of a weight in several schemes; sums of pieces are those of the whole, if they share what it shares."""

    differences: dict[Scheme, float]
    """‖W - Ŵ‖² by scheme."""
    square: float
    """‖W‖²; not finite where a weight is not."""
    channel_error: float
    """The largest channel's mean squared int8_asym error, with the exact scale: NNCF's measure of sensitivity."""

    def __add__(self, other: "Measured") -> "Measured":
        differences = {scheme: sum_ + other.differences[scheme] for scheme, sum_ in self.differences.items()}
        worst = max(self.channel_error, other.channel_error)
        return Measured(differences, self.square + other.square, worst)


def quantize(
    weight: Tensor, scheme: Scheme, tensor_params: Tensor | None = None, method: Method = Method.NEAREST
) -> Quantized:
    """Return ``weight`` [N, K] rounded and packed; ``tensor_params`` as :func:`round_to_nearest` takes it.

    ``method`` is what rounds it without knowing its inputs: a calibrated one falls back to its data-free part. One that
    lies on a grid that the scheme holds stays on it, by any method, and has no ``difference``: its own dtype does not
    know it any better.
    """
    round_ = method.data_free
    compiled = native.pack_nearest(weight, scheme) if round_ is round_to_nearest else None
    if compiled is not None:
        return Quantized(*compiled)
    whole = regained(weight, scheme) if may_regain(scheme, method) else None
    weight = weight.float()
    if whole is not None:
        return Quantized(pack(whole, scheme), 0.0, float(weight.square().sum()))
    packed = pack(round_(weight, scheme, tensor_params), scheme)
    difference = float((packed.dequantize() - weight).square_().sum())
    return Quantized(packed, difference, float(weight.square().sum()))


def measure(
    weight: Tensor, schemes: Sequence[Scheme], tensor_params: Mapping[Scheme, Tensor] | None = None
) -> Measured:
    """Return how far ``weight`` [N, K] is from itself in each of ``schemes``, and its int8 channel error.

    ``tensor_params``: what rows of a larger weight share with the others, as :func:`round_to_nearest` takes it.
    """
    tensor_params = tensor_params or {}
    compiled = native.squared_errors(weight, schemes)
    if compiled is None:
        return measure_in_torch(weight, schemes, tensor_params)
    sums, square, worst = compiled
    more = _differences(weight, [scheme for scheme in schemes if scheme not in sums], tensor_params)
    return Measured({s: sums[s] if s in sums else more[s] for s in schemes}, square, worst)


def measure_in_torch(
    weight: Tensor, schemes: Sequence[Scheme], tensor_params: Mapping[Scheme, Tensor] | None = None
) -> Measured:
    """Return the same as :func:`measure`, without compiled code: the reference."""
    differences = _differences(weight, schemes, tensor_params or {})
    weight = weight.float()
    return Measured(differences, float(weight.square().sum()), _channel_error(weight) if schemes else 0.0)


def channel_error(weight: Tensor) -> float:
    """Return the largest mean squared int8_asym error of a channel of ``weight`` [N, K], NaN if one is not finite."""
    compiled = native.channel_error(weight)
    return _channel_error(weight.float()) if compiled is None else compiled


def _channel_error(weight: Tensor) -> float:
    rounded = dequantize(round_to_nearest(weight, Scheme(Mode.INT8_ASYM)), Mode.INT8_ASYM)
    return float((rounded - weight).square_().mean(1).max())


def base_schemes(width: int, sizes: Iterable[int]) -> list[Scheme]:
    """Return the schemes that every layer is measured in, in one pass, whose groups, of ``sizes``, divide ``width``
    input channels: those of the modes that most people choose from."""
    modes = [mode for mode in Mode if mode.stored_as.is_surveyed]
    fitting = [size for size in sizes if size == WHOLE_CHANNEL or width % size == 0]
    whole = [Scheme.of(mode, WHOLE_CHANNEL) for mode in modes if not mode.is_grouped]
    whole = [scheme for scheme in whole if scheme.fits(width)]
    return whole + [Scheme(mode, size) for mode in modes if mode.is_grouped for size in fitting]


def relative(difference: float, square: float) -> float:
    """Return ‖W - Ŵ‖ / ‖W‖ from the squares, 0 for a weight that is all zero."""
    return math.sqrt(difference / square) if square else 0.0


def _differences(
    weight: Tensor, schemes: Sequence[Scheme], tensor_params: Mapping[Scheme, Tensor]
) -> dict[Scheme, float]:
    """Return ‖W - Ŵ‖² of a weight by scheme."""
    differences = {}
    stored, weight = weight, weight.float()
    for scheme in schemes:
        if may_regain(scheme, Method.NEAREST) and regained(stored, scheme) is not None:
            differences[scheme] = 0.0
            continue
        rounded = round_to_nearest(weight, scheme, tensor_params.get(scheme)).stored(scheme.mode.stored_as.scale_dtype)
        differences[scheme] = float((dequantize(rounded, scheme.mode) - weight).square_().sum())
    return differences
