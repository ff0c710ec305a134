"""How far a compressed copy has drifted from its original: the evaluation and its floor, as one. Knows no pages."""

from collections.abc import Generator
from dataclasses import dataclass, replace

from torch import Tensor

from studio.base.progress import Progress
from studio.base.steps import relayed
from studio.base.text import text
from studio.checkpoint.checkpoint import Checkpoint
from studio.evaluation.evaluate import evaluate, floor
from studio.evaluation.figures import Evaluation, Predict
from studio.quantization.scheme import Mode

SHORT_WINDOWS = 7
"""What a first measurement reads: the first three batches, whose hidden states a whole one finds kept."""
GUIDED_BITS = (8, 4, 3, 2)
"""Weights for which QLLM-Eval (ICML 2024) gives what tasks lose."""


@dataclass(frozen=True)
class Drift:
    """What is known of it so far."""

    text: str
    """The name of the file whose text was read, empty for the built-in ones."""
    evaluation: Evaluation | None = None
    floor: Evaluation | None = None
    """What running the original at bf16 instead of fp32 costs."""
    is_whole: bool = False

    @property
    def fraction(self) -> float:
        """How much of the work is done, 0 to 1; the floor is counted as if it were none."""
        return 0.0 if self.evaluation is None else self.evaluation.done / self.evaluation.total

    @property
    def progress(self) -> Progress:
        """Where the evaluation stands, with its figure once there is one; the floor comes last."""
        if self.evaluation is None:
            return Progress("evaluate", 0, 1)
        stage = "evaluate" if self.fraction < 1 or self.floor is None else "floor"
        return Progress(stage, self.evaluation.done, self.evaluation.total, f"KLD {self.evaluation.kld.mean:.4f}")


def drift(
    checkpoint: Checkpoint, other: Predict, ids: Tensor, text: str = "", with_floor: bool = True, is_short: bool = False
) -> Generator[Drift, None, Drift]:
    """Yield the drift of ``other`` from the original ``checkpoint`` on ``ids`` as it sharpens, and return the whole.

    ``with_floor``: whether its floor is wanted too, which takes its own time. ``is_short``: the first
    :data:`SHORT_WINDOWS` windows alone, and neither questions nor floor. Closing the generator stops the work.
    Raises as :func:`evaluate` does.
    """
    so_far = Drift(text)
    steps = evaluate(checkpoint, other, ids[:SHORT_WINDOWS], ()) if is_short else evaluate(checkpoint, other, ids)
    whole = yield from relayed(steps, lambda step: replace(so_far, evaluation=step))
    so_far = replace(so_far, evaluation=whole)
    if is_short or not with_floor:
        return replace(so_far, is_whole=True)
    lowest = yield from relayed(floor(checkpoint, ids), lambda step: replace(so_far, floor=step))
    return replace(so_far, floor=lowest, is_whole=True)


def guidance(mode: Mode, language: str) -> str:
    """Return what tasks lost in QLLM-Eval with weights of so many bits, named as such; nothing where it gives none."""
    if mode.bits not in GUIDED_BITS:
        return ""
    return f"{text(f'drift.guidance_{mode.bits}', language)} {text('drift.guidance_about', language)}"
