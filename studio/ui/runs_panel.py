"""The front of size against loss, and the table of what was made. Components alone; wires no events."""

from collections.abc import Callable
from dataclasses import dataclass

import gradio as gr

from studio.base.text import text
from studio.ui.localized import Wording, Words, explained
from studio.ui.scripts import PICK_POINT, PICK_RUN

MAX_NAME = 400
"""Characters."""


@dataclass(frozen=True)
class FrontPanel:
    chart: gr.Plot
    picked: gr.HTML
    """Not seen; says which point of the chart was clicked."""
    other: gr.Textbox
    """Names a file that others made of the model."""
    judge: gr.Button
    halt: gr.Button
    notice: gr.HTML


@dataclass(frozen=True)
class RunsPanel:
    table: gr.HTML
    notice: gr.HTML
    comparison: gr.HTML
    recipe: gr.UploadButton
    """Takes a recipe.json, whose model and choices are then the page's."""
    picture: gr.Button
    drawn: gr.JSON
    """Not seen; the picture to share, for the browser to make a file of."""


def front_panel(words: Words) -> FrontPanel:
    """Size against loss: presets, runs, the machine's limit."""
    with gr.Column(elem_id="front"):
        words.on(gr.HTML, {"value": explained("front.heading")})
        chart = gr.Plot(elem_id="front-chart", show_label=False, container=False)
        picked = gr.HTML(elem_id="front-picked", js_on_load=PICK_POINT)
        words.on(gr.HTML, {"value": hint("front.hint")})
        with words.on(gr.Accordion, {"label": "front.judge_heading"}, open=False, elem_id="judging"):
            labels: dict[str, Wording] = {"label": "front.judge_label", "info": "front.judge_info"}
            other = words.on(gr.Textbox, labels, elem_id="judge-name", max_length=MAX_NAME)
            with gr.Row(elem_classes="tight"):
                judge = words.on(gr.Button, {"value": "front.judge"}, elem_id="judge", size="sm", scale=3)
                halt = words.on(
                    gr.Button, {"value": "make.cancel"}, interactive=False, elem_id="halt-judge", size="sm", scale=1
                )
            notice = gr.HTML(elem_id="judge-notice")
    return FrontPanel(chart, picked, other, judge, halt, notice)


def runs_panel(words: Words) -> RunsPanel:
    """What was made so far."""
    with gr.Column(elem_id="runs"):
        words.on(gr.HTML, {"value": explained("runs.heading")})
        table = gr.HTML(elem_id="runs-table", js_on_load=PICK_RUN)
        notice = gr.HTML(elem_id="runs-notice")
        comparison = gr.HTML(elem_id="comparison")
        words.on(gr.HTML, {"value": hint("runs.recipe_info")})
        recipe = words.on(
            gr.UploadButton, {"label": "runs.recipe"}, elem_id="open-recipe", file_types=[".json"], size="sm"
        )
        words.on(gr.HTML, {"value": hint("share.info")})
        picture = words.on(gr.Button, {"value": "share.button"}, elem_id="share", size="sm")
        drawn = gr.JSON(visible=False)
    return RunsPanel(table, notice, comparison, recipe, picture, drawn)


def hint(key: str) -> Callable[[str], str]:
    """Return a line of small words as HTML, as a function of the language."""
    return lambda language: f'<p class="hint">{text(key, language)}</p>'
