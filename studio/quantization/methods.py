"""Every way to round a weight, registered: menus, options, what needs a text and how long it takes follow from here.

Knows what a method is called, what it costs and what it needs, not how it rounds: that stands in ``rounding/``, a
file each.
"""

from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any, Self

from studio.base.errors import SchemeError
from studio.quantization.registry import Word, later

if TYPE_CHECKING:
    from studio.quantization.rounding.methods import Calibrated, DataFree


def _rounding(module: str, name: str) -> Callable[[], Any]:
    return later(f"studio.quantization.rounding.{module}", name)


NEAREST = _rounding("nearest", "round_to_nearest")
WINDOWS = 16
"""How much text calibrates where a method does not ask for more, in windows."""


@dataclass(frozen=True)
class Rounding:
    """What a method does, and when. Functions are imported when the first weight is rounded."""

    nanoseconds: float
    """About what a weight costs on two cores of an AMD EPYC, with the calibration it takes."""
    calibrated: "Callable[[], Calibrated] | None" = None
    """Rounds by statistics of the weight's inputs, for which the model has to read a text first."""
    data_free: "Callable[[], DataFree]" = NEAREST
    """Rounds a weight that was given nothing."""
    weighs_tokens: bool = False
    """Whether its statistics weight each token by its effect on the predictions, instead of all alike."""
    scales_channels: bool = False
    """Whether input channels are scaled before, where their inputs can make up for it (``rounding/awq.py``)."""
    is_tuned: bool = False
    """Whether a block's weights are then tuned together (``rounding/sign_round.py``)."""
    is_two_sided: bool = False
    """Whether output channels make up for each other's errors, too (``rounding/two_sided.py``)."""
    is_distilled: bool = False
    """Whether scales and norms are trained against the original's predictions, in the end."""
    windows: int = WINDOWS
    """How many stretches of text it reads, where the text is as long."""


class Method(Word):
    """How codes, scales and zero points are found, in order of what it costs."""

    rounding: Rounding

    @classmethod
    def register(cls, name: str, rounding: Rounding) -> Self:
        """Add a method to menus, options and checks. Raises ValueError for a name that is taken or cannot be one."""
        return cls._add(name, rounding=rounding)

    @property
    def needs_inputs(self) -> bool:
        """Whether the model has to read a text first."""
        return self.rounding.calibrated is not None

    @cached_property
    def data_free(self) -> "DataFree":
        return self.rounding.data_free()

    @cached_property
    def calibrated(self) -> "Calibrated | None":
        return self.rounding.calibrated() if self.rounding.calibrated is not None else None


Method.register("nearest", Rounding(5))
Method.register("half_quadratic", Rounding(200, data_free=_rounding("hqq", "half_quadratic")))
Method.register("scale_estimation", Rounding(165, _rounding("methods", "scale_estimation")))
Method.register("least_squares", Rounding(190, _rounding("methods", "fitted")))
Method.register("nearest_gptq", Rounding(250, _rounding("methods", "nearest_gptq")))
Method.register("gptq", Rounding(290, _rounding("methods", "fitted_gptq")))
Method.register("awq", Rounding(320, _rounding("methods", "fitted"), scales_channels=True))
Method.register("fisher_gptq", Rounding(415, _rounding("methods", "fitted_gptq"), weighs_tokens=True))
Method.register(
    "two_sided",
    Rounding(560, _rounding("methods", "fitted_gptq"), weighs_tokens=True, is_two_sided=True, windows=32),
)
Method.register("tuned", Rounding(2750, _rounding("methods", "fitted_gptq"), weighs_tokens=True, is_tuned=True))
Method.register(
    "distilled",
    Rounding(
        5600,
        _rounding("methods", "fitted_gptq"),
        weighs_tokens=True,
        is_two_sided=True,
        is_distilled=True,
        windows=341,
    ),
)

BEST = Method.FISHER_GPTQ
"""What we recommend: the least damage, within a minute on a small model."""


def parse_method(name: str) -> Method:
    """Return the method of this name, or the recommended one for ``"best"``. Raises SchemeError with the valid ones."""
    if name == "best":
        return BEST
    try:
        return Method(name)
    except ValueError as error:
        raise SchemeError("unknown_method", method=name[:40], methods=", ".join(("best", *Method))) from error
