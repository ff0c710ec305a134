"""Answers, token by token, from one model or several side by side. Knows nothing of pages or files.

Every model steps through the same loop, so that two columns compare; each one's seconds count its own steps only.
"""

import inspect
import time
from collections.abc import Generator, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal

import torch
from torch import Tensor, nn

from studio.errors import PromptError, UserError
from studio.model import weight_bytes
from studio.template import Message, TemplateRenderer

PREFILL_CHUNK = 128
"""Prompt tokens taken at once: short enough that Stop is heard twice a second on a small machine."""


SAMPLING_LIMITS: dict[str, tuple[float, float]] = {
    "max_new_tokens": (1, 1 << 20),
    "temperature": (0, 100),
    "top_p": (0.01, 1),
    "top_k": (0, 1 << 20),
    "repetition_penalty": (0.1, 10),
    "seed": (0, 2**63 - 1),
}


@dataclass(frozen=True)
class Sampling:
    """How the next token is picked; ``temperature`` 0 takes the likeliest, always the same.

    Raises PromptError for a value outside its limits.
    """

    max_new_tokens: int = 256
    temperature: float = 0.0
    top_p: float = 1.0
    top_k: int = 0
    repetition_penalty: float = 1.0
    seed: int = 0

    def __post_init__(self) -> None:
        for name, (low, high) in SAMPLING_LIMITS.items():
            value = getattr(self, name)
            if not low <= value <= high:  # false for NaN too
                raise PromptError("sampling_range", name=name, value=value, low=low, high=high)


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
    ended: Literal["", "stop", "length", "error"] = ""
    error: UserError | None = None

    @property
    def tokens_per_second(self) -> float:
        """Tokens after the first by the time they took; 0 while there are none."""
        return (self.tokens - 1) / self.decode_seconds if self.tokens > 1 else 0.0


@dataclass(frozen=True)
class Speaker:
    """A model that can answer, with its tokenizer."""

    model: nn.Module
    tokenizer: Any

    @property
    def weight_bytes(self) -> int:
        return weight_bytes(self.model)

    @property
    def context(self) -> int:
        """Tokens that prompt and answer may have together."""
        return int(getattr(self.model.config, "max_position_embeddings", None) or 1 << 30)

    @property
    def stop_ids(self) -> set[int]:
        """Tokens that end an answer: those of the generation settings, and the tokenizer's own."""
        ids: set[int] = set()
        settings = getattr(self.model, "generation_config", None)
        for found in (getattr(settings, "eos_token_id", None), self.tokenizer.eos_token_id):
            if found is not None:
                ids.update([found] if isinstance(found, int) else found)
        return ids


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


def answer(speaker: Speaker, messages: Sequence[Message], sampling: Sampling) -> Generator[Reply, None, Reply]:
    """Yield the reply as it grows, at least after every token and every 128 prompt tokens, and return it whole.

    Raises PromptError for a prompt that is empty or leaves no room in the model's context.
    """
    ids = prompt_ids(speaker.tokenizer, messages)
    if len(ids) >= speaker.context:
        raise PromptError("prompt_too_long", tokens=len(ids), context=speaker.context)
    room = min(sampling.max_new_tokens, speaker.context - len(ids))
    reply = Reply(prompt_tokens=len(ids))
    generated: list[int] = []
    for token, seconds in _tokens(speaker.model, ids, sampling, room):
        if token is None:
            reply = replace(reply, first_token_seconds=reply.first_token_seconds + seconds)
        elif not generated:
            reply = replace(reply, first_token_seconds=reply.first_token_seconds + seconds, tokens=1)
        else:
            reply = replace(reply, decode_seconds=reply.decode_seconds + seconds, tokens=reply.tokens + 1)
        if token is not None:
            generated.append(token)
            if token in speaker.stop_ids:
                reply = replace(reply, ended="stop")
                break
            reply = replace(reply, text=_readable(speaker.tokenizer, generated))
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


def _tokens(model: nn.Module, ids: list[int], sampling: Sampling, room: int) -> Iterator[tuple[int | None, float]]:
    """Yield (None, seconds) for a piece of the prompt and (token, seconds) for each of at most ``room`` tokens."""
    from transformers import DynamicCache

    pick = _Picker(sampling)
    cache = DynamicCache(config=model.config)
    seen = torch.tensor([ids])
    logits = torch.empty(0)
    for start in range(0, len(ids), PREFILL_CHUNK):
        began = time.perf_counter()
        logits = _next_logits(model, seen[:, start : start + PREFILL_CHUNK], cache)
        if start + PREFILL_CHUNK < len(ids):
            yield None, time.perf_counter() - began
    for step in range(room):
        if step:
            began = time.perf_counter()
            logits = _next_logits(model, seen[:, -1:], cache)
        token = pick(seen, logits)
        seen = torch.cat((seen, torch.tensor([[token]])), dim=1)
        yield token, time.perf_counter() - began


@torch.inference_mode()
def _next_logits(model: nn.Module, ids: Tensor, cache: Any) -> Tensor:
    """Return the logits [1, V] after ``ids`` [1, T], which join the cache.

    The mode is entered for a step only: held across a ``yield`` it would reach into the caller's code.
    """
    # Mamba's blocks, which keep a state and no keys, call it otherwise.
    name = "cache_params" if "cache_params" in inspect.signature(model.forward).parameters else "past_key_values"
    logits: Tensor = model(ids, **{name: cache}, use_cache=True, logits_to_keep=1).logits[:, -1]
    return logits


class _Picker:
    """Picks the next token from logits [1, V], by transformers' own warpers."""

    def __init__(self, sampling: Sampling) -> None:
        from transformers.generation import logits_process as lp

        self.greedy = sampling.temperature == 0
        self.generator = torch.Generator().manual_seed(sampling.seed)
        self.processors = lp.LogitsProcessorList()
        if sampling.repetition_penalty != 1:
            self.processors.append(lp.RepetitionPenaltyLogitsProcessor(sampling.repetition_penalty))
        if not self.greedy:
            self.processors.append(lp.TemperatureLogitsWarper(sampling.temperature))
            if sampling.top_k > 0:
                self.processors.append(lp.TopKLogitsWarper(sampling.top_k))
            if sampling.top_p < 1:
                self.processors.append(lp.TopPLogitsWarper(sampling.top_p))

    def __call__(self, seen: Tensor, logits: Tensor) -> int:
        scores = self.processors(seen, logits.float())
        if self.greedy:
            return int(scores.argmax(-1))
        return int(torch.multinomial(scores.softmax(-1), 1, generator=self.generator))


def _readable(tokenizer: Any, ids: list[int]) -> str:
    """Return the text of ``ids`` without a character that is only half there yet."""
    decoded: str = tokenizer.decode(ids, skip_special_tokens=True)
    return decoded.rstrip("\N{REPLACEMENT CHARACTER}")
