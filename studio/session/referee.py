"""A file or a folder that others made of a model, judged by the protocol by which our own plans are. Brings torch.

What it holds is read off its headers and compared with the original's before it is run: a file of another model would
be a point that says nothing. Knows no plans.
"""

from collections.abc import Generator
from dataclasses import dataclass
from pathlib import Path

from torch.nn.functional import cosine_similarity

from studio.base.errors import CheckpointError, ModelError
from studio.base.progress import Progress
from studio.calibration.texts import Text
from studio.chat.model_pool import Pool
from studio.checkpoint.checkpoint import Checkpoint
from studio.checkpoint.layers import Kind, Layer
from studio.checkpoint.open_model import fetch, open_model
from studio.checkpoint.recipe import read_recipe
from studio.evaluation.drift import Drift
from studio.export.compressed_model import opened
from studio.session.compressed_copy import CompressedCopy
from studio.session.compressed_folder import compressed_folder

ROWS = 256
"""Of the embedding, by which a model is known: nobody rotates or scales it, and rounding hardly turns a row."""
ALIKE = 0.5
"""Cosine of the angle between rows of one model; those of two are near 0."""


@dataclass(frozen=True)
class Other:
    """A model that others made of the original, here and not yet run."""

    given: str
    """As it was named."""
    title: str
    nbytes: int
    """Of its weights."""
    model: Checkpoint | Path
    """A folder that the studio compressed, else any other."""


def opened_for(
    original: Checkpoint, name: str, paths: bool, login: str | None = None
) -> Generator[Progress, None, Other]:
    """Yield while a file or folder is opened and fetched; return it, once it is known to be of the ``original``.

    ``paths``: whether a local one is accepted, beside a repository of the Hub; ``login``: a visitor's own there.
    Raises CheckpointError that says what differs, ModelError for a model that writes no text, HubError.
    """
    folder = compressed_folder(name) if paths else None
    if folder is not None:
        held = opened(folder).checkpoint
        check_same(original, held)
        return Other(name, folder.name, read_recipe(folder).compressed_bytes, folder)
    checkpoint = yield from open_model(name, paths, login=login)
    if not checkpoint.can_chat:
        raise ModelError("cannot_chat", architecture=checkpoint.architecture)
    check_same(original, checkpoint)
    checkpoint = yield from fetch(checkpoint, login)
    check_rows(original, checkpoint)
    nbytes = sum(checkpoint.stored_as(layer).nbytes for layer in checkpoint.layers)
    return Other(name, checkpoint.title, nbytes, checkpoint)


def judged(
    copy: CompressedCopy, pool: Pool, original: Checkpoint, other: Other, text: Text | None, is_short: bool
) -> Generator[Progress, None, Drift]:
    """Yield while it is compared with the original, and return what was found. ``copy`` is one to be used for it.

    ``text`` None is the built-in ones; ``is_short``: a few windows of it, and no questions. Raises UserError.
    """
    copy.place(other.model)
    column = copy.column
    try:
        return (yield from copy.measure_drift(original, text, with_floor=False, is_short=is_short))
    finally:
        if column is not None:  # nobody asks it again
            pool.drop(column().key)


def check_same(original: Checkpoint, other: Checkpoint) -> None:
    """Raise CheckpointError, with what differs, where two models have not the same architecture and tensors."""
    file, model = other.title[:80], original.title[:80]
    if other.architecture != original.architecture:
        kinds = [each.architecture[:60] for each in (other, original)]
        raise CheckpointError("judge_architecture", theirs=kinds[0], ours=kinds[1], file=file, model=model)
    ours, theirs = _shapes(original), _shapes(other)
    # A head that is the embedding's twin may be stored twice, or once.
    heads = {name for each in (original, other) for layer in each.layers for name in _heads(layer)}
    for name in [*ours, *theirs]:
        one, two = ours.get(name, "–"), theirs.get(name, "–")
        if one != two and not (name in heads and "–" in (one, two)):
            raise CheckpointError("judge_tensor", tensor=name[:120], theirs=two, ours=one, file=file, model=model)


def check_rows(original: Checkpoint, other: Checkpoint) -> None:
    """Raise CheckpointError where the rows of the embeddings point elsewhere: of the same shape, not of one model."""
    pairs = [next((layer for layer in each.layers if layer.kind is Kind.EMBEDDING), None) for each in (original, other)]
    one, two = pairs
    if one is None or two is None or one.shape != two.shape:
        return
    rows = [each.read(layer, 0, ROWS).float() for each, layer in ((original, one), (other, two))]
    found = rows[0].any(1) & rows[1].any(1)  # tokens that no text has may be zero
    alike = float(cosine_similarity(rows[0][found], rows[1][found], dim=1).mean())
    if alike < ALIKE:  # false of no rows
        file, model = other.title[:80], original.title[:80]
        raise CheckpointError("judge_weights", tensor=one.name[:120], alike=f"{alike:.2f}", file=file, model=model)


def _names(layer: Layer) -> tuple[str, ...]:
    return (layer.name, *layer.tied)


def _heads(layer: Layer) -> tuple[str, ...]:
    return _names(layer) if layer.kind is Kind.HEAD else layer.tied


def _shapes(checkpoint: Checkpoint) -> dict[str, str]:
    """Return the shape of each tensor, as it is said, by each of its names."""
    return {name: " × ".join(map(str, layer.shape)) for layer in checkpoint.layers for name in _names(layer)}
