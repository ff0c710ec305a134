"""What vLLM asks of a plan beyond what transformers does. Knows what a plan makes of each weight, and no files.

What it joins has one scheme (``planning/fused.py``; a plan can be asked to keep to that). Its 4- and 8-bit kernels for
GPUs (Marlin) want rows in multiples of 64 and columns of 128. Sources: ``find_matched_target`` and
``should_ignore_layer`` of vLLM's compressed-tensors, ``marlin_utils.py``. It was not run here.
"""

from collections.abc import Iterator

from studio.base.errors import SchemeError, UserError
from studio.checkpoint.layers import Kind
from studio.planning.fused import JOINED, lots
from studio.planning.plan import Assignment, Plan

ROWS, COLUMNS = 64, 128


def cautions(plan: Plan) -> list[UserError]:
    """Return what a reader who serves this plan has to know, one sentence of a kind."""
    return [found for found in (_unlike(plan), _odd(plan), _head(plan)) if found is not None]


def _unlike(plan: Plan) -> UserError | None:
    pairs = list(_pairs(plan))
    if not pairs:
        return None
    one, other = pairs[0]
    return SchemeError(
        "vllm_unlike", layer=_named(one), scheme=_said(one), other=_named(other), other_scheme=_said(other),
        count=len(pairs),
    )  # fmt: skip


def _pairs(plan: Plan) -> Iterator[tuple[Assignment, Assignment]]:
    """Yield one pair of unlike parts of each module that vLLM would join."""
    there = {a.layer.name: a for a in plan.assignments if a.layer.is_weight}
    for lot in lots([a.layer for a in there.values()], JOINED):
        first, *others = (there[layer.name] for layer in lot)
        unlike = next((other for other in others if other.scheme != first.scheme), None)
        if unlike is not None:
            yield first, unlike


def _odd(plan: Plan) -> UserError | None:
    for a in plan.assignments:
        rows, width = a.layer.matrix if a.scheme is not None else (0, 0)
        if rows % ROWS or width % COLUMNS:
            return SchemeError("vllm_shape", layer=_named(a), rows=rows, width=width)
    return None


def _head(plan: Plan) -> UserError | None:
    head = next((a for a in plan.assignments if a.layer.kind is Kind.HEAD and a.scheme is not None), None)
    return None if head is None else SchemeError("vllm_head", layer=_named(head))


def _module(a: Assignment) -> str:
    return a.layer.name.removesuffix(".weight")


def _named(a: Assignment) -> str:
    return _module(a)[:120]


def _said(a: Assignment) -> str:
    return "none" if a.scheme is None else str(a.scheme)
