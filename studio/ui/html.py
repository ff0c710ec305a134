"""A notice, a bar of progress, a table, as HTML. Pure; knows nothing of models."""

from collections.abc import Sequence
from html import escape

from studio.base.fair_turns import Line
from studio.base.progress import Progress
from studio.base.text import text


def notice(sentence: str, kind: str = "") -> str:
    """Return a sentence for the user; ``kind`` is ``"error"`` for what went wrong, announced at once."""
    role = "alert" if kind == "error" else "status"
    return f'<p class="notice {kind}" role="{role}">{escape(sentence)}</p>' if sentence else ""


def progress(event: Progress, language: str) -> str:
    """Return a progress bar with the stage's name and what it works on."""
    if event.line is not None:
        return notice(in_line(event.line, language))
    label = text(f"stage.{event.stage}", language)
    turns = f" · {text('stage.turns', language)}" if event.is_shared else ""
    known = event.fraction is not None
    percent = round(100 * (event.fraction or 0))
    value = f'aria-valuenow="{percent}"' if known else ""
    return (
        f'<div class="progress {"" if known else "unknown"}" role="progressbar" aria-valuemin="0" aria-valuemax="100" '
        f'{value} aria-label="{escape(label)}"><div style="width:{percent if known else 30}%"></div></div>'
        f'<p class="notice"><span>{escape(label)}{f" {percent} %" if known else ""}{escape(turns)}</span> '
        f"<code>{escape(event.detail)}</code></p>"
    )


def in_line(line: Line, language: str) -> str:
    """Return how many others are served sooner, and about how long that will take."""
    said = text("stage.queue" if line.before else "stage.queue_next", language, before=line.before)
    if line.seconds is None:
        return said
    return text("stage.queue_time", language, queue=said, time=duration(line.seconds, language))


def duration(seconds: float, language: str) -> str:
    """Return a rough time: ``"~ 40 s"``, ``"~ 5 min"``, ``"~ 2 h"``."""
    for unit, size in (("h", 3600), ("min", 60)):
        if seconds >= 1.5 * size:
            return text(f"method.{unit}", language, count=round(seconds / size))
    return text("method.s", language, count=max(1, round(seconds)))


def table(columns: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """Return an HTML table, every word of it escaped. What may scroll is a stop of the Tab key."""
    head = "".join(f'<th scope="col">{escape(column)}</th>' for column in columns)
    body = "".join("<tr>" + "".join(f"<td>{escape(cell)}</td>" for cell in row) + "</tr>" for row in rows)
    return f'<div class="table" tabindex="0"><table><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table></div>'
