"""One visitor's conversation with the models of a chat: its turns, and what each model has read of them.

Knows neither files nor pages. What a turn changes, it changes at its end.
"""

from collections.abc import Callable, Generator, Iterator, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, replace
from functools import partial

from studio.base.errors import UserError
from studio.base.fair_turns import Turns, Visitor
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
        self.reset_count = 0
        """How often the conversation was forgotten."""
        self.is_editing = False
        """Whether the next message takes the place of the last one."""
        self.accepted: str | None = None
        """The message that the conversation took last, as long as it stands in the box that it came from."""
        self._prefixes: dict[int, Prefix] = {}

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
        self.reset_count += 1
        for prefix in self._prefixes.values():
            prefix.forget()
        self._prefixes = {}

    def rest(self, pool: Pool) -> None:
        """Give back the memory of what the models have read; what was said stays, and is read again when it goes on."""
        prefixes, self._prefixes = self._prefixes, {}
        for prefix in prefixes.values():
            pool.resume(prefix)
            prefix.forget()

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
        visitor: Visitor | None = None,
    ) -> Iterator[Progress | Answers]:
        """Yield every column's answer as it grows; the turn joins the others at the end, also when it was stopped.

        ``again``: the turn takes the place of the last one. ``checkpoint``: the original, to be run over an answer that
        it did not fit beside, which ``visitor`` does in turns with other long jobs; these rest while the answer comes.
        """
        visitor = Turns().visitor() if visitor is None else visitor
        history, reset_count, attempt = self.turns, self.reset_count, 0
        if again and history:
            attempt = history[-1].attempt + 1 if history[-1].prompt == prompt else 0
            history = history[:-1]
        seeded = replace(sampling, seed=sampling.seed + attempt)
        system_messages: list[Message] = [{"role": "system", "content": system}] if system.strip() else []
        user_message: Message = {"role": "user", "content": prompt}

        def is_over() -> bool:
            return is_stopped() or reset_count != self.reset_count

        yield Progress("load")
        answering = ExitStack()
        answering.enter_context(visitor.answering())
        with answering, borrowed(pool, columns) as (models, failures):
            prompts = [[*system_messages, *_messages(history, i), user_message] for i in range(len(models))]
            loaded = {i: model for i, model in enumerate(models) if model is not None}
            prefixes = {i: self._resume(pool, i) for i in loaded}
            answers = self._first_answers(models, failures, prompts, checkpoint is not None)
            comparison = None
            if answers.is_compared:
                comparison = Comparison([partial(_look_again, prefixes[i]) for i in loaded])
            answer_tokens: list[int] = []
            yield answers
            streams = [
                steady_replies(
                    pool, columns[i], model, prompts[i], seeded, kv_bits, prefixes[i], is_stopped, len(loaded) == 1
                )
                for i, model in loaded.items()
            ]
            try:
                for step in side_by_side(streams):
                    answers = _with_replies(answers, dict(zip(loaded, step, strict=True)), comparison)
                    last = answers.replies[-1]
                    if answers.is_compressed_only and last.newest is not None and last.tokens > len(answer_tokens):
                        answer_tokens.append(last.newest.token)
                    yield answers
                    if is_over():
                        return
                answering.close()
                if answer_tokens and checkpoint is not None:
                    judging = visitor.shared(
                        _judged(pool, checkpoint, columns[1], prompts[1], answer_tokens, prefixes[1], kv_bits)
                    )
                    try:
                        while True:
                            yield next(judging)
                            if is_over():
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
                for steps in streams:
                    steps.close()
                if reset_count != self.reset_count:
                    for prefix in prefixes.values():
                        prefix.forget()
                else:
                    if any(reply.tokens for reply in answers.replies):
                        kept = replace(answers, replies=tuple(replace(r, newest=None) for r in answers.replies))
                        self.turns = (*history, Turn(prompt, kept, attempt))
                    self._keep(pool, prefixes)

    def _first_answers(
        self,
        models: Sequence[WorkerModel | None],
        failures: Sequence[UserError | None],
        prompts: Sequence[Sequence[Message]],
        can_judge: bool,
    ) -> Answers:
        """Return the columns before their first token."""
        replies = [Reply() if error is None else Reply(ended="error", error=error) for error in failures]
        both = len(models) == COLUMNS
        is_compressed_only = can_judge and both and models[1] is not None and _is_short_of_memory(failures[0])
        if is_compressed_only:
            replies[0] = Reply()
        infos = tuple(None if model is None else model.info for model in models)
        is_compared = both and None not in infos and prompts[0] == prompts[1]
        return Answers(tuple(replies), infos, is_compared=is_compared, is_compressed_only=is_compressed_only)

    def _resume(self, pool: Pool, column: int) -> Prefix:
        prefix = self._prefixes.pop(column, None) or Prefix()
        pool.resume(prefix)
        return prefix

    def _keep(self, pool: Pool, prefixes: dict[int, Prefix]) -> None:
        self._prefixes |= prefixes
        for prefix in prefixes.values():
            pool.keep(prefix)


def _messages(turns: Sequence[Turn], column: int) -> list[Message]:
    messages: list[Message] = []
    for turn in turns:
        replies = turn.answers.replies
        if column < len(replies) and replies[column].tokens:
            messages.append({"role": "user", "content": turn.prompt})
            messages.append({"role": "assistant", "content": replies[column].text})
    return messages


def _is_short_of_memory(error: UserError | None) -> bool:
    return error is not None and error.key == "memory"


def _with_replies(answers: Answers, replies: dict[int, Reply], comparison: Comparison | None) -> Answers:
    """Return the answers with the newest reply of each column that speaks."""
    if comparison is not None:
        for column, reply in replies.items():
            comparison.hear(column, reply)
    whole = tuple(replies.get(i, reply) for i, reply in enumerate(answers.replies))
    return replace(answers, replies=whole, divergence=None if comparison is None else comparison.divergence)


def _look_again(prefix: Prefix, index: int, tokens: Sequence[int]) -> Look:
    """Look again at a token of the answer that is being given."""
    model, prefix_cache = prefix.place
    return model.call(look, prefix_cache, index, tokens)


def _judged(
    pool: Pool,
    checkpoint: Checkpoint,
    make: Callable[[], Column],
    prompt: Sequence[Message],
    answer_tokens: Sequence[int],
    prefix: Prefix,
    kv_bits: int,
) -> Generator[Progress, None, ReferenceScore]:
    """Let the original read the compressed model's answer, where that one is; another, where that was lost."""
    column = make()
    with pool.borrow(column.key, column.need, column.load) as model:
        steps = model.run(judged_answer, checkpoint, prompt, answer_tokens, prefix.of(model), kv_bits, pool.free())
        return (yield from relayed(steps, lambda step: step.within("judge")))
