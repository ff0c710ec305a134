"""The methods of rounding as the plan's panel offers them: names, what each does, how long it takes. Pure."""

from html import escape

from studio.base.text import DEFAULT, text
from studio.calibration.texts import GENERATED, Text
from studio.quantization.methods import Method
from studio.session.expected import compress_seconds
from studio.session.session import Session
from studio.ui.html import duration

FEW = 12
"""Names that are listed unasked."""


def method_choices(language: str = DEFAULT, session: Session | None = None) -> list[tuple[str, str]]:
    """Return the methods, cheapest first, each with about how long it takes for the session's model."""
    choices = []
    for method in Method:
        name = text(f"method.{method}", language)
        if session is not None and session.checkpoint is not None:
            name += f" · {duration(compress_seconds(session, method), language)}"
        choices.append((name, method.value))
    return choices


def method_info(session: Session, language: str) -> str:
    """Return what the chosen method does, and which text it reads."""
    method = session.choice.method
    if session.choice.mode.bits >= 8:
        return text("method.only_below_8", language)
    words = [text(f"method.info_{method}", language)]
    if method.needs_inputs:
        words.append(text("method.reads", language, text=which_text(session.texts.calibration, language)))
    return " ".join(words)


def which_text(chosen: Text | None, language: str) -> str:
    """Return what a calibration reads, in words."""
    if chosen is None:
        return text("method.builtin_text", language)
    return text("method.generated_text", language) if chosen == GENERATED else chosen.name


def uncalibrated(session: Session, language: str) -> str:
    """Return, as HTML, which layers of the compressed copy its text did not reach, and so were rounded without it."""
    if session.copy.compressed is None:
        return ""
    names, stacks = session.copy.compressed.unreached, session.copy.compressed.stacks
    parts = []
    if names:
        listed = "".join(f"<li><code>{escape(name)}</code></li>" for name in names)
        sentence = escape(text("method.unreached", language, count=len(names)))
        is_open = " open" if len(names) <= FEW else ""
        parts.append(f'<details class="hint"{is_open}><summary>{sentence}</summary><ul>{listed}</ul></details>')
    if stacks:
        parts.append(f'<p class="hint">{escape(text("method.stacks", language, count=len(stacks)))}</p>')
    return "".join(parts)
