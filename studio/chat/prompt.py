"""A conversation -> the token ids an answer is to follow. Knows no models."""

from collections.abc import Sequence

from studio.base.errors import PromptError
from studio.checkpoint.tokenizer.guarded_tokenizer import GuardedTokenizer
from studio.checkpoint.tokenizer.template import Message


def prompt_ids(tokenizer: GuardedTokenizer, messages: Sequence[Message]) -> list[int]:
    """Return the token ids of a conversation that an answer is to follow.

    Without a chat template the texts are joined and completed plainly. Raises PromptError for an empty prompt or a
    template that fails, CheckpointError for a tokenizer that does.
    """
    if not messages or not messages[-1]["content"].strip():
        raise PromptError("empty_prompt")
    return tokenizer.prompt_ids(messages)
