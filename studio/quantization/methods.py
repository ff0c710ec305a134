"""The names of the ways to round a weight. Knows none of them."""

from enum import StrEnum

from studio.base.errors import SchemeError


class Method(StrEnum):
    """How codes, scales and zero points are found, in order of what it costs; ``rounding/methods.py`` does it."""

    NEAREST = "nearest"
    HALF_QUADRATIC = "half_quadratic"
    SCALE_ESTIMATION = "scale_estimation"
    LEAST_SQUARES = "least_squares"
    NEAREST_GPTQ = "nearest_gptq"
    GPTQ = "gptq"
    AWQ = "awq"
    FISHER_GPTQ = "fisher_gptq"
    TUNED = "tuned"

    @property
    def needs_inputs(self) -> bool:
        """Whether the model has to read a text first."""
        return self not in (Method.NEAREST, Method.HALF_QUADRATIC)


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
