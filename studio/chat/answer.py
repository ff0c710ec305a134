"""Answers, token by token, from one model or several side by side. Knows nothing of pages or files.

Every model steps through the same loop, so that two columns compare; each one's seconds count its own steps only.
"""

import logging
import time
from bisect import bisect_right
from collections.abc import Callable, Generator, Iterator, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Literal

import torch
from torch import Tensor

from studio.base.errors import Cancelled, ModelError, PromptError, ResourceError, UserError, is_out_of_memory
from studio.base.units import format_bytes
from studio.chat.detokenize import Detokenizer
from studio.chat.prompt import prompt_ids
from studio.checkpoint.tokenizer.guarded_tokenizer import GuardedTokenizer
from studio.checkpoint.tokenizer.template import Message
from studio.runtime.decoder import MOST_TOKENS, Backend, Decoder, PrefixCache, Reason
from studio.runtime.sampling import Picker, Sampling

LOG = logging.getLogger(__name__)


@dataclass(frozen=True)
class Picked:
    """A token, and the logits fp32 [V] that it was picked from; these stay in the process that made them."""

    token: int
    logits: Tensor | None = None

    def __reduce__(self) -> tuple[Any, ...]:
        return Picked, (self.token,)


@dataclass(frozen=True)
class Look:
    """A token of an answer, looked at again."""

    word: str
    """As text; empty for one that ends the answer."""
    probabilities: tuple[float, ...]
    """What the model gave the tokens that were asked for, at temperature 1."""


@dataclass(frozen=True)
class Reply:
    """An answer as far as it has come."""

    text: str = ""
    prompt_tokens: int = 0
    kept_tokens: int = 0
    """Of the prompt's, those that an earlier turn had read already."""
    tokens: int = 0
    first_token_seconds: float = 0.0
    """From the start of this model's work on the prompt to its first token."""
    decode_seconds: float = 0.0
    """This model's own time for the tokens after the first."""
    kv_bytes: int = 0
    """Of the keys and values of prompt and answer."""
    kv_bits: int = 16
    """What they are kept at: what was asked for, or the nearest that this model can."""
    newest: Picked | None = field(default=None, compare=False)
    ended: Literal["", "stop", "length", "error"] = ""
    error: UserError | None = None

    @property
    def tokens_per_second(self) -> float:
        """Tokens after the first by the time they took; 0 while there are none."""
        return (self.tokens - 1) / self.decode_seconds if self.tokens > 1 else 0.0

    @property
    def prompt_tokens_per_second(self) -> float:
        """Prompt tokens read by the time to the first token; 0 before it."""
        seconds = self.first_token_seconds if self.tokens else 0.0
        return (self.prompt_tokens - self.kept_tokens) / seconds if seconds else 0.0


@dataclass(frozen=True)
class LoadedModel:
    """A model that can answer, with its tokenizer."""

    decoder: Decoder[Any]
    tokenizer: GuardedTokenizer

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
        return self.decoder.stop_ids | self.tokenizer.stop_ids


@dataclass(frozen=True)
class ModelInfo:
    """What a column says of the model that answers in it."""

    backend: Backend
    reason: Reason
    weight_bytes: int
    """Memory the weights take."""
    step_bytes: int
    """Of these, what one token reads."""
    is_slow: bool
    """Whether this machine has no packed product for some of its weights."""
    kv_bits: tuple[int, ...]
    context: int

    @classmethod
    def of(cls, loaded: LoadedModel) -> "ModelInfo":
        """Return what there is to say of a loaded model."""
        known = loaded.decoder
        return cls(
            known.backend,
            known.reason,
            known.weight_bytes,
            known.step_bytes,
            known.is_slow,
            known.kv_bits,
            known.context,
        )


def look(loaded: LoadedModel, read: PrefixCache, index: int, tokens: Sequence[int]) -> Look:
    """Return what the model said at ``index`` of the answer it is giving, one of the last two, and what it gave
    ``tokens`` there. Raises ValueError for an earlier one."""
    picked = next((picked for place, picked in read.recent if place == index), None)
    if picked is None or picked.logits is None:
        raise ValueError(f"token {index} was said too long ago")
    word = "" if picked.token in loaded.stop_ids else str(loaded.tokenizer.decode([picked.token]))
    return Look(word, tuple(picked.logits.float().softmax(-1)[list(tokens)].tolist()))


