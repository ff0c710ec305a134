"""Where the one button's work stands, as HTML. Pure; knows no session."""

from html import escape

from studio.base.text import text
from studio.session.expected import STEPS
from studio.session.making import MakingStep
from studio.ui.html import duration, progress


def make_progress(step: MakingStep, language: str) -> str:
    """Return which step of how many it is, how far that has come, and about how long all of it still takes."""
    if step.progress.line is not None:
        return progress(step.progress, language)
    label = text(
        "make.step",
        language,
        number=step.number,
        count=len(STEPS),
        stage=text(f"make.{step.name}", language),
        time=duration(step.remaining, language),
    )
    fraction = step.progress.fraction
    percent = "" if fraction is None else f"{round(100 * fraction)}"
    value, kind = (f'aria-valuenow="{percent}"', "") if percent else ("", "unknown")
    return (
        f'<div class="progress {kind}" role="progressbar" aria-valuemin="0" aria-valuemax="100" '
        f'{value} aria-label="{escape(label)}"><div style="width:{percent or 30}%"></div></div>'
        f'<p class="notice">{escape(label)}</p>'
    )
