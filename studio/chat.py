"""Answers, token by token, from one model or several side by side. Knows nothing of pages or files.

Every model steps through the same loop, so that two columns compare; each one's seconds count its own steps only.
"""

import time
from collections.abc import Generator, Iterator, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Literal

import torch
from torch import Tensor

from studio.decoder import MOST_TOKENS, Decoder, stop_ids
from studio.detokenize import Detokenizer
from studio.errors import PromptError, UserError
from studio.sampling import Picker, Sampling
from studio.template import Message, TemplateRenderer


@dataclass(frozen=True)
class Picked:
    """A token, and the logits fp32 [V] that it was picked from."""

    token: int
    logits: Tensor


@dataclass(frozen=True)
class Reply:
    """An answer as far as it has come."""

    text: str = ""
    prompt_tokens: int = 0
    tokens: int = 0
    first_token_seconds: float = 0.0
    """From the start of this model's work on the prompt to its first token."""
    decode_seconds: float = 0.0
    """This model's own time for the tokens after the first."""
    kv_bytes: int = 0
    """Of the keys and values of prompt and answer."""
    newest: Picked | None = field(default=None, compare=False)
    ended: Literal["", "stop", "length", "error"] = ""
    error: UserError | None = None

    @property
    def tokens_per_second(self) -> float:
        """Tokens after the first by the time they took; 0 while there are none."""
        return (self.tokens - 1) / self.decode_seconds if self.tokens > 1 else 0.0


@dataclass(frozen=True)
class Speaker:
    """A model that can answer, with its tokenizer."""

    decoder: Decoder[Any]
    tokenizer: Any

    @property
    def weight_bytes(self) -> int:
        return self.decoder.weight_bytes

    @property
    def context(self) -> int:
        """Tokens that prompt and answer may have together."""
        return self.decoder.context

    @property
    def stop_ids(self) -> frozenset[int]:
        """Tokens that end an answer: those of the model's files, and the tokenizer's own."""
        return self.decoder.stop_ids | stop_ids(self.tokenizer.eos_token_id)


RENDERER = TemplateRenderer()


def prompt_ids(tokenizer: Any, messages: Sequence[Message], renderer: TemplateRenderer = RENDERER) -> list[int]:
    """Return the token ids of a conversation that an answer is to follow.

    Without a chat template the texts are joined and completed plainly. Raises PromptError for an empty prompt or a
    template that fails.
    """
    if not messages or not messages[-1]["content"].strip():
        raise PromptError("empty_prompt")
    template = tokenizer.chat_template
    if isinstance(template, dict):  # several named templates
        template = template.get("default")
    if not template:
        joined = "\n".join(message["content"] for message in messages)
        return list(tokenizer(joined)["input_ids"])
    tokens = {name: str(value) for name, value in tokenizer.special_tokens_map.items() if isinstance(value, str)}
    rendered = renderer.render(template, messages, tokens)
    return list(tokenizer(rendered, add_special_tokens=False)["input_ids"])


def answer(
    speaker: Speaker, messages: Sequence[Message], sampling: Sampling, kv_bits: int = 16
) -> Generator[Reply, None, Reply]:
    """Yield the reply as it grows, at least after every token and every 128 prompt tokens, and return it whole.

    Raises PromptError for a prompt that is empty or leaves no room in the model's context.
    """
    ids = prompt_ids(speaker.tokenizer, messages)
    if len(ids) >= speaker.context:
        raise PromptError("prompt_too_long", tokens=len(ids), context=speaker.context)
    room = min(sampling.max_new_tokens, speaker.context - len(ids))
    cache = speaker.decoder.begin(len(ids) + room, min(speaker.decoder.kv_bits, key=lambda bits: abs(bits - kv_bits)))
    pick, written, stops = Picker(sampling, ids), Detokenizer(speaker.tokenizer), speaker.stop_ids
    reply = Reply(prompt_tokens=len(ids))
    logits = torch.empty(0)
    for start in range(0, len(ids), MOST_TOKENS):
        began = time.perf_counter()
        logits = speaker.decoder.step(cache, ids[start : start + MOST_TOKENS])
        reply = replace(reply, first_token_seconds=reply.first_token_seconds + time.perf_counter() - began)
        if start + MOST_TOKENS < len(ids):
            yield reply
    generated: list[int] = []
    for index in range(room):
        began = time.perf_counter()
        if index:
            logits = speaker.decoder.step(cache, generated[-1:])
        token = pick(logits)
        generated.append(token)
        seconds = time.perf_counter() - began
        if index:
            reply = replace(reply, tokens=index + 1, decode_seconds=reply.decode_seconds + seconds)
        else:
            reply = replace(reply, tokens=1, first_token_seconds=reply.first_token_seconds + seconds)
        reply = replace(reply, kv_bytes=cache.nbytes, newest=Picked(token, logits))
        if token in stops:
            reply = replace(reply, ended="stop")
            break
        reply = replace(reply, text=written(token))
        yield reply
    if not reply.ended:
        reply = replace(reply, ended="length")
    yield reply
    return reply


def side_by_side(
    speakers: Sequence[Speaker], conversations: Sequence[Sequence[Message]], sampling: Sampling
) -> Iterator[tuple[Reply, ...]]:
    """Yield the replies of all speakers, one step of each at a time; one that fails says why and the others go on."""
    running = {i: answer(s, m, sampling) for i, (s, m) in enumerate(zip(speakers, conversations, strict=True))}
    replies = [Reply() for _ in speakers]
    while running:
        for index in list(running):
            try:
                replies[index] = next(running[index])
            except StopIteration:
                del running[index]
            except UserError as error:
                replies[index] = replace(replies[index], ended="error", error=error)
                del running[index]
            yield tuple(replies)
