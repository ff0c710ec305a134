"""A conversation -> pieces of text to be tokenized, each by its own rule. Knows no tokens; runs in a child.

What a user, a system prompt or an earlier answer says stays text: where it contains a special token's name, such as
``<|im_end|>``, those characters are tokenized as any others are, and end nobody's turn.
"""

import re
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from studio.checkpoint.tokenizer.template import Message, rendered, with_answer

ANSWER = "Certainly"
"""An answer to see where a template puts one."""
STAND_INS = range(0xF0000, 0xFFFFE)
"""Characters for private use: a template carries them through as it would any letter."""


class Piece(NamedTuple):
    """A part of a prompt."""

    text: str
    is_plain: bool = False
    """Whether the names of special tokens in it are text as any other is."""
    has_frame: bool = False
    """Whether the tokenizer adds what it sets round every text, such as the token that begins one."""


def pieces(
    messages: Sequence[Message], template: tuple[str, str] | None, special: Sequence[str], tokens: Mapping[str, str]
) -> list[Piece]:
    """Return what a conversation is made of.

    ``template``: a chat template and its file's name; without one the texts are joined and completed plainly.
    ``special``: names of special tokens, the longest first; ``tokens``: those that a template may name. Raises
    PromptError for a template that fails or leaves a message out.
    """
    if template is None:
        return [Piece("\n".join(message["content"] for message in messages), is_plain=True, has_frame=True)]
    disguised, names = _disguised(messages, special)
    text = rendered(*template, disguised, tokens)
    if not names:
        return [Piece(text)]
    cut = re.split(f"([{''.join(names)}])", text)
    return [Piece(names.get(each, each), is_plain=each in names) for each in cut if each]


def seam(
    messages: Sequence[Message], template: tuple[str, str] | None, special: Sequence[str], tokens: Mapping[str, str]
) -> str:
    """Return what stands between a conversation's prompt and an answer: mostly nothing, a space where the template or
    the end of the prompt asks for one. The arguments are those of :func:`pieces`; raises as that does."""
    text = "\n".join(message["content"] for message in messages)
    if template is not None:
        text = rendered(*template, messages, tokens)
        whole = with_answer(template[0], messages, ANSWER, tokens)
        between, found, _ = whole.removeprefix(text).partition(ANSWER)
        if whole.startswith(text) and found and not between.strip():
            return between
    return "" if text[-1:].isspace() or text.endswith(tuple(special)) else " "


def special_names(tokenizer: Any) -> list[str]:
    """Return what transformers' tokenizer would take for a special token, the longest first."""
    added = getattr(tokenizer, "added_tokens_decoder", {})
    names = {token.content for token in added.values() if token.special} | set(tokenizer.all_special_tokens)
    return sorted(filter(None, names), key=len, reverse=True)


def _disguised(messages: Sequence[Message], special: Sequence[str]) -> tuple[list[Message], Mapping[str, str]]:
    """Return the messages with a stand-in for each special token's name in them, and the stand-ins' meanings."""
    said = "\n".join(message["content"] for message in messages)
    found = [name for name in special if name in said]
    if not found:
        return list(messages), {}
    free = (chr(code) for code in STAND_INS if chr(code) not in said)
    stand_ins = dict(zip(found, free, strict=False))
    pattern = re.compile("|".join(map(re.escape, stand_ins)))
    changed: list[Message] = [
        {**message, "content": pattern.sub(lambda found: stand_ins[found[0]], message["content"])}
        for message in messages
    ]
    return changed, {character: name for name, character in stand_ins.items()}
