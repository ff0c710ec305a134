"""One visitor's conversation with the models of a chat: its turns, and what each model has read of them.

Knows neither files nor pages. What a turn changes, it changes at its end.
"""

from collections.abc import Callable, Generator, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import partial

from studio.base.errors import UserError
from studio.base.progress import Progress
from studio.base.steps import relayed
from studio.chat.answer import Look, Reply, look, side_by_side
from studio.chat.answers import Answers
from studio.chat.columns import Column, borrowed, steady_replies
from studio.chat.divergence import Comparison
from studio.chat.judge import ReferenceScore, judged_answer
from studio.chat.model_pool import Pool
from studio.chat.worker_model import Prefix, WorkerModel
from studio.checkpoint.checkpoint import Checkpoint
from studio.checkpoint.tokenizer.template import Message
from studio.runtime.sampling import Sampling

COLUMNS = 2


@dataclass(frozen=True)
class Turn:
    """A message and what became of it in each column."""

    prompt: str
    answers: Answers
    attempt: int = 0
    """How often it was asked anew."""


class Conversation:
    """The turns so far."""

    def __init__(self) -> None:
        self.turns: tuple[Turn, ...] = ()
        self.epoch = 0
        """How often the conversation was forgotten."""
        self.is_editing = False
        """Whether the next message takes the place of the last one."""
        self.accepted: str | None = None
        """The message that the conversation took last, as long as it stands in the box that it came from."""
        self._reads: dict[int, Prefix] = {}

    @property
    def last(self) -> Turn | None:
        return self.turns[-1] if self.turns else None

    def messages(self, column: int) -> list[Message]:
        """Return what was said in a column: turns that it did not answer are not in it."""
        return _messages(self.turns, column)

    @property
    def columns(self) -> tuple[list[Message], ...]:
        """What was said in each column."""
        return tuple(self.messages(column) for column in range(COLUMNS))

    def forget(self) -> None:
        """Begin anew; an answer that is being given ends, and is not remembered."""
        self.turns = ()
        self.is_editing = False
        self.epoch += 1
        for read in self._reads.values():
            read.forget()
        self._reads = {}

    def answer(
        self,
        pool: Pool,
        columns: Sequence[Callable[[], Column]],
        prompt: str,
        sampling: Sampling,
        system: str = "",
        kv_bits: int = 16,
        again: bool = False,
        checkpoint: Checkpoint | None = None,
        is_stopped: Callable[[], bool] = lambda: False,
    ) -> Iterator[Progress | Answers]:
        """Yield every column's answer as it grows; the turn joins the others at the end, also when it was stopped.

        ``again``: the turn takes the place of the last one. ``checkpoint``: the original, to be run over an answer that
        it did not fit beside.
        """
        history, epoch, attempt = self.turns, self.epoch, 0
        if again and history:
            attempt = history[-1].attempt + 1 if history[-1].prompt == prompt else 0
            history = history[:-1]
        seeded = replace(sampling, seed=sampling.seed + attempt)
        before: list[Message] = [{"role": "system", "content": system}] if system.strip() else []
        asked: Message = {"role": "user", "content": prompt}
        yield Progress("load")
        with borrowed(pool, columns) as (models, failures):
            turns = [[*before, *_messages(history, i), asked] for i in range(len(models))]
            awake = {i: model for i, model in enumerate(models) if model is not None}
            reads = {i: self._resumed(pool, i) for i in awake}
            answers = self._begun(models, failures, turns, checkpoint is not None)
            comparison = None
            if answers.is_compared:
                comparison = Comparison([partial(_look, reads[i]) for i in awake])
            said: list[int] = []
            yield answers
            speaking = [
                steady_replies(
                    pool, columns[i], model, turns[i], seeded, kv_bits, reads[i], is_stopped, len(awake) == 1
                )
                for i, model in awake.items()
            ]
            try:
                for step in side_by_side(speaking):
                    answers = _grown(answers, dict(zip(awake, step, strict=True)), comparison)
                    newest = answers.replies[-1].newest
                    if answers.is_alone and newest is not None and answers.replies[-1].tokens > len(said):
                        said.append(newest.token)
                    yield answers
                    if is_stopped() or epoch != self.epoch:
                        return
                if said and checkpoint is not None:
                    judging = _judged(pool, checkpoint, columns[1], turns[1], said, reads[1], kv_bits)
                    try:
                        while True:
                            yield next(judging)
                            if is_stopped() or epoch != self.epoch:
                                return
                    except StopIteration as finished:
                        answers = replace(answers, reference_score=finished.value)
                    except UserError as error:
                        failed = replace(answers.replies[0], ended="error", error=error)
                        answers = replace(answers, replies=(failed, *answers.replies[1:]))
                    finally:
                        judging.close()
                    yield answers
            finally:
                for steps in speaking:
                    steps.close()
                if epoch != self.epoch:
                    for read in reads.values():
                        read.forget()
                else:
                    if any(reply.tokens for reply in answers.replies):
                        kept = replace(answers, replies=tuple(replace(r, newest=None) for r in answers.replies))
                        self.turns = (*history, Turn(prompt, kept, attempt))
                    self._keep(pool, reads)

    def _begun(
        self,
        models: Sequence[WorkerModel | None],
        failures: Sequence[UserError | None],
        turns: Sequence[Sequence[Message]],
        can_judge: bool,
    ) -> Answers:
        """Return the columns before their first token."""
        replies = [Reply() if error is None else Reply(ended="error", error=error) for error in failures]
        both = len(models) == COLUMNS
        is_alone = can_judge and both and models[1] is not None and _is_short_of_memory(failures[0])
        if is_alone:
            replies[0] = Reply()
        infos = tuple(None if model is None else model.info for model in models)
        is_compared = both and None not in infos and turns[0] == turns[1]
        return Answers(tuple(replies), infos, is_compared=is_compared, is_alone=is_alone)

    def _resumed(self, pool: Pool, column: int) -> Prefix:
        read = self._reads.pop(column, None) or Prefix()
        pool.resume(read)
        return read

    def _keep(self, pool: Pool, reads: dict[int, Prefix]) -> None:
        self._reads |= reads
        for read in reads.values():
            pool.keep(read)


