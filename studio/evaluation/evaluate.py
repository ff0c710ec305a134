"""What a compressed model's predictions lose against the original's, over the same tokens.

The original is run once per text, in fp32, and its final hidden states are kept (exact through the head, and small);
the other model is run beside it, some windows at a time, so that a first figure comes early. Knows nothing of schemes.

Sources: KL divergence and same-top share as llama.cpp's perplexity tool has them; answer flips, "Accuracy is Not All
You Need" (Dutta et al. 2024).
"""

from collections.abc import Generator, Iterator
from itertools import chain
from typing import Any, Protocol

import torch
from torch import Tensor
from torch.nn.functional import log_softmax
from torch.nn.utils.rnn import pad_sequence

from studio.base.assets import asset
from studio.base.settings import settings
from studio.base.steps import held, relayed
from studio.base.tensor_cache import Shelf
from studio.calibration.texts import check_has_head, digest, positions, read_text, token_ids, windows
from studio.checkpoint.checkpoint import Checkpoint
from studio.evaluation.figures import Evaluation, Pieces, Predict, Tally, added_to
from studio.evaluation.questions import Flips, Options, Question, options, questions
from studio.runtime.block_model import BlockModel
from studio.runtime.decoder import MOST_TOKENS, Decoder

BUILTIN_TEXTS = (asset("evaluation-en.txt"), asset("evaluation-zh.txt"))
WINDOWS, WINDOW = 18, 512
FIRST_BATCH, LARGEST_BATCH = 1, 4
"""Windows the original reads at once: few at first, for an early figure."""
FLOOR_WINDOWS = 3
"""Windows that the floor is taken from: the first two batches, whose hidden states an evaluation keeps too."""
HIDDEN_BYTES = 2 << 30
"""What the kept hidden states of all models and texts may take on disk: about ten evaluations of a 7B model."""
Steps = Generator[Evaluation | None, None, Evaluation]
"""What is found so far, None while it is nothing, and in the end the whole. Closing it stops the work."""


class Rerun(Protocol):
    """A checkpoint that runs from disk in some way."""

    def hidden(self, ids: Tensor) -> Generator[Any, None, Tensor]:
        """Yield while it runs on ``ids`` int64 [B, T]; return what its head is given, [B, T, D]."""
        ...

    def logits(self, hidden: Tensor) -> Pieces:
        """Yield the logits of hidden states [T, D]."""
        ...


def evaluate(checkpoint: Checkpoint, other: Predict, ids: Tensor, asked: tuple[Question, ...] | None = None) -> Steps:
    """Yield the evaluation of ``other`` against the original ``checkpoint`` as it grows, and return the whole.

    ``ids`` int64 [W, T] are windows of a text. The questions come last, by default the built-in ones. Raises
    ModelError for a model without a language model's head, CheckpointError for files that are damaged.
    """
    original = Original(checkpoint)
    tried = options(checkpoint, questions() if asked is None else asked)
    tally = Tally(len(ids) + len(tried.batches))
    for batch in batches(ids):
        hidden = yield from tally.during(original.hidden(batch))
        for window, states in zip(batch, hidden, strict=True):
            yield from tally.during(added_to(tally, window, original.logits(states), other(window)))
            yield tally.result()

    def counted(answered: int) -> Evaluation:
        tally.questions = answered
        return tally.result()

    return tally.result((yield from relayed(flips_of(original, other, tried), counted)))


def predictor(decoder: Decoder[Any], kv_bits: int = 16) -> Predict:
    """Return what a model predicts on the way that it answers in a chat, as :func:`evaluate` takes it."""

    def predict(ids: Tensor) -> Pieces:
        tokens = ids.tolist()
        cache = decoder.begin(len(tokens), kv_bits)
        for start in range(0, len(tokens), MOST_TOKENS):
            yield decoder.forward_all(cache, tokens[start : start + MOST_TOKENS])

    return predict


def floor(checkpoint: Checkpoint, ids: Tensor) -> Steps:
    """Yield and return what running the original in bf16 instead of fp32 costs, on the first windows of ``ids``.

    No evaluation of a model that answers at 16 bits can be finer. Raises as :func:`evaluate` does.
    """
    return rerun_loss(Original(checkpoint), Original(checkpoint, torch.bfloat16), ids[:FLOOR_WINDOWS])


