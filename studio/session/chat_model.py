"""A model in this process's memory that answers whoever holds it. Knows nothing of where it came from."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TypedDict, Unpack

from studio.chat.answer import LoadedModel, ModelInfo, Reply, answer
from studio.checkpoint.tokenizer.template import Message
from studio.runtime.sampling import Sampling


class SamplingChoices(TypedDict, total=False):
    """How tokens are picked, by name; :class:`Sampling` says what each means."""

    max_new_tokens: int
    temperature: float
    top_p: float
    top_k: int
    repetition_penalty: float
    seed: int


@dataclass(frozen=True)
class ChatModel:
    """A loaded model: ``studio.load("builtin")``."""

    loaded: LoadedModel

    @property
    def info(self) -> ModelInfo:
        """How it computes here, and what memory it takes."""
        return ModelInfo.of(self.loaded)

    def generate(
        self, prompt: str | Sequence[Message], *, kv_bits: int = 16, **sampling: Unpack[SamplingChoices]
    ) -> Iterator[str]:
        """Yield the answer in pieces, as it comes: to a question, or to messages of ``{"role": …, "content": …}``.

        Raises PromptError for nothing to answer or too much of it, ResourceError where keys and values do not fit.
        """
        told = 0
        for reply in self.replies(prompt, kv_bits=kv_bits, **sampling):
            yield reply.text[told:]
            told = len(reply.text)

    def replies(
        self, prompt: str | Sequence[Message], *, kv_bits: int = 16, **sampling: Unpack[SamplingChoices]
    ) -> Iterator[Reply]:
        """Yield the answer as far as it has come, with its figures: tokens, seconds, bytes. Raises as `generate`."""
        messages = [{"role": "user", "content": prompt}] if isinstance(prompt, str) else prompt
        yield from answer(self.loaded, messages, Sampling(**sampling), kv_bits)
