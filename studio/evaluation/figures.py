"""Figures of an evaluation and how they add up. Knows nothing of models."""

import math
from collections.abc import Callable, Generator, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any, TypeVar

import torch
from torch import Tensor
from torch.nn.functional import log_softmax

from studio.base.steps import relayed
from studio.evaluation.questions import Flips

Pieces = Iterator[Tensor]
"""Logits [t, V] of successive tokens, fp32 or coarser, at most ``MOST_TOKENS`` of them at once."""
Predict = Callable[[Tensor], Pieces]
"""Token ids int64 [T] -> the logits after each."""


@dataclass(frozen=True)
class WindowMean:
    """A figure over all tokens, and the standard error of its mean over windows, which tokens of one window share."""

    mean: float
    standard_error: float | None
    """None while there is only one window."""


@dataclass(frozen=True)
class Evaluation:
    """How far a model is from the original, as far as it has been measured."""

    perplexity: WindowMean
    original_perplexity: WindowMean
    kld: WindowMean
    """Nats a token."""
    kld_median: float
    kld_p99: float
    same_top: WindowMean
    """Share of tokens whose likeliest next token is the original's."""
    tokens: int
    done: int
    total: int
    """Windows, and batches of questions."""
    flips: Flips | None = None
    kld_of_windows: tuple[float, ...] = ()
    """Nats a token, the mean of each window in the text's order: what another model is compared by in pairs."""


Result = TypeVar("Result")


@dataclass
class Tally:
    """Sums what is found window by window; each list has a tensor [T] (losses: [T - 1]) for every window."""

    total: int
    kld: list[Tensor] = field(default_factory=list)
    same: list[Tensor] = field(default_factory=list)
    loss: list[Tensor] = field(default_factory=list)
    original_loss: list[Tensor] = field(default_factory=list)
    questions: int = 0
    """Batches of questions that are answered."""

    def add(self, ids: Tensor, original: Pieces, other: Pieces) -> Iterator[None]:
        """Take a window: ids [T], logits of both, in the same pieces. Yields after each; at the end it counts."""
        divergences, same, losses, start = [], [], ([], []), 0  # type: ignore[var-annotated]
        for ours, theirs in zip(original, other, strict=True):
            logs = [log_softmax(logits.float(), -1) for logits in (ours, theirs)]
            divergences.append((logs[0].exp() * (logs[0] - logs[1])).sum(-1))
            same.append((logs[0].argmax(-1) == logs[1].argmax(-1)).float())
            coming = ids[start + 1 : start + len(ours) + 1].unsqueeze(1)
            for kept, log in zip(losses, logs, strict=True):
                kept.append(-log[: len(coming)].gather(1, coming).squeeze(1))
            start += len(ours)
            yield
        self.kld.append(torch.cat(divergences).clamp_(min=0))  # rounding may take one of nothing below it
        self.same.append(torch.cat(same))
        self.original_loss.append(torch.cat(losses[0]))
        self.loss.append(torch.cat(losses[1]))

    def result(self, flips: Flips | None = None) -> Evaluation:
        """Return the figures; there has to be a window."""
        every = torch.cat(self.kld)
        return Evaluation(
            perplexity=perplexity_of(self.loss),
            original_perplexity=perplexity_of(self.original_loss),
            kld=mean_over_windows(self.kld),
            kld_median=float(every.median()),
            kld_p99=float(every.quantile(0.99)),
            same_top=mean_over_windows(self.same),
            tokens=len(every),
            done=len(self.kld) + self.questions,
            total=self.total,
            flips=flips,
            kld_of_windows=tuple(float(window.mean()) for window in self.kld),
        )

    def during(self, work: Generator[Any, None, Result]) -> Generator[Evaluation | None, None, Result]:
        """Yield what is found so far at each step of ``work``, and return what comes of it."""
        return (yield from relayed(work, lambda _: self.result() if self.kld else None))


def paired(first: Sequence[float], second: Sequence[float]) -> WindowMean | None:
    """Return how much less the first loses than the second on the windows that both read, with its standard error.

    The windows are those of one text in its order. What makes a window hard is the same for both and falls out, so
    that far smaller differences show than the two errors by themselves would allow. None where there is none in common.
    """
    gains = [b - a for a, b in zip(first, second, strict=False)]
    return mean_over_windows([torch.tensor([gain], dtype=torch.float64) for gain in gains]) if gains else None


def added_to(tally: Tally, window: Tensor, original: Pieces, other: Pieces) -> Generator[None, None, None]:
    with torch.no_grad():
        yield from tally.add(window, original, other)


def mean_over_windows(values: list[Tensor]) -> WindowMean:
    means = torch.stack([value.mean() for value in values]).double()
    error = float(means.std() / math.sqrt(len(means))) if len(means) > 1 else None
    return WindowMean(float(means.mean()), error)


def perplexity_of(losses: list[Tensor]) -> WindowMean:
    loss = mean_over_windows(losses)
    mean = math.exp(min(loss.mean, 700.0))
    return WindowMean(mean, None if loss.standard_error is None else mean * loss.standard_error)
