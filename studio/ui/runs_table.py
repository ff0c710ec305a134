"""What was made so far as a table, and as files. Pure; everything from outside is escaped here."""

import csv
import io
import json
import shlex
from collections.abc import Sequence
from html import escape
from urllib.parse import quote

from studio.base.text import text
from studio.base.units import format_bytes
from studio.evaluation.figures import WindowMean
from studio.session.runs import Run
from studio.session.session import Session

COLUMNS = ("run", "plan", "size", "bits", "kld", "same_top", "questions", "speed", "seconds")


def runs_table(session: Session, language: str) -> str:
    """Return a row for every run, newest first, with a button that plans it again, and the table as files."""
    lines = list(session.decision.runs)[::-1]
    if not lines:
        return f'<p class="hint">{escape(text("runs.none", language))}</p>'
    names = ("compare", *COLUMNS)
    heads = "".join(f'<th scope="col">{escape(text(f"runs.{name}", language))}</th>' for name in names)
    rows = "".join(_row(run, session, language) for run in lines)
    table = f'<div class="table" tabindex="0"><table><thead><tr>{heads}</tr></thead><tbody>{rows}</tbody></table></div>'
    files = {"md": as_markdown(lines, language), "csv": as_csv(lines), "json": as_json(lines)}
    links = " ".join(
        f'<a download="runs.{kind}" href="data:text/plain;charset=utf-8,{quote(words)}">{kind.upper()}</a>'
        for kind, words in files.items()
    )
    return f'{table}<p class="files">{escape(text("runs.save", language))} {links}</p>'


def as_markdown(runs: Sequence[Run], language: str) -> str:
    """Return the table as Markdown."""
    heads = [text(f"runs.{name}", language) for name in COLUMNS]
    rows = [heads, ["---"] * len(heads), *([str(run.number), *cells_of(run)] for run in runs)]
    return "".join(f"| {' | '.join(cell.replace('|', '&#124;') for cell in row)} |\n" for row in rows)


def as_csv(runs: Sequence[Run]) -> str:
    """Return the figures as comma-separated values."""
    facts = [facts_of(run) for run in runs]
    file = io.StringIO()
    writer = csv.DictWriter(file, list(facts[0]))
    writer.writeheader()
    writer.writerows(facts)
    return file.getvalue()


def as_json(runs: Sequence[Run]) -> str:
    """Return the figures, and every choice that they were found by."""
    return json.dumps([facts_of(run) | {"choice": run.choice.words()} for run in runs], ensure_ascii=False, indent=1)


def facts_of(run: Run) -> dict[str, str | int | float | None]:
    """Return a run's figures as numbers; None for what was not measured."""
    found = run.evaluation
    return {
        "run": run.number,
        "model": run.model,
        "plan": plan_name(run),
        "target": run.target,
        "bytes": run.nbytes,
        "bits_per_weight": run.nbytes * 8 / run.plan.weights,
        "kld": None if found is None else found.kld.mean,
        "kld_standard_error": None if found is None else found.kld.standard_error,
        "same_top": None if found is None else found.same_top.mean,
        "tokens": None if found is None else found.tokens,
        "tokens_per_second": run.tokens_per_second,
        "seconds": run.seconds,
        "command": shlex.join(["python", "-m", "studio", "compress", run.model, *_arguments(run)]),
    }


def _arguments(run: Run) -> list[str]:
    text_read = [] if run.calibrated_on is None else ["--calibrate", run.calibrated_on]
    return [*run.choice.arguments(repeated=False), *text_read, *run.choice.arguments(repeated=True), "--out", "DIR"]


def _row(run: Run, session: Session, language: str) -> str:
    is_shown = session.plan is not None and run.choice == session.plan.choice
    button = (
        f'<button type="button" class="chip" data-run="run:{run.number}">'
        f"{escape(text('runs.again', language, number=run.number))}</button>"
    )
    cells = "".join(f"<td>{escape(cell)}</td>" for cell in cells_of(run))
    kind = ' class="now"' if is_shown else ""
    ticked = " checked" if run.number in session.decision.runs.ticked else ""
    label = escape(text("runs.compare_run", language, number=run.number))
    tick = f'<td><input type="checkbox" data-tick="{run.number}" aria-label="{label}"{ticked}></td>'
    return f'<tr{kind} data-number="{run.number}">{tick}<th scope="row">{button}</th>{cells}</tr>'


def cells_of(run: Run) -> list[str]:
    """Return a run's figures as they are read, but for its number."""
    found, speed = run.evaluation, run.tokens_per_second
    return [
        plan_name(run),
        format_bytes(run.nbytes),
        f"{run.nbytes * 8 / run.plan.weights:.2f}",
        "–" if found is None else _with_error(found.kld, 4),
        "–" if found is None else f"{_with_error(found.same_top, 1, 100)} %",
        "–" if found is None or found.flips is None else f"{found.flips.right} / {found.flips.questions}",
        "–" if speed is None else f"{speed:.1f}",
        f"{run.seconds:.0f}",
    ]


def plan_name(run: Run) -> str:
    """Return a plan in a few words: ``"int4_asym-g64, ratio 0.8, fisher_gptq"``."""
    choice = run.choice
    words = [choice.label]
    if choice.is_mixed and choice.budget is None:
        words.append(f"{choice.ratio:g} + {choice.secondary}")
    if choice.mode.bits < 8:
        words.append(str(choice.method))
    return ", ".join(words)


def _with_error(figure: WindowMean, digits: int, factor: float = 1.0) -> str:
    error = "" if figure.standard_error is None else f" ± {factor * figure.standard_error:.{digits}f}"
    return f"{factor * figure.mean:.{digits}f}{error}"
