"""What a compressed model's predictions lose against the original's, over the same tokens.

The original is run once per text, in fp32, and its final hidden states are kept (exact through the head, and small);
the other model is run beside it, some windows at a time, so that a first figure comes early. Knows nothing of schemes.

Sources: KL divergence and same-top share as llama.cpp's perplexity tool has them; answer flips, "Accuracy is Not All
You Need" (Dutta et al. 2024).
"""

import hashlib
import math
from collections.abc import Callable, Generator, Iterator
from dataclasses import dataclass, field
from pathlib import Path

import torch
from torch import Tensor, nn
from torch.nn.functional import log_softmax

from studio.blocks import BlockModel
from studio.checkpoint import Checkpoint
from studio.errors import ModelError
from studio.questions import Flips, Question, options, questions
from studio.settings import settings
from studio.texts import ASSETS, read_text, token_ids, windows

BUILTIN_TEXTS = (ASSETS / "evaluation-en.txt", ASSETS / "evaluation-zh.txt")
WINDOWS, WINDOW = 24, 512
FIRST_BATCH, LARGEST_BATCH = 1, 4
"""Windows run at once: few at first, for an early figure."""
HEAD_ROWS = 128
"""Positions whose logits are compared at once."""

Predict = Callable[[Tensor], Tensor]
"""Token ids int64 [B, T] -> logits [B, T, V] of any float dtype."""


@dataclass(frozen=True)
class Spread:
    """A figure over all tokens, and the standard error of its mean over windows, which tokens of one window share."""

    mean: float
    standard_error: float | None
    """None while there is only one window."""


@dataclass(frozen=True)
class Evaluation:
    """How far a model is from the original, as far as it has been measured."""

    perplexity: Spread
    original_perplexity: Spread
    kld: Spread
    """Nats a token."""
    kld_median: float
    kld_p99: float
    same_top: Spread
    """Share of tokens whose likeliest next token is the original's."""
    tokens: int
    done: int
    total: int
    """Windows."""
    flips: Flips | None = None


@dataclass
class Tally:
    """Sums what is found window by window; each list has a tensor [T] (losses: [T - 1]) for every window."""

    total: int
    kld: list[Tensor] = field(default_factory=list)
    same: list[Tensor] = field(default_factory=list)
    loss: list[Tensor] = field(default_factory=list)
    original_loss: list[Tensor] = field(default_factory=list)

    def add(self, ids: Tensor, original: Tensor, other: Tensor) -> None:
        """Take a window: ids [T], logits [T, V] of both, rows in any float dtype."""
        divergences, same, losses = [], [], ([], [])  # type: ignore[var-annotated]
        for start in range(0, len(ids), HEAD_ROWS):
            rows = slice(start, start + HEAD_ROWS)
            logs = [log_softmax(logits[rows].float(), -1) for logits in (original, other)]
            divergences.append((logs[0].exp() * (logs[0] - logs[1])).sum(-1))
            same.append((logs[0].argmax(-1) == logs[1].argmax(-1)).float())
            coming = ids[start + 1 : start + HEAD_ROWS + 1].unsqueeze(1)
            for kept, log in zip(losses, logs, strict=True):
                kept.append(-log[: len(coming)].gather(1, coming).squeeze(1))
        self.kld.append(torch.cat(divergences).clamp_(min=0))  # rounding may take one of nothing below it
        self.same.append(torch.cat(same))
        self.original_loss.append(torch.cat(losses[0]))
        self.loss.append(torch.cat(losses[1]))

    def result(self, flips: Flips | None = None) -> Evaluation:
        every = torch.cat(self.kld)
        return Evaluation(
            perplexity=_perplexity(self.loss),
            original_perplexity=_perplexity(self.original_loss),
            kld=_spread(self.kld),
            kld_median=float(every.median()),
            kld_p99=float(every.quantile(0.99)),
            same_top=_spread(self.same),
            tokens=len(every),
            done=len(self.kld),
            total=self.total,
            flips=flips,
        )


def evaluate(
    checkpoint: Checkpoint, other: Predict, ids: Tensor, asked: tuple[Question, ...] | None = None
) -> Generator[Evaluation, None, Evaluation]:
    """Yield the evaluation of ``other`` against the original ``checkpoint`` as it grows, and return the whole.

    ``ids`` int64 [W, T] are windows of a text. The questions come last, by default the built-in ones. Closing the
    generator stops it. Raises ModelError for a model without a language model's head, CheckpointError for files that
    are damaged.
    """
    if not checkpoint.can_chat:
        raise ModelError("no_language_model", model=checkpoint.title)
    original = Original(checkpoint)
    tally = Tally(len(ids))
    for batch in _batches(ids):
        hidden = yield from _beside(original.hidden(batch), tally)
        for window, states in zip(batch, hidden, strict=True):
            with torch.no_grad():
                tally.add(window, original.logits(states.unsqueeze(0))[0], other(window.unsqueeze(0))[0])
            yield tally.result()
    tried = options(checkpoint, questions() if asked is None else asked)
    answers: tuple[list[Tensor], list[Tensor]] = ([], [])
    for batch in tried.batches():
        hidden = yield from _beside(original.hidden(batch), tally)
        with torch.no_grad():
            for which, logits in enumerate((original.logits(hidden), other(batch))):
                answers[which].append(tried.likelihoods(batch, logits, len(answers[which])))
        yield tally.result()
    return tally.result(tried.flips(*(torch.cat(found) for found in answers)) if tried.count else None)


