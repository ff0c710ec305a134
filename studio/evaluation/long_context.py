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
from studio.checkpoint.tokenizer.guarded_tokenizer import GuardedTokenizer, load_tokenizer
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

    Raises ModelError for a model that reads less than the shortest, ValueError for a ``longest`` that is less.
    """
    if longest < SHORTEST:
        raise ValueError(f"{longest} is less than {SHORTEST} tokens")
    own = positions(checkpoint, LONGEST)
    if own < SHORTEST:
        raise ModelError("context_too_short", model=checkpoint.title, most=own, least=SHORTEST)
    most = min(longest, own)
    return [SHORTEST << i for i in range((most // SHORTEST).bit_length())]


def keys_found(checkpoint: Checkpoint, other: Predict, longest: int) -> Generator[Progress, None, tuple[Found, ...]]:
    """Yield progress and return what the original ``checkpoint`` and ``other`` found, by length.

    Raises as :func:`lengths` and :func:`long_text`, and CheckpointError for damaged files or a tokenizer that fails.
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
    """Return a text of at most ``length`` tokens, int64 [T], the tokens that tell the answers apart, int64 [K], and
    which of them is right. Raises CheckpointError, and ModelError for a tokenizer that tells no two answers apart."""
    tokenizer = load_tokenizer(checkpoint.path)
    lead = _lead(tokenizer)
    asked, firsts = _answers(tokenizer, f"{lead}{ASKED}")
    if len(firsts) < 2:
        raise ModelError("keys_alike", model=checkpoint.title)
    key = list(firsts.values())[number % len(firsts)]
    frame, told = tokenizer.encode(""), tokenizer.continued(f"{lead}{ASKED} {key}.")
    sentences = [tokenizer.continued(f"{lead}{sentence}") for sentence in FILLER]
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


def _lead(tokenizer: GuardedTokenizer) -> str:
    """Return what a sentence after another begins with: nothing where the tokenizer sets a space before any text."""
    one, two = FILLER[:2]
    apart = tokenizer.continued(one) + tokenizer.continued(two)
    return "" if apart == tokenizer.continued(f"{one} {two}") else " "


def _answers(tokenizer: GuardedTokenizer, asked: str) -> tuple[list[int], dict[int, str]]:
    """Return the tokens of a question as far as all answers have them, and the answer by its first token after them.

    A word's own first tokens would not do: some tokenizers begin each with the same mark of a space.
    """
    answered = {key: tokenizer.continued(f"{asked} {key}") for key in KEYS}
    shortest = min(map(len, answered.values()))
    alike = next((i for i in range(shortest) if len({ids[i] for ids in answered.values()}) > 1), shortest)
    firsts = {ids[alike]: key for key, ids in answered.items() if len(ids) > alike}
    return next(iter(answered.values()))[:alike], firsts


def _last(pieces: Iterator[Tensor]) -> Tensor:
    """Return the logits [V] after the last token."""
    last = torch.empty(0, dtype=torch.float32)
    for piece in pieces:
        last = piece[-1].float()
    return last
