"""The presets as the page offers them: name, size, loss; and times in words. Pure."""

from studio.base.text import text
from studio.base.units import format_bytes
from studio.planning.presets import CUSTOM, PRESETS
from studio.session.decision import Option
from studio.session.session import Session
from studio.ui.html import duration
from studio.ui.verdict import how_often

__all__ = ["duration", "preset_choices"]


def preset_choices(session: Session, language: str) -> list[tuple[str, str]]:
    """Return the presets, each with its size and what it loses as far as that is known, a line each."""
    options = {option.preset: option for option in session.decision.options()}
    named = [
        (_words(options[name], language) if name in options else text(f"preset.{name}", language), name)
        for name in PRESETS
    ]
    return [*named, (f"{text('preset.custom', language)}\n{text('preset.custom_hint', language)}", CUSTOM)]


def _words(option: Option, language: str) -> str:
    about = "" if option.plan.is_exact else "~\u2009"
    size = f"{about}{format_bytes(option.nbytes)}"
    loss = option.loss
    if loss is None:
        return f"{text(f'preset.{option.preset}', language)}\n{size}"
    often = how_often(loss.differs, language)
    key = "measured" if loss.source != "predicted" else "bound" if loss.is_bound else "about"
    return (
        f"{text(f'preset.{option.preset}', language)}\n{size}\n{text(f'preset.differs_{key}', language, often=often)}"
    )
