"""The models of a chat as things to be borrowed: what each needs, and how it is loaded. Knows nothing of who asks."""

import logging
import math
from collections.abc import Callable, Generator, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from studio.base.errors import ProcessError, UserError
from studio.base.workers import IsUnwanted, always_wanted, new_worker
from studio.chat.answer import LoadedModel, Reply, failure
from studio.chat.model_pool import Pool
from studio.chat.worker_model import Prefix, WorkerModel, replies
from studio.checkpoint.checkpoint import Checkpoint
from studio.checkpoint.recipe import PackedWeight, check_sizes, read_recipe
from studio.checkpoint.tokenizer.template import Message
from studio.quantization.scheme import Scheme
from studio.runtime.decoder import open_compressed, open_original
from studio.runtime.kernels.int8 import Int8Product
from studio.runtime.model import load_tokenizer
from studio.runtime.sampling import Sampling

LOG = logging.getLogger(__name__)


@dataclass(frozen=True)
class Column:
    """A model to be borrowed from the pool."""

    key: str
    need: int
    """Bytes that loading it takes."""
    open: Callable[[], LoadedModel]
    """Loads it in this process."""

    def load(self) -> WorkerModel:
        """Return it loaded in a worker. Raises UserError."""
        return WorkerModel.opened(new_worker(), self.open)


def original_column(checkpoint: Checkpoint) -> Column:
    """Return the uncompressed model as a column of the chat."""
    return Column(
        f"{checkpoint.name}@{checkpoint.revision}",
        2 * checkpoint.weights,
        partial(_original, checkpoint),
    )


def compressed_column(folder: Path) -> Column:
    """Return an exported folder as a column of the chat."""
    recipe = read_recipe(folder)
    check_sizes(recipe, folder)
    need = recipe.compressed_bytes + max((_passing(weight) for weight in recipe.weights), default=0)
    return Column(str(folder), need, partial(_compressed, folder))


def _original(checkpoint: Checkpoint) -> LoadedModel:
    return LoadedModel(open_original(checkpoint), load_tokenizer(checkpoint.path))


def _compressed(folder: Path) -> LoadedModel:
    return LoadedModel(open_compressed(folder), load_tokenizer(folder))


def _passing(weight: PackedWeight) -> int:
    """Return the bytes beside its own that a weight takes while it moves into its product's layout: its codes once
    more, those of anything but 8-bit integers also unpacked, as int32. Experts stay as they are stored."""
    is_stack = not weight.name.endswith(".weight")
    return math.prod(weight.shape) * (1 if is_stack or Int8Product.takes_scheme(Scheme.parse(weight.scheme)) else 6)


@contextmanager
def borrowed(
    pool: Pool, columns: Sequence[Callable[[], Column]]
) -> Iterator[tuple[list[WorkerModel | None], list[UserError | None]]]:
    """Lend the models of ``columns`` from ``pool``; one that cannot be had is None, its reason in the second list.

    The last is loaded first: where memory ends, it is the original that has to do without.
    """
    with ExitStack() as stack:
        models: list[WorkerModel | None] = [None for _ in columns]
        failures: list[UserError | None] = [None for _ in columns]
        for i, make in reversed(list(enumerate(columns))):
            try:
                column = make()
                models[i] = stack.enter_context(pool.borrow(column.key, column.need, column.load))
            except Exception as error:  # a model's code may raise anything; the other column is none of its business
                failures[i] = failure(error)
        yield models, failures


def steady_replies(
    pool: Pool,
    column: Callable[[], Column],
    model: WorkerModel,
    messages: Sequence[Message],
    sampling: Sampling,
    kv_bits: int,
    prefix: Prefix,
    is_unwanted: IsUnwanted = always_wanted,
    is_only_column: bool = False,
) -> Generator[Reply, None, Reply]:
    """Yield and return the reply of ``model``; where its worker ends by a fault, that of another that is lent to nobody
    else: the fault may have been in a job of another visitor's.

    What was said already is said again unheard, for a model says the same again. Raises what :func:`answer` does, and
    ProcessError where the other worker ends too.
    """
    last = Reply()
    steps = replies(model, messages, sampling, kv_bits, prefix, is_unwanted, is_only_column)
    try:
        while True:
            last = next(steps)
            yield last
    except StopIteration as finished:
        whole: Reply = finished.value
        return whole
    except ProcessError as error:
        LOG.warning("an answer begins anew in another process: %s", error)
    finally:
        steps.close()
    yield last
    alone = column()
    with pool.borrow_alone(alone.need, alone.load) as other:
        try:
            for reply in replies(other, messages, sampling, kv_bits, prefix, is_unwanted, is_only_column):
                if reply.tokens > last.tokens or reply.ended:
                    last = reply
                yield last
        finally:
            prefix.forget()
    return last
