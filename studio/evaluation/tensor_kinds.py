"""What each kind of tensor loses when it is rounded: weights, inputs of layers, keys and values. Knows no pages.

Weights and inputs are simulated (:mod:`simulated`); keys and values are rounded for real, as the chat keeps them. All
are compared with the original in fp32, on the same tokens.
"""

from collections.abc import Generator, Sequence
from dataclasses import dataclass

from torch import Tensor

from studio.base.progress import Progress
from studio.base.steps import relayed
from studio.checkpoint.checkpoint import Checkpoint
from studio.evaluation.evaluate import Original, Steps, evaluate, predictor, rerun_loss
from studio.evaluation.figures import Evaluation
from studio.evaluation.simulated import ROUNDINGS, Rounding, SimulatedModel
from studio.runtime.decoder import KV_BITS, open_original

STAGE = "evaluate"


@dataclass(frozen=True)
class KindLoss:
    """A row of the table: ``KindLoss("W4A8", 4, 8, 16, True, …)``."""

    name: str
    weight_bits: int
    input_bits: int
    kv_bits: int
    is_simulated: bool
    evaluation: Evaluation


Rows = Generator[Progress, None, tuple[KindLoss, ...]]


def simulated_losses(checkpoint: Checkpoint, ids: Tensor, roundings: Sequence[Rounding] = ROUNDINGS) -> Rows:
    """Yield progress and return what each rounding costs on ``ids`` int64 [W, T].

    Raises ModelError for a model without a language model's head, CheckpointError for files that are damaged.
    """
    rows = []
    for done, each in enumerate(roundings):
        steps = rerun_loss(Original(checkpoint), SimulatedModel(checkpoint, each), ids)
        found = yield from _told(steps, each.name, done, len(roundings))
        rows.append(KindLoss(each.name, each.weights, each.inputs, 16, True, found))
    return tuple(rows)


def kv_losses(checkpoint: Checkpoint, ids: Tensor) -> Rows:
    """Yield progress and return what keys and values of fewer bits cost, as the chat keeps them; 16 bits come first:
    what computing in bf16 costs.

    Only the bits that the chat has for this model here. The model is loaded at 16 bits. Raises as
    :func:`simulated_losses` does.
    """
    decoder = open_original(checkpoint)
    rows = []
    for done, bits in enumerate(decoder.kv_bits):
        steps = evaluate(checkpoint, predictor(decoder, bits), ids, ())
        found = yield from _told(steps, f"KV{bits}", done, len(KV_BITS))
        rows.append(KindLoss(f"KV{bits}", 16, 16, bits, False, found))
    return tuple(rows)


def _told(steps: Steps, name: str, done: int, total: int) -> Generator[Progress, None, Evaluation]:
    def say(step: Evaluation | None) -> Progress:
        figure = "" if step is None else f" KLD {step.kld.mean:.4f}"
        share = 0 if step is None else 100 * step.done // step.total
        return Progress(STAGE, 100 * done + share, 100 * total, f"{name}{figure}")

    return (yield from relayed(steps, say))
