"""Text that a model writes itself, to be calibrated on: no data set is needed, and its own words are what it will meet.

Each window begins with a token drawn at random, goes on with the likeliest few, and is sampled from there, as in
LLM-QAT (Liu et al. 2023, section 3.1). Knows nothing of what the text is for; what was written is kept by model.
"""

from collections.abc import Generator
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from studio.base import json_cache
from studio.base.errors import CheckpointError, ModelError
from studio.base.progress import Progress
from studio.base.settings import settings
from studio.calibration.texts import words
from studio.checkpoint.checkpoint import Checkpoint
from studio.checkpoint.tokenizer.guarded_tokenizer import GuardedTokenizer
from studio.runtime.decoder import Decoder
from studio.runtime.sampling import Picker, Sampling

WINDOWS, WINDOW = 16, 256
LIKELIEST = 4
"""Tokens after the first that are not sampled: they choose what the window is about."""
SEED = 0
VERSION = 1
"""Raised when the same seed writes something else: what was kept is then not read any more."""


def write(
    checkpoint: Checkpoint, decoder: Decoder[Any], tokenizer: GuardedTokenizer, count: int, length: int = WINDOW
) -> Generator[Progress, None, Tensor]:
    """Yield after each token and return ``count`` windows of the model's own words, int64 [``count``, T], always the
    same ones.

    T is ``length``, or as many positions as the model has. ``decoder`` is the original, on the fastest way it has here.
    Raises ModelError for logits that are no numbers.
    """
    length = min(length, decoder.context)
    begin = tokenizer.encode("")[: length - 1]
    tokenizer.check(begin, words(checkpoint))
    firsts = _first_tokens(checkpoint, tokenizer, count)
    written = []
    for window, first in enumerate(firsts):
        ids = [*begin, first][:length]
        likeliest = Picker(Sampling(), ids)
        sampled = Picker(Sampling(temperature=1.0, seed=SEED + window), ids)
        cache = decoder.begin(length)
        logits = decoder.step(cache, ids)
        while len(ids) < length:
            if not bool(logits.isfinite().any()):
                raise ModelError("no_own_words")
            token = (likeliest if len(ids) <= len(begin) + LIKELIEST else sampled)(logits)
            ids.append(token)
            done, total = window * length + len(ids), count * length
            yield Progress("generate", done, total, f"{done:,} / {total:,}")
            if len(ids) < length:
                logits = decoder.step(cache, [token])
        written.append(ids)
    return torch.tensor(written, dtype=torch.int64)


def recall(checkpoint: Checkpoint) -> Tensor | None:
    """Return what the model wrote on an earlier visit, int64 [W, T], None where it has not, or not this."""
    written = json_cache.recall(_file(checkpoint))
    known = words(checkpoint)
    if not isinstance(written, list) or len(written) != WINDOWS or not all(isinstance(row, list) for row in written):
        return None
    if not all(written) or len({len(row) for row in written}) > 1 or len(written[0]) > WINDOW:
        return None
    if not all(type(token) is int and 0 <= token < known for row in written for token in row):
        return None
    return torch.tensor(written, dtype=torch.int64)


def keep(checkpoint: Checkpoint, ids: Tensor) -> None:
    """Keep what the model wrote for the next visit."""
    json_cache.keep(_file(checkpoint), ids.tolist())


def _first_tokens(checkpoint: Checkpoint, tokenizer: GuardedTokenizer, count: int) -> list[int]:
    """Return tokens drawn from all that stand for text. Raises CheckpointError for a tokenizer of another model."""
    known = [token for token in range(min(len(tokenizer), words(checkpoint))) if token not in tokenizer.special_ids]
    if not known:
        raise CheckpointError("no_tokenizer", model=checkpoint.title)
    places = torch.randint(len(known), (count,), dtype=torch.int64, generator=torch.Generator().manual_seed(SEED))
    return [known[place] for place in places.tolist()]


def _file(checkpoint: Checkpoint) -> Path:
    name = f"{checkpoint.revision}-{VERSION}-{WINDOWS}x{WINDOW}-{SEED}.json"
    return settings().cache_dir / "generated" / name
