"""A conversation -> the token ids an answer is to follow. Knows no models.

What a user, a system prompt or an earlier answer says stays text: where it contains a special token's name, such as
``<|im_end|>``, those characters are tokenized as any others are, and end nobody's turn.
"""

import re
from collections.abc import Mapping, Sequence
from typing import Any

from studio.errors import PromptError
from studio.template import Message, TemplateRenderer

RENDERER = TemplateRenderer()
STAND_INS = range(0xF0000, 0xFFFFE)
"""Characters for private use: a template carries them through as it would any letter."""


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
        return list(tokenizer(joined, split_special_tokens=True)["input_ids"])
    disguised, names = _disguised(messages, special_names(tokenizer))
    tokens = {name: str(value) for name, value in tokenizer.special_tokens_map.items() if isinstance(value, str)}
    rendered = renderer.render(template, disguised, tokens)
    ids: list[int] = []
    for piece in _pieces(rendered, names):
        plain = names.get(piece)
        found = tokenizer(plain or piece, add_special_tokens=False, split_special_tokens=plain is not None)
        ids += found["input_ids"]
    if not ids:
        raise PromptError("template_failed", reason="0 tokens")
    return ids


def special_names(tokenizer: Any) -> list[str]:
    """Return what the tokenizer would take for a special token, the longest first."""
    added = getattr(tokenizer, "added_tokens_decoder", {})
    names = {token.content for token in added.values() if token.special} | set(tokenizer.all_special_tokens)
    return sorted(filter(None, names), key=len, reverse=True)


def _disguised(messages: Sequence[Message], special: Sequence[str]) -> tuple[list[Message], Mapping[str, str]]:
    """Return the messages with a stand-in for each special token's name in them, and the stand-ins' meanings."""
    said = "".join(message["content"] for message in messages)
    if not any(name in said for name in special):
        return list(messages), {}
    free = (chr(code) for code in STAND_INS if chr(code) not in said)
    stand_ins = dict(zip((name for name in special if name in said), free, strict=False))
    pattern = re.compile("|".join(map(re.escape, stand_ins)))
    changed: list[Message] = [
        {**message, "content": pattern.sub(lambda found: stand_ins[found[0]], message["content"])}
        for message in messages
    ]
    return changed, {character: name for name, character in stand_ins.items()}


def _pieces(rendered: str, names: Mapping[str, str]) -> list[str]:
    """Cut a rendered prompt at the stand-ins, which are pieces of their own."""
    if not names:
        return [rendered]
    return [piece for piece in re.split(f"([{''.join(names)}])", rendered) if piece]
