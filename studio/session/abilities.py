"""What a model can still do beside predicting a text: the checks of ``evaluate``, in a row. Knows no terminals.

Each runs where the model lies; what comes back are figures.
"""

from collections.abc import Generator
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path

from studio.base.errors import ResourceError
from studio.base.progress import Progress
from studio.base.steps import relayed
from studio.base.units import format_bytes
from studio.base.workers import in_worker
from studio.chat.answer import LoadedModel
from studio.chat.columns import compressed_column, original_column
from studio.checkpoint.checkpoint import Checkpoint
from studio.evaluation.drift import SHORT_WINDOWS
from studio.evaluation.evaluate import Original, flips_of, predictor, text_windows
from studio.evaluation.long_context import Found, keys_found
from studio.evaluation.prompted import prompted, prompted_options
from studio.evaluation.questions import Flips
from studio.evaluation.tensor_kinds import KindLoss, kv_losses, simulated_losses
from studio.runtime.machine import available_memory
from studio.session.session import Session
from studio.session.shared import of_this_process
from studio.session.texts import content_of
from studio.session.whole_jobs import both_fetched, evaluation_text, fetched


@dataclass(frozen=True)
class Abilities:
    """What was asked for: how often answers changed sides, by part of a check, and keys found, by length."""

    flips: dict[str, Flips]
    found: tuple[Found, ...]


def abilities(
    name: Path | str, against: str, checks: tuple[str, ...], longest: int
) -> Generator[Progress, None, tuple[Checkpoint, Abilities]]:
    """Return the original ``against`` and what a model or a compressed folder can still do.

    ``checks``: of :data:`prompted.CHECKS`; ``longest``: tokens of the longest text to find a key in, 0 for none.
    Raises UserError, as :func:`studio.session.whole_jobs.both_fetched`.
    """
    with closing(Session(paths=True)) as session:
        original, asked = yield from both_fetched(session, name, against)
        column = compressed_column(asked) if isinstance(asked, Path) else original_column(asked)
        pool = of_this_process().pool
        with pool.borrow(column.key, column.need, column.load) as model:
            done = yield from model.run(abilities_of, original, checks, longest)
        pool.drop(column.key)
        return original, done


def abilities_of(
    loaded: LoadedModel, checkpoint: Checkpoint, checks: tuple[str, ...], longest: int
) -> Generator[Progress, None, Abilities]:
    """Do that where ``loaded`` lies."""
    predict, original, flips = predictor(loaded.decoder), Original(checkpoint), {}
    for check in checks:
        for part, asked in prompted(check).items():
            tried = prompted_options(checkpoint, asked)

            def said(done: int, part: str = part, total: int = len(tried.batches)) -> Progress:
                return Progress("evaluate", done, total, part)

            yield said(0)
            answers = yield from relayed(flips_of(original, predict, tried), said)
            if answers is not None:
                flips[part] = answers
    found = (yield from keys_found(checkpoint, predict, longest)) if longest else ()
    return Abilities(flips, found)


def tensor_kinds(
    name: str, text: str | None, with_activations: bool, with_kv: bool
) -> Generator[Progress, None, tuple[Checkpoint, tuple[KindLoss, ...]]]:
    """Return the model ``name`` and what rounding each kind of its tensors costs, on a few windows of a text.

    Raises UserError: ResourceError where keys and values are asked for and the model does not fit into memory.
    """
    with closing(Session(paths=True)) as session:
        evaluation_text(session, text)
        checkpoint = yield from session.open(name)
        need, free = 2 * checkpoint.weights, available_memory()
        if with_kv and need > free:  # before it is fetched
            raise ResourceError("memory", need=format_bytes(need), free=format_bytes(free))
        checkpoint = yield from fetched(session, name)
        ids = text_windows(checkpoint, content_of(session.texts.evaluation))[:SHORT_WINDOWS]
        rows: tuple[KindLoss, ...] = ()
        if with_activations:
            rows += yield from in_worker(simulated_losses, checkpoint, ids)
        if with_kv:
            rows += yield from in_worker(kv_losses, checkpoint, ids)
        return checkpoint, rows
