"""What a token of an answer reads of a plan's weights: arithmetic on bytes. Knows no machine."""

from collections import Counter

from studio.checkpoint.layers import Kind, Layer
from studio.planning.plan import Plan
from studio.quantization.scheme import Scheme


def read_per_token(plan: Plan, called_experts: int | None = None) -> int:
    """Return the bytes of weights that one token reads: of an embedding that is no head a row, of experts those called.

    Norms and biases count too; ``called_experts`` None is all of them.
    """
    sorts = Counter([(a.scheme, a.layer.shape, _is_looked_up(a.layer)) for a in plan.assignments])
    return sum(
        count * int(_nbytes(scheme, shape) * _share(shape, is_looked_up, called_experts))
        for (scheme, shape, is_looked_up), count in sorts.items()
    )


def _is_looked_up(layer: Layer) -> bool:
    """Return whether a token reads one row of it alone."""
    return layer.kind is Kind.EMBEDDING and not layer.tied


def _nbytes(scheme: Scheme | None, shape: tuple[int, ...]) -> int:
    *rows, width = shape or (1,)
    count = 1
    for size in rows:
        count *= size
    return 2 * count * width if scheme is None else scheme.nbytes((count, width))


def _share(shape: tuple[int, ...], is_looked_up: bool, called_experts: int | None) -> float:
    if is_looked_up:
        return 1 / max(1, shape[0])
    if len(shape) > 2 and called_experts:
        return min(called_experts, shape[0]) / shape[0]
    return 1.0
