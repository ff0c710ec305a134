"""A model that answers, as those see it who have lent it: it lies in a worker, and what it does is done there.

Knows neither sessions nor pages.
"""

from collections.abc import Callable, Generator, Sequence
from dataclasses import dataclass
from typing import Any, TypeVar

from studio.base.workers import Handle, IsUnwanted, Worker, always_wanted
from studio.chat.answer import LoadedModel, ModelInfo, Reply, answer
from studio.checkpoint.tokenizer.template import Message
from studio.runtime.decoder import PrefixCache
from studio.runtime.sampling import Sampling

Item = TypeVar("Item")
Result = TypeVar("Result")


@dataclass(frozen=True, eq=False)
class WorkerModel:
    """A :class:`LoadedModel` that a worker keeps."""

    worker: Worker
    loaded: Handle[LoadedModel]
    info: ModelInfo

    @classmethod
    def opened(
        cls,
        worker: Worker,
        open_speaker: Callable[..., LoadedModel],
        *args: Any,
        is_unwanted: IsUnwanted = always_wanted,
    ) -> "WorkerModel":
        """Let a new worker load what ``open_speaker(*args)`` returns, and own it. Raises what that raises."""
        try:
            loaded = worker.make(open_speaker, *args, is_unwanted=is_unwanted)
            return cls(worker, loaded, worker.call(ModelInfo.of, loaded))
        except BaseException:
            worker.close()
            raise

    @property
    def weight_bytes(self) -> int:
        return self.info.weight_bytes

    @property
    def is_alive(self) -> bool:
        """Whether it can be asked; not after a fault in its worker."""
        return self.worker.is_alive

    def run(
        self,
        job: Callable[..., Generator[Item, None, Result]],
        *args: Any,
        is_unwanted: IsUnwanted = always_wanted,
        is_ahead: bool = False,
    ) -> Generator[Item, None, Result]:
        """Yield what ``job(speaker, *args)`` yields, return its result. Raises ProcessError where the worker ends."""
        return self.worker.run(job, self.loaded, *args, is_unwanted=is_unwanted, is_ahead=is_ahead)

    def call(self, job: Callable[..., Result], *args: Any, is_unwanted: IsUnwanted = always_wanted) -> Result:
        """Return ``job(speaker, *args)``. Raises ProcessError where the worker ends."""
        return self.worker.call(job, self.loaded, *args, is_unwanted=is_unwanted)

    def close(self) -> None:
        """Give its memory back."""
        self.worker.close()


class Prefix:
    """What a model has read of one conversation: it lies beside the model, which goes on from there."""

    def __init__(self) -> None:
        self._model: WorkerModel | None = None
        self._read: Handle[PrefixCache] | None = None
        self.nbytes = 0
        """Of keys and values."""

    def forget(self) -> None:
        """Give the memory back."""
        model, self._model, self._read, self.nbytes = self._model, None, None, 0
        if model is not None:
            model.worker.flush()

    def of(self, model: WorkerModel) -> Handle[PrefixCache]:
        """Return what ``model`` has read, nothing where it was another that did."""
        if self._read is None or self._model is not model:
            self.forget()
            self._model, self._read = model, model.worker.make(PrefixCache)
        return self._read

    @property
    def place(self) -> tuple[WorkerModel, Handle[PrefixCache]]:
        """The model that reads, and what it has read. Raises ValueError while none does."""
        if self._model is None or self._read is None:
            raise ValueError("nothing is read yet")
        return self._model, self._read


def replies(
    model: WorkerModel,
    messages: Sequence[Message],
    sampling: Sampling,
    kv_bits: int,
    prefix: Prefix,
    is_unwanted: IsUnwanted = always_wanted,
    is_only_column: bool = False,
) -> Generator[Reply, None, Reply]:
    """Yield and return a model's reply as :func:`answer` does, where the model is.

    One that ``is_only_column`` computes its next token while this one is on its way; of two that step by turns, neither
    may.
    """
    asked = messages, sampling, kv_bits, prefix.of(model)
    steps = model.run(answer, *asked, is_unwanted=is_unwanted, is_ahead=is_only_column)
    try:
        while True:
            reply = next(steps)
            prefix.nbytes = reply.kv_bytes
            yield reply
    except StopIteration as finished:
        whole: Reply = finished.value
        return whole
    finally:
        steps.close()