def _messages(turns: Sequence[Turn], column: int) -> list[Message]:
    said: list[Message] = []
    for turn in turns:
        replies = turn.answers.replies
        if column < len(replies) and replies[column].tokens:
            said.append({"role": "user", "content": turn.prompt})
            said.append({"role": "assistant", "content": replies[column].text})
    return said


def _is_short_of_memory(error: UserError | None) -> bool:
    return error is not None and error.key == "memory"


def _grown(answers: Answers, replies: dict[int, Reply], comparison: Comparison | None) -> Answers:
    """Return the answers with the newest reply of each column that speaks."""
    if comparison is not None:
        for column, reply in replies.items():
            comparison.hear(column, reply)
    whole = tuple(replies.get(i, reply) for i, reply in enumerate(answers.replies))
    return replace(answers, replies=whole, divergence=None if comparison is None else comparison.divergence)


def _look(prefix: Prefix, index: int, tokens: Sequence[int]) -> Look:
    """Look again at a token of the answer that is being given."""
    model, read = prefix.place
    return model.call(look, read, index, tokens)


def _judged(
    pool: Pool,
    checkpoint: Checkpoint,
    make: Callable[[], Column],
    turn: Sequence[Message],
    said: Sequence[int],
    prefix: Prefix,
    kv_bits: int,
) -> Generator[Progress, None, ReferenceScore]:
    """Let the original read the compressed model's answer, where that one is; another, where that was lost."""
    column = make()
    with pool.borrow(column.key, column.need, column.load) as model:
        steps = model.run(judged_answer, checkpoint, turn, said, prefix.of(model), kv_bits, pool.free())
        return (yield from relayed(steps, lambda step: step.within("judge")))
