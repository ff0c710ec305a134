"""The panel of the plan: a control for everything that can be chosen, and the button that carries it out.

Wires no events.
"""

from collections.abc import Sequence
from contextlib import nullcontext
from dataclasses import dataclass

import gradio as gr

from studio.ui.controls import CONTROLLED, Controls, control
from studio.ui.localized import Words, explained
from studio.ui.text_picker import CALIBRATION, text_choice

ROWS = (("mode", "group_size"), ("ratio", "backup"), ("method",))
"""The controls in sight, in the order of the page; all others are behind "More choices"."""


@dataclass(frozen=True)
class PlanPanel:
    """Components of the plan."""

    box: gr.Column
    """There for a plan of one's own."""
    controls: Controls
    """By the name of the field of a choice that each sets."""
    reading: gr.Column
    """All that chooses the calibration text; there for methods that read one."""
    reads: gr.Radio
    calibration: gr.File
    dataset: gr.Textbox
    undo: gr.Button
    compress: gr.Button
    cancel: gr.Button
    progress: gr.HTML


def plan_panel(words: Words) -> PlanPanel:
    """The choices, and the button that carries them out."""
    controls: Controls = {}
    with gr.Column(elem_id="plan", visible=False) as box:
        words.on(gr.HTML, {"value": explained("plan.heading")})
        for names in ROWS:
            controls |= _row(words, names)
        with gr.Column(visible=False, elem_id="calibration-text", elem_classes="bare") as reading:
            reads, calibration, dataset = text_choice(words, CALIBRATION, "calibration")
        with words.on(gr.Accordion, {"label": "plan.more"}, open=False):
            more = [name for name in CONTROLLED if name not in controls]
            for first in range(0, len(more), 2):
                controls |= _row(words, more[first : first + 2])
        with gr.Row(elem_classes="tight"):
            compress = words.on(gr.Button, {"value": "plan.compress"}, variant="primary", elem_id="compress", scale=3)
            undo = words.on(gr.Button, {"value": "plan.undo"}, interactive=False, elem_id="undo", scale=1)
            cancel = words.on(gr.Button, {"value": "plan.cancel"}, interactive=False, elem_id="cancel", scale=1)
        progress = gr.HTML(elem_id="progress")
    return PlanPanel(box, controls, reading, reads, calibration, dataset, undo, compress, cancel, progress)


def _row(words: Words, names: Sequence[str]) -> Controls:
    """Return the controls of these fields, side by side."""
    with gr.Row(elem_classes="tight") if len(names) > 1 else nullcontext():
        return {name: control(words, name) for name in names}
