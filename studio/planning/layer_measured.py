"""The event by which a measurement of many layers hands over what it found of one. Knows no figures."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Generic, TypeVar

from studio.base.progress import Progress

Result = TypeVar("Result", covariant=True)


@dataclass(frozen=True)
class LayerMeasured(Generic[Result]):
    """A layer is measured to its end; while one is in progress a measurement yields :class:`Progress` alone."""

    layer: str
    result: Result
    progress: Progress


def progress_of(step: Progress | LayerMeasured[Result]) -> Progress:
    """Return where a measurement stands, whether it says just that or hands over a layer too."""
    return step.progress if isinstance(step, LayerMeasured) else step


def reading(stage: str, layer: str, done: int, total: int, passes: int) -> Callable[[int], Progress]:
    """Return what makes progress of the weights seen of ``layer``, in all passes; ``done`` is of the layers before it.

    Weights are counted, not layers: a large layer takes longer.
    """
    return lambda seen: Progress(stage, done + seen // passes, total, layer)
