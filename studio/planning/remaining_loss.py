"""What a method leaves of the loss of rounding to nearest, by scheme: measured once, then looked up.

Knows no layers, and layers differ far more than schemes do: of what nearest loses, ``best`` left 11 to 18 % in a query
and a key projection, 44 to 51 % in an up projection and 63 to 110 % in two down projections, whose loss hangs on few
tokens; in each of them schemes were mostly within a tenth of each other.
"""

from statistics import median

from studio.quantization.methods import BEST, Method
from studio.quantization.scheme import Scheme

LEFT_BY_BEST: dict[str, float] = {
    "q2_k": 0.185, "q3_k": 0.207, "q4_0": 0.194, "q4_1": 0.175, "iq4_nl": 0.204, "iq4_xs": 0.208, "q4_k": 0.193,
    "q5_0": 0.200, "q5_1": 0.183, "q5_k": 0.187, "q6_k": 0.211,
    "int4_asym-g128": 0.190, "int4_asym-g64": 0.195, "int4_asym-g32": 0.193, "nf4-g64": 0.197, "nf4-g32": 0.189,
    "int5_sym-g64": 0.199, "int5_sym-g32": 0.201,
    "int4_affine-g32": 0.175, "int5_affine-g32": 0.183, "int4_affine-g64": 0.179,
}  # fmt: skip
"""On the dithered built-in model: the level is that of ``int4_asym-g64`` (KL divergence 0.457 to 0.089;
``int5_sym-g32`` goes from a predicted 0.101 to 0.021: ``docs/measurements.md``), the rest the geometric mean over
these layers of each scheme's output loss on held-out tokens, weighted as ``best`` weights them, over that of
``int4_asym-g64``. ``int4_affine-g32`` and ``int5_affine-g32`` are Q4_1 and Q5_1; ``int4_affine-g64`` is the whole
model's share (0.539 to 0.106 on the built-in texts) over that of ``int4_asym-g64`` there (0.607 to 0.131)."""
LIKE_OTHERS = median(LEFT_BY_BEST.values())
"""For schemes that were not measured: those that were lie between 0.175 and 0.211."""

OVER_BEST: dict[Method, float] = {Method.TWO_SIDED: 0.85, Method.DISTILLED: 0.72}
"""KL divergence over that of ``best``: 0.0702 / 0.0824 and 0.0595 / 0.0824 of ``int4_asym-g64`` on the same model, from
all windows that the method asks for, on the tuning part, by a prototype of the same arithmetic on a GPU
(``tests/bench/LOG.md``). For ``nf4-g64`` the latter is 0.70; no other scheme, and no other model, was measured."""


def remaining_loss(scheme: Scheme, method: Method, windows: int | None = None) -> float:
    """Return the share of a linear weight's predicted loss that is left when ``method`` rounds it, not nearest.

    ``windows``: how many stretches of text it has, None for all it asks for. With fewer, a method beyond ``best``
    promises no more than that; nor does training scales where a layout has none that can move.
    """
    if scheme.mode.bits >= 8 or method not in (BEST, *OVER_BEST):
        return 1.0
    return _over_best(scheme, method, windows) * LEFT_BY_BEST.get(str(scheme), LIKE_OTHERS)


def _over_best(scheme: Scheme, method: Method, windows: int | None) -> float:
    if method is Method.DISTILLED and not (scheme.mode.has_free_scales and _is_enough(method, windows)):
        method = Method.TWO_SIDED
    return OVER_BEST.get(method, 1.0) if _is_enough(method, windows) else 1.0


def _is_enough(method: Method, windows: int | None) -> bool:
    return windows is None or windows >= method.rounding.windows
