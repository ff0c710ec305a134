"""A few fixed questions, answered by original and compressed copy side by side. Knows no page."""

from collections.abc import Callable, Iterator, Sequence

from studio.base.fair_turns import Visitor
from studio.base.progress import Progress
from studio.chat.answers import Answers
from studio.chat.columns import Column
from studio.chat.conversation import Conversation, Turn
from studio.chat.model_pool import Pool
from studio.checkpoint.checkpoint import Checkpoint
from studio.runtime.sampling import Sampling

LONGEST = 40
"""Tokens of an answer: enough to see where two part."""


class Samples:
    """The questions' answers, each given in a conversation of its own, at temperature 0."""

    def __init__(self, pool: Pool) -> None:
        self._pool = pool
        self.turns: tuple[Turn, ...] = ()
        """Those answered so far, the last one as far as it has come."""

    def ask(
        self,
        checkpoint: Checkpoint | None,
        columns: Sequence[Callable[[], Column]],
        prompts: Sequence[str],
        is_stopped: Callable[[], bool],
        visitor: Visitor | None = None,
    ) -> Iterator[Progress]:
        """Yield while each prompt is answered by every column; ``turns`` grows meanwhile, and long jobs rest."""
        self.turns = ()
        for number, prompt in enumerate(prompts):
            before, talk = self.turns, Conversation()
            try:
                for item in talk.answer(
                    self._pool,
                    columns,
                    prompt,
                    Sampling(max_new_tokens=LONGEST),
                    checkpoint=checkpoint,
                    is_stopped=is_stopped,
                    visitor=visitor,
                ):
                    if isinstance(item, Answers):
                        self.turns = (*before, Turn(prompt, item))
                    yield Progress("samples", number, len(prompts), prompt)
            finally:
                talk.forget()
            if is_stopped():
                return

    def forget(self) -> None:
        """They are of a copy that is gone."""
        self.turns = ()