def rerun_loss(original: "Original", rerun: Rerun, ids: Tensor) -> Steps:
    """Yield and return what the same checkpoint, run in another way, loses against ``original`` on ``ids`` [W, T]."""
    tally = Tally(len(ids))
    for batch in batches(ids):
        hidden = yield from tally.during(original.hidden(batch))
        again = yield from tally.during(rerun.hidden(batch))
        for window, states, others in zip(batch, hidden, again, strict=True):
            yield from tally.during(added_to(tally, window, original.logits(states), rerun.logits(others)))
            yield tally.result()
    return tally.result()


def text_windows(checkpoint: Checkpoint, text: str | None = None) -> Tensor:
    """Return what to evaluate on, int64 [W, T]: windows of a text, or of the built-in ones in equal parts.

    T is 512, or as many positions as the model has. With several texts their windows take turns, so that the first
    figures are of all. Raises TextError for a text that is too short, ModelError for a model without a language model's
    head.
    """
    check_has_head(checkpoint)
    length = positions(checkpoint, WINDOW)
    texts = [text] if text is not None else [read_text(asset) for asset in BUILTIN_TEXTS]
    each = [windows(token_ids(checkpoint, one), WINDOWS // len(texts), length) for one in texts]
    turns = [(place / len(own_windows), window) for own_windows in each for place, window in enumerate(own_windows)]
    return torch.stack([window for _, window in sorted(turns, key=lambda turn: turn[0])])


class Original:
    """A checkpoint run from disk in ``dtype``; its hidden states are kept in the cache, by model and tokens."""

    def __init__(self, checkpoint: Checkpoint, dtype: torch.dtype = torch.float32) -> None:
        """Raises ModelError for a model without a language model's head."""
        check_has_head(checkpoint)
        self._model = BlockModel(checkpoint, dtype)
        self._shelf = Shelf(settings().cache_dir / "hidden", HIDDEN_BYTES)
        self._revision = checkpoint.revision
        self._suffix = "" if dtype == torch.float32 else f"-{str(dtype).removeprefix('torch.')}"

    def hidden(self, ids: Tensor) -> Generator[None, None, Tensor]:
        """Yield while the model runs and return what its head is given, [B, T, D]."""
        name = f"{self._revision}/{digest(ids)}{self._suffix}.kept"
        kept = (self._shelf.recall(name) or {}).get("hidden")
        if kept is not None and kept.shape[:2] == ids.shape:
            return kept
        run = self._model.run(ids)
        try:
            while True:
                try:
                    next(run)
                except StopIteration as finished:
                    states: Tensor = finished.value
                    break
                yield
        finally:
            run.close()
        self._shelf.keep(name, {"hidden": states})
        return states

    def logits(self, hidden: Tensor) -> Pieces:
        """Yield the logits of hidden states [T, D]."""
        for piece in self._model.logits(hidden.unsqueeze(0), MOST_TOKENS):
            yield piece[0]


def flips_of(original: Original, other: Predict, tried: Options) -> Generator[int, None, Flips | None]:
    """Yield how many batches both have answered; return how the answers compare, None without questions."""
    answers: tuple[list[float], list[float]] = ([], [])
    for done, batch in enumerate(tried.batches):
        # Shorter ones are filled up at the end, which no causal model looks at before it.
        padded = pad_sequence([option.ids for option in batch], batch_first=True)
        hidden = yield from held(original.hidden(padded), done)
        states = torch.cat([row[: len(option.ids)] for row, option in zip(hidden, batch, strict=True)])
        coming = torch.cat([option.ids.roll(-1) for option in batch])
        both = original.logits(states), chain.from_iterable(other(option.ids) for option in batch)
        for likelihoods, pieces in zip(answers, both, strict=True):
            logs = yield from held(_logs(pieces, coming), done)
            parts = torch.split(logs, [len(option.ids) for option in batch])
            likelihoods += [option.likelihood(part) for option, part in zip(batch, parts, strict=True)]
        yield done + 1
    return tried.flips(*answers) if tried.count else None


def _logs(pieces: Pieces, coming: Tensor) -> Generator[None, None, Tensor]:
    """Yield after each piece and return the log-likelihoods [T] of the tokens that come after each, int64 [T]."""
    log_likelihoods: list[Tensor] = []
    start = 0
    for logits in pieces:
        log = log_softmax(logits.float(), -1)
        log_likelihoods.append(log.gather(1, coming[start : start + len(log), None]).squeeze(1))
        start += len(log)
        yield
    return torch.cat(log_likelihoods)


def batches(ids: Tensor) -> Iterator[Tensor]:
    """Yield windows [W, T] in the lots that the original reads at once."""
    start, size = 0, FIRST_BATCH
    while start < len(ids):
        yield ids[start : start + size]
        start, size = start + size, min(2 * size, LARGEST_BATCH)