def predictor(model: nn.Module) -> Predict:
    """Return what a model predicts, as :func:`evaluate` takes it."""

    def predict(ids: Tensor) -> Tensor:
        with torch.no_grad():
            logits: Tensor = model(input_ids=ids, use_cache=False).logits
        return logits

    return predict


def floor(checkpoint: Checkpoint, ids: Tensor) -> Generator[Evaluation, None, Evaluation]:
    """Yield and return what running the original in bf16 instead of fp32 costs: no evaluation can be finer."""
    rerun = Original(checkpoint, torch.bfloat16, keep=False)

    def predict(window: Tensor) -> Tensor:
        run = rerun.hidden(window)
        while True:
            try:
                next(run)
            except StopIteration as finished:
                return rerun.logits(finished.value)

    return (yield from evaluate(checkpoint, predict, ids, asked=()))


def text_windows(checkpoint: Checkpoint, file: Path | None = None) -> Tensor:
    """Return what to evaluate on, int64 [W, 512]: windows of a text file, or of the built-in ones in equal parts.

    Raises TextError for a file that is no text, or too short.
    """
    texts = [read_text(file)] if file is not None else [read_text(asset) for asset in BUILTIN_TEXTS]
    return torch.cat([windows(token_ids(checkpoint, text), WINDOWS // len(texts), WINDOW) for text in texts])


class Original:
    """A checkpoint run from disk in ``dtype``; its hidden states are kept in the cache, by model and tokens."""

    def __init__(self, checkpoint: Checkpoint, dtype: torch.dtype = torch.float32, keep: bool = True) -> None:
        self._model = BlockModel(checkpoint, dtype)
        self._folder = settings().cache_dir / "hidden" / checkpoint.revision if keep else None

    def hidden(self, ids: Tensor) -> Generator[None, None, Tensor]:
        """Yield while the model runs and return what its head is given, [B, T, D]."""
        file = None if self._folder is None else self._folder / f"{_digest(ids)}.pt"
        kept = None if file is None else _kept(file, ids)
        if kept is not None:
            return kept
        run = self._model.run(ids)
        try:
            while True:
                try:
                    next(run)
                except StopIteration as finished:
                    found: Tensor = finished.value
                    break
                yield
        finally:
            run.close()
        if file is not None:
            _keep(file, found)
        return found

    def logits(self, hidden: Tensor) -> Tensor:
        """Return the logits [B, T, V] of hidden states [B, T, D]."""
        return torch.cat(list(self._model.logits(hidden)), 1)


def _beside(run: Generator[None, None, Tensor], tally: Tally) -> Generator[Evaluation, None, Tensor]:
    """Yield the evaluation so far while the original runs, once there is one."""
    try:
        while True:
            try:
                next(run)
            except StopIteration as finished:
                found: Tensor = finished.value
                return found
            if tally.kld:
                yield tally.result()
    finally:
        run.close()


def _batches(ids: Tensor) -> Iterator[Tensor]:
    start, size = 0, FIRST_BATCH
    while start < len(ids):
        yield ids[start : start + size]
        start, size = start + size, min(2 * size, LARGEST_BATCH)


def _spread(values: list[Tensor]) -> Spread:
    means = torch.stack([value.mean() for value in values]).double()
    error = float(means.std() / math.sqrt(len(means))) if len(means) > 1 else None
    return Spread(float(means.mean()), error)


def _perplexity(losses: list[Tensor]) -> Spread:
    loss = _spread(losses)
    mean = math.exp(min(loss.mean, 700.0))
    return Spread(mean, None if loss.standard_error is None else mean * loss.standard_error)


def _digest(ids: Tensor) -> str:
    return hashlib.sha256(repr((tuple(ids.shape), ids.flatten().tolist())).encode()).hexdigest()[:32]


def _kept(file: Path, ids: Tensor) -> Tensor | None:
    """Return the hidden states of an earlier visit, None when there are none or they are not of these tokens."""
    try:
        states = torch.load(file, weights_only=True)
    except Exception:  # missing or cut short, whatever torch raises then
        return None
    is_sound = isinstance(states, Tensor) and states.shape[:2] == ids.shape
    return states if is_sound else None


def _keep(file: Path, states: Tensor) -> None:
    """Keep the states for the next visit; a disk without room for them costs that visit some seconds, no more."""
    partial = file.with_suffix(f".{id(states)}")
    try:
        file.parent.mkdir(parents=True, exist_ok=True)
        torch.save(states, partial)
        partial.replace(file)
    except OSError:
        partial.unlink(missing_ok=True)
