"""The models of a chat as things to be borrowed: what each needs, and how it is loaded. Knows nothing of who asks."""

import math
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path

from studio.chat import Speaker, failure
from studio.checkpoint import Checkpoint
from studio.decoder import open_compressed, open_original
from studio.errors import UserError
from studio.model import load_tokenizer
from studio.pool import Pool
from studio.recipe import PackedWeight, read_recipe


@dataclass(frozen=True)
class Column:
    """A model to be borrowed from the pool."""

    key: str
    need: int
    """Bytes that loading it takes."""
    load: Callable[[], Speaker]


def original_column(checkpoint: Checkpoint) -> Column:
    """Return the uncompressed model as a column of the chat."""
    return Column(
        f"{checkpoint.name}@{checkpoint.revision}",
        2 * checkpoint.weights,
        lambda: Speaker(open_original(checkpoint), load_tokenizer(checkpoint.path)),
    )


def compressed_column(folder: Path) -> Column:
    """Return an exported folder as a column of the chat."""
    recipe = read_recipe(folder)
    need = recipe.compressed_bytes + max((_passing(weight) for weight in recipe.weights), default=0)
    return Column(str(folder), need, lambda: Speaker(open_compressed(folder), load_tokenizer(folder)))


def _passing(weight: PackedWeight) -> int:
    """Return the bytes beside its own that a weight takes while it moves into its product's layout: its codes once
    more, 4-bit ones also unpacked, as int32. Experts stay as they are stored."""
    is_stack = not weight.name.endswith(".weight")
    return math.prod(weight.shape) * (1 if is_stack or weight.scheme.startswith("int8") else 6)


@contextmanager
def borrowed(
    pool: Pool, columns: Sequence[Callable[[], Column]]
) -> Iterator[tuple[list[Speaker | None], list[UserError | None]]]:
    """Lend the models of ``columns`` from ``pool``; one that cannot be had is None, its reason in the second list.

    The last is loaded first: where memory ends, it is the original that has to do without.
    """
    with ExitStack() as stack:
        speakers: list[Speaker | None] = [None for _ in columns]
        failures: list[UserError | None] = [None for _ in columns]
        for i, make in reversed(list(enumerate(columns))):
            try:
                column = make()
                speakers[i] = stack.enter_context(pool.borrow(column.key, column.need, column.load))
            except Exception as error:  # a model's code may raise anything; the other column is none of its business
                failures[i] = failure(error)
        yield speakers, failures
