"""Chat templates, rendered. Knows no tokens; a template is a program from a stranger, so this runs in a child alone.

Jinja's sandbox keeps a template from the machine; what it loses or refuses is found out here, so that no message goes
missing in silence.
"""

from collections.abc import Mapping, Sequence
from typing import Any

from studio.base.errors import PromptError

MAX_TEMPLATE = 200_000
MAX_RESULT = 2_000_000
"""Characters."""
MARK = 7_301_958_642_000
"""The first of the numbers that stand for messages: digits pass every filter that changes letters."""
REASON = 160

Message = Mapping[str, str]
"""``{"role": "user", "content": "…"}``"""


def rendered(template: str, file: str, messages: Sequence[Message], tokens: Mapping[str, str]) -> str:
    """Return the prompt that ``template`` makes of the messages, ending where the answer begins.

    ``tokens``: the special tokens a template may name (``bos_token``, …). Contents go in as text, or as a list of parts
    where the template reads nothing else. Raises PromptError, which names ``file``, for a template that fails, leaves a
    message out, or is absurdly long.
    """
    if len(template) > MAX_TEMPLATE:
        raise _failed(file, f"{len(template):,} characters")
    system = [message for message in messages if message["role"] == "system"]
    try:
        text, lost = _best(template, messages, tokens)
    except MemoryError:
        raise
    except Exception as error:  # a stranger's program may raise anything; its words are the user's clue
        reason = f"{type(error).__name__}: {error}"[:REASON]
        if system and _works(template, [message for message in messages if message["role"] != "system"], tokens):
            raise PromptError("system_prompt_refused", file=file, reason=reason) from error
        raise _failed(file, reason) from error
    if not text or len(text) > MAX_RESULT:
        raise _failed(file, f"{len(text):,} characters")
    if "user" in lost:
        raise PromptError("template_drops_message", file=file)
    if "system" in lost:
        raise PromptError("system_prompt_dropped", file=file)
    try:
        text.encode()
    except UnicodeEncodeError as error:
        raise _failed(file, f"U+{ord(text[error.start]):04X} is half a character") from error
    return text


def with_answer(template: str, messages: Sequence[Message], answer: str, tokens: Mapping[str, str]) -> str:
    """Return a conversation that ends with an answer, as ``template`` has it; nothing where it fails or drops that."""
    whole = [*messages, {"role": "assistant", "content": answer}]
    for form in (_as_text, _as_parts):
        try:
            text = _render(template, form(whole), tokens, is_open=False)
        except MemoryError:
            raise
        except Exception:  # one that takes questions alone says nothing of where answers stand
            continue
        if answer in text[:MAX_RESULT]:
            return text
    return ""


def _best(template: str, messages: Sequence[Message], tokens: Mapping[str, str]) -> tuple[str, set[str]]:
    """Return the prompt with contents as text or, where that loses more, as parts; and the roles that are lost in it.

    Raises what the template raises on text, unless it takes parts.
    """
    failure: Exception | None = None
    found: list[tuple[str, set[str]]] = []
    for form in (_as_text, _as_parts):
        try:
            text = _render(template, form(messages), tokens)
        except MemoryError:
            raise
        except Exception as error:
            failure = error if form is _as_text else failure
            continue
        lost = _lost(template, messages, tokens, text, form)
        if not lost:
            return text, lost
        found.append((text, lost))
    if failure is not None:
        raise failure
    return min(found, key=lambda each: len(each[1]))


def _lost(template: str, messages: Sequence[Message], tokens: Mapping[str, str], text: str, form: Any) -> set[str]:
    """Return the roles of messages that a template leaves out. Of answers it may leave out what was thought."""
    marks = [str(MARK + place) for place in range(len(messages))]
    try:
        marked = _render(
            template, form([{**m, "content": mark} for m, mark in zip(messages, marks, strict=True)]), tokens
        )
    except MemoryError:
        raise
    except Exception:  # it looks into what is said: then the words themselves must be there
        marked, marks = text, [message["content"].strip() for message in messages]
    return {m["role"] for m, mark in zip(messages, marks, strict=True) if mark not in marked} & {"user", "system"}


def _works(template: str, messages: Sequence[Message], tokens: Mapping[str, str]) -> bool:
    try:
        return not _best(template, messages, tokens)[1]
    except MemoryError:
        raise
    except Exception:
        return False


def _as_text(messages: Sequence[Message]) -> list[dict[str, Any]]:
    return [dict(message) for message in messages]


def _as_parts(messages: Sequence[Message]) -> list[dict[str, Any]]:
    return [{**message, "content": [{"type": "text", "text": message["content"]}]} for message in messages]


def _render(template: str, messages: list[dict[str, Any]], tokens: Mapping[str, str], is_open: bool = True) -> str:
    from transformers.utils.chat_template_utils import render_jinja_template

    found, _ = render_jinja_template([messages], chat_template=template, add_generation_prompt=is_open, **tokens)
    return str(found[0])


def _failed(file: str, reason: str) -> PromptError:
    return PromptError("template_failed", file=file, reason=reason)