def answer(
    loaded: LoadedModel,
    messages: Sequence[Message],
    sampling: Sampling,
    kv_bits: int = 16,
    read: PrefixCache | None = None,
) -> Generator[Reply, None, Reply]:
    """Yield the reply as it grows, at least after every token and every 128 prompt tokens, and return it whole.

    ``read``: what the model has read of this conversation, which is not read again; it holds this turn afterwards.
    Raises PromptError for a prompt that is empty or leaves no room in the model's context, ResourceError where keys and
    values do not fit in memory, ModelError for logits that are no numbers.
    """
    decoder, read = loaded.decoder, PrefixCache() if read is None else read
    ids = prompt_ids(loaded.tokenizer, messages)
    loaded.tokenizer.check(ids, decoder.vocabulary)
    if len(ids) >= loaded.context:
        raise PromptError("prompt_too_long", tokens=len(ids), context=loaded.context)
    room = min(sampling.max_new_tokens, loaded.context - len(ids))
    bits = min(decoder.kv_bits, key=lambda each: abs(each - kv_bits))
    _check_memory(lambda answered: decoder.kv_bytes(len(ids) + answered, bits) - read.nbytes, room, decoder)
    kept = read.begin(decoder, ids, len(ids) + room, bits)
    pick, written, stops = Picker(sampling, ids), Detokenizer(loaded.tokenizer), loaded.stop_ids
    reply = Reply(prompt_tokens=len(ids), kept_tokens=kept, kv_bits=bits)
    logits = torch.empty(0, dtype=torch.float32)
    for start in range(kept, len(ids), MOST_TOKENS):
        began = time.perf_counter()
        logits = read.step(decoder, ids[start : start + MOST_TOKENS])
        reply = replace(reply, first_token_seconds=reply.first_token_seconds + time.perf_counter() - began)
        if start + MOST_TOKENS < len(ids):
            yield reply
    token = -1
    for index in range(room):
        began = time.perf_counter()
        if index:
            logits = read.step(decoder, [token])
        token = pick(logits)
        seconds = time.perf_counter() - began
        if index:
            reply = replace(reply, tokens=index + 1, decode_seconds=reply.decode_seconds + seconds)
        else:
            reply = replace(reply, tokens=1, first_token_seconds=reply.first_token_seconds + seconds)
        if not torch.isfinite(logits[token]):
            raise ModelError("no_numbers")
        picked = Picked(token, logits)
        read.recent.append((index, picked))
        reply = replace(reply, kv_bytes=read.nbytes, newest=picked)
        if token in stops:
            reply = replace(reply, ended="stop")
            break
        reply = replace(reply, text=written(token))
        yield reply
    if not reply.ended:
        reply = replace(reply, ended="length")
    yield reply
    return reply


def _check_memory(need: Callable[[int], int], room: int, decoder: Decoder[Any]) -> None:
    """Raise ResourceError where what an answer of ``room`` tokens needs is not free, with how many would fit."""
    free = decoder.free_bytes()
    if need(room) > free:
        fits = max(0, bisect_right(range(room), free, key=need) - 1)
        raise ResourceError("kv_memory", tokens=room, fits=fits, need=format_bytes(need(room)), free=format_bytes(free))


def side_by_side(answers: Sequence[Iterator[Reply]]) -> Iterator[tuple[Reply, ...]]:
    """Yield the replies of several models, one step of each at a time; one that fails says why and the others go on.

    None is ever more than a token ahead: one that has read its prompt sooner waits for the others.
    """
    running = dict(enumerate(answers))
    replies = [Reply() for _ in answers]
    while running:
        fewest = min(replies[index].tokens for index in running)
        for index in [index for index in running if replies[index].tokens == fewest]:
            try:
                replies[index] = next(running[index])
            except (StopIteration, Cancelled):
                del running[index]
            except Exception as error:  # a model's code may raise anything; the other column is none of its business
                replies[index] = replace(replies[index], ended="error", error=failure(error))
                del running[index]
            yield tuple(replies)


def failure(error: Exception) -> UserError:
    """Return what a column shows of a failure; one that is no sentence for the user goes to the log."""
    if isinstance(error, UserError):
        return error
    LOG.error("an answer failed", exc_info=error)
    if is_out_of_memory(error):
        return ResourceError("answer_memory")
    return ModelError("answer_failed", reason=f"{type(error).__name__}: {error}"[:160])
