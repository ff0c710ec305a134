"""The drift of the compressed copy from its original: its panel, and its figures as HTML. Wires no events."""

from dataclasses import dataclass
from html import escape
from typing import Any

import gradio as gr
from gradio.blocks import Block

from studio.base.text import text
from studio.evaluation.drift import Drift, guidance
from studio.evaluation.figures import WindowMean
from studio.quantization.methods import Method
from studio.session import expected
from studio.session.session import Session
from studio.ui.html import duration
from studio.ui.localized import Words
from studio.ui.text_picker import EVALUATION, text_choice


@dataclass(frozen=True)
class DriftPanel:
    """Components of what the copy loses."""

    box: gr.Column
    headline: gr.HTML
    measure: gr.Button
    stop: gr.Button
    progress: gr.HTML
    figures: gr.HTML
    reads: gr.Radio
    text: gr.File
    dataset: gr.Textbox


def drift_panel(words: Words) -> DriftPanel:
    """A line with the figure, and below it what it is made of."""
    with gr.Column(elem_id="drift", visible=False) as box:
        with gr.Row(elem_classes="tight"):
            headline = gr.HTML(elem_id="drift-headline", min_width=240)
            measure = words.on(
                gr.Button, {"value": "drift.measure"}, elem_id="measure-drift", size="sm", scale=0, min_width=150
            )
            stop = words.on(
                gr.Button,
                {"value": "drift.stop"},
                visible=False,
                elem_id="stop-drift",
                size="sm",
                scale=0,
                min_width=80,
            )
        progress = gr.HTML(elem_id="drift-progress")
        with words.on(gr.Accordion, {"label": "drift.details"}, open=False, elem_id="drift-details"):
            figures = gr.HTML(elem_id="drift-figures")
            reads, file, dataset = text_choice(words, EVALUATION, "drift-text")
    return DriftPanel(box, headline, measure, stop, progress, figures, reads, file, dataset)


def shown(panel: DriftPanel, session: Session, language: str) -> dict[Block, Any]:
    """Return the panel at rest; without a compressed copy that writes text it is not there."""
    checkpoint = session.checkpoint
    is_there = session.copy.folder is not None and checkpoint is not None and checkpoint.can_chat
    return {
        panel.box: gr.update(visible=is_there),
        **at_rest(panel),
        **measured(panel, session, language),
        panel.measure: gr.update(interactive=True, value=measure_words(session, language)),
    }


def at_rest(panel: DriftPanel) -> dict[Block, Any]:
    """Return the buttons as they are while nothing is measured."""
    return {panel.measure: gr.update(interactive=True), panel.stop: gr.update(visible=False)}


def measured(panel: DriftPanel, session: Session, language: str) -> dict[Block, Any]:
    """Return the figures so far, and about how long all of them take."""
    return {
        panel.headline: headline(session, language),
        panel.figures: figures(session, language),
        panel.measure: gr.update(value=measure_words(session, language)),
    }


def measure_words(session: Session, language: str) -> str:
    """Return what the button says: about how long it takes."""
    return text("drift.measure_time", language, time=duration(expected.whole_drift(session), language))


def headline(session: Session, language: str) -> str:
    """Return the drift in a line; as long as not all is read it is hollow and has a "~"."""
    name = escape(text("drift.name", language))
    drift = session.copy.drift
    if drift is None or drift.evaluation is None:
        none, predicted = escape(text("drift.none", language)), session.planner.predicted_drift
        if predicted is not None and session.is_copy_of_choice and session.choice.method is Method.NEAREST:
            none = escape(text("drift.predicted", language, kld=f"{predicted:.2g}"))
        return f'<p class="drift"><b>{name}</b> <span class="hint">{none}</span></p>'
    found, about = drift.evaluation, "" if drift.is_whole else "~\u2009"
    kind = "" if drift.is_whole else " estimate"
    figure = f"{about}KLD {mean_and_error(found.kld, 3)}"
    return (
        f'<p class="drift{kind}" title="{escape(text("drift.hint", language))}"><b>{name}</b> '
        f"<strong>{escape(figure)}</strong> <span>{escape(words_that_differ(found.same_top.mean, language))}</span></p>"
    )


def words_that_differ(same: float, language: str) -> str:
    """Return the share of other likeliest tokens as people say it: ``"… differs 1 time in 5"``."""
    differ = 1 - same
    if differ < 0.001:
        return text("drift.few_words", language)
    if differ > 2 / 3:
        return text("drift.most_words", language)
    return text("drift.words", language, count=max(2, round(1 / differ)))


def figures(session: Session, language: str) -> str:
    """Return every figure with its standard error, the floor, which text it was, and what others found on tasks."""
    drift, compressed = session.copy.drift, session.copy.compressed
    if compressed is None:
        return ""
    parts = (
        []
        if drift is None or drift.evaluation is None
        else [_table(drift, language), _source(drift, session, language)]
    )
    advice = guidance(compressed.plan.choice.mode, language)
    parts += [_hint(advice)] if advice else []
    return "".join(parts)


def mean_and_error(figure: WindowMean, digits: int, factor: float = 1.0) -> str:
    """Return a mean with its standard error."""
    error = "" if figure.standard_error is None else f" ± {factor * figure.standard_error:.{digits}f}"
    return f"{factor * figure.mean:.{digits}f}{error}"


def _table(drift: Drift, language: str) -> str:
    found = drift.evaluation
    assert found is not None
    rows = [
        ("kld", mean_and_error(found.kld, 4)),
        ("median", f"{found.kld_median:.4f}"),
        ("p99", f"{found.kld_p99:.3f}"),
        ("same_top", f"{mean_and_error(found.same_top, 1, 100)} %"),
        ("perplexity", mean_and_error(found.perplexity, 2)),
        ("original_perplexity", mean_and_error(found.original_perplexity, 2)),
    ]
    if found.flips is not None:
        flips = found.flips
        counts = {"flipped": flips.flipped, "questions": flips.questions}
        right = {"right": flips.right, "before": flips.original_right}
        rows.append(("flips", text("drift.flips_of", language, **counts, **right)))
    if drift.floor is not None:
        rows.append(("floor", mean_and_error(drift.floor.kld, 4)))
    lines = "".join(
        f'<tr data-figure="{name}" title="{escape(text(f"drift.{name}_hint", language))}">'
        f'<th scope="row">{escape(text(f"drift.{name}", language))}</th><td>{escape(value)}</td></tr>'
        for name, value in rows
    )
    return f'<div class="table" tabindex="0"><table><tbody>{lines}</tbody></table></div>'


def _source(drift: Drift, session: Session, language: str) -> str:
    assert drift.evaluation is not None
    assert session.copy.compressed is not None
    choice = session.copy.compressed.plan.choice
    which = drift.text or text("drift.builtin_text", language)
    model = f"{choice.primary}, {choice.method}"
    return _hint(text("drift.source", language, model=model, tokens=f"{drift.evaluation.tokens:,}", text=which))


def _hint(words: str) -> str:
    return f'<p class="hint">{escape(words)}</p>'
