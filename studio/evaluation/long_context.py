"""A key to be found in a long text, made by us: what a model still sees far back. Knows nothing of how it runs.

A text of plain sentences names the key once, at a tenth, half or nine tenths of its length, and ends with the question;
the model's answer is the likeliest of a few words. Source of the idea: "passkey retrieval" (Mohtashami and Jaggi 2023).
"""

from collections.abc import Generator, Iterator
from dataclasses import dataclass
from itertools import chain

import torch
from torch import Tensor

from studio.base.errors import ModelError
from studio.base.progress import Progress
from studio.base.steps import held
from studio.calibration.texts import positions, words
from studio.checkpoint.checkpoint import Checkpoint
from studio.checkpoint.tokenizer.guarded_tokenizer import load_tokenizer
from studio.evaluation.figures import Predict
from studio.runtime.block_model import BlockModel

KEYS = ("amber", "cobalt", "ivory", "scarlet", "violet", "silver")
DEPTHS = (0.1, 0.5, 0.9)
SHORTEST, LONGEST = 2_048, 32_768
FILLER = (
    "The morning was quiet and the shops were still closed.",
    "A boat went down the river with a load of timber.",
    "Somebody had left a ladder against the wall of the barn.",
    "The baker put the bread on the table near the window.",
    "Clouds came over the hills and went away again.",
    "The children counted the wagons of the long train.",
)
ASKED = "The secret colour is"
STAGE = "evaluate"


@dataclass(frozen=True)
class Found:
    """How many keys both models found in texts of one length."""

    tokens: int
    keys: int
    found: int
    original_found: int
    changed: int
    """Answers that are not the original's."""


def lengths(checkpoint: Checkpoint, longest: int) -> list[int]:
    """Return the lengths to try: 2,048 tokens, doubled as far as ``longest`` and the model go.

    Raises ModelError for a model that reads less than the shortest.
    """
    most = positions(checkpoint, min(longest, LONGEST))
    if most < SHORTEST:
        raise ModelError("context_too_short", model=checkpoint.title, most=most, least=SHORTEST)
    return [SHORTEST << i for i in range((most // SHORTEST).bit_length())]


def keys_found(checkpoint: Checkpoint, other: Predict, longest: int) -> Generator[Progress, None, tuple[Found, ...]]:
    """Yield progress and return what the original ``checkpoint`` and ``other`` found, by length.

    Raises as :func:`lengths`, and CheckpointError for damaged files or a tokenizer that fails.
    """
    tried, original = lengths(checkpoint, longest), BlockModel(checkpoint, torch.float32)
    results = []
    total = len(DEPTHS) * sum(tried)
    done = 0
    for length in tried:
        answers: list[tuple[int, int, int]] = []
        for number, depth in enumerate(DEPTHS):
            ids, options, right = long_text(checkpoint, length, depth, number)
            said = Progress(STAGE, done, total, f"{length:,}")
            hidden = yield from held(original.run(ids.unsqueeze(0)), said)
            ours = _last(logits[0] for logits in original.logits(hidden[:, -1:]))
            theirs = _last(other(ids))
            answers.append((int(ours[options].argmax()), int(theirs[options].argmax()), right))
            done += length
        results.append(
            Found(
                length,
                len(answers),
                sum(theirs == right for _, theirs, right in answers),
                sum(ours == right for ours, _, right in answers),
                sum(ours != theirs for ours, theirs, _ in answers),
            )
        )
    return tuple(results)


def long_text(checkpoint: Checkpoint, length: int, depth: float, number: int) -> tuple[Tensor, Tensor, int]:
    """Return a text of at most ``length`` tokens, int64 [T], the first tokens of the answers int64 [K], and which of
    them is right. Raises CheckpointError."""
    tokenizer = load_tokenizer(checkpoint.path)
    firsts = {ids[0]: key for key in KEYS if (ids := tokenizer.continued(f" {key}"))}
    key = list(firsts.values())[number % len(firsts)]
    frame, told, asked = tokenizer.encode(""), tokenizer.continued(f" {ASKED} {key}."), tokenizer.continued(f" {ASKED}")
    sentences = [tokenizer.continued(f" {sentence}") for sentence in FILLER]
    room = length - len(frame) - len(told) - len(asked)
    filler: list[list[int]] = []
    while len(next_ := sentences[len(filler) % len(sentences)]) <= room:
        filler.append(next_)
        room -= len(next_)
    place = round(depth * len(filler))
    ids = list(chain(frame, *filler[:place], told, *filler[place:], asked))
    tokenizer.check(ids, words(checkpoint))
    return (
        torch.tensor(ids, dtype=torch.int64),
        torch.tensor(list(firsts), dtype=torch.int64),
        list(firsts.values()).index(key),
    )


def _last(pieces: Iterator[Tensor]) -> Tensor:
    """Return the logits [V] after the last token."""
    last = torch.empty(0, dtype=torch.float32)
    for piece in pieces:
        last = piece[-1].float()
    return last
