"""A text -> windows of tokens, for calibration and evaluation. Knows nothing of what is done with them."""

import hashlib
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from studio.base.errors import ModelError, TextError
from studio.checkpoint.checkpoint import Checkpoint, read_json
from studio.checkpoint.config import load_config
from studio.checkpoint.file_names import CONFIG
from studio.checkpoint.layers import Kind
from studio.checkpoint.tokenizer.guarded_tokenizer import GuardedTokenizer, load_tokenizer

MAX_TEXT_BYTES = 20_000_000
BYTES_PER_TOKEN = 16
"""No tokenizer makes fewer tokens of a longer text than are ever wanted; the rest need not be read."""


@dataclass(frozen=True)
class Text:
    """A text that somebody chose to have read: ``Text("mine.txt", Path(...))``. The built-in ones are None."""

    name: str
    """As the terminal takes it: a file's name, ``hf://datasets/…``, or ``generated``."""
    file: Path | None
    """None for what the model writes itself."""


GENERATED = Text("generated", None)
BUILTIN = "builtin"
"""What the terminal calls the built-in ones."""


def read_text(file: Path) -> str:
    """Return the text of a UTF-8 file. Raises TextError when there is none, or it is no text."""
    try:
        with file.open("rb") as opened:
            content = opened.read(MAX_TEXT_BYTES + 1)  # what has no size, as a device, has no end either
    except OSError as error:
        raise TextError("text_missing", file=str(file)) from error
    if len(content) > MAX_TEXT_BYTES:
        raise TextError("text_too_long", file=file.name, limit=MAX_TEXT_BYTES // 1_000_000)
    try:
        text = content.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise TextError("text_binary", file=file.name) from error
    if "\0" in text:
        raise TextError("text_binary", file=file.name)
    if not text.strip():
        raise TextError("text_empty", file=file.name)
    return text


def check_has_head(checkpoint: Checkpoint) -> None:
    """Raise ModelError for a model without a language model's head."""
    if not checkpoint.can_chat:
        raise ModelError("no_language_model", model=checkpoint.title)


def token_ids(checkpoint: Checkpoint, text: str, tokenizer: GuardedTokenizer | None = None) -> Tensor:
    """Return the tokens of a text, int64 [T]. Raises TextError for a text of none, CheckpointError when tokenizer and
    model are not of each other."""
    tokenizer = tokenizer or load_tokenizer(checkpoint.path)
    ids = tokenizer.encode(text)
    tokenizer.check(ids, words(checkpoint))
    if not ids:
        raise TextError("text_too_short", tokens=0, window=1)
    return torch.tensor(ids, dtype=torch.int64)


def positions(checkpoint: Checkpoint, most: int) -> int:
    """Return how many tokens the model can read at once, at most ``most``: tables of positions end somewhere."""
    known = getattr(load_config(read_json(checkpoint.path / CONFIG)), "max_position_embeddings", None)
    return min(most, known) if isinstance(known, int) and known > 0 else most


def words(checkpoint: Checkpoint) -> int:
    """Return how many tokens a model's embedding has a row for."""
    return next((layer.shape[0] for layer in checkpoint.layers if layer.kind is Kind.EMBEDDING), 0)


def digest(ids: Tensor) -> str:
    """Return a name for these tokens, int64 of any shape, that others do not have."""
    return hashlib.sha256(repr((tuple(ids.shape), ids.flatten().tolist())).encode()).hexdigest()[:32]


def windows(ids: Tensor, count: int, length: int) -> Tensor:
    """Return at most ``count`` windows [W, ``length``] that do not overlap, evenly spaced over the tokens [T].

    Raises TextError for a text shorter than one window.
    """
    fitting = min(count, len(ids) // length)
    if not fitting:
        raise TextError("text_too_short", tokens=len(ids), window=length)
    starts = torch.linspace(0, len(ids) - length, fitting, dtype=torch.float64).round().long()
    return torch.stack([ids[start : start + length] for start in starts])
