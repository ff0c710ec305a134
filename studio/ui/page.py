"""The page as a whole: where each panel stands. On a phone the style sheet reorders them. Decides nothing else."""

from dataclasses import dataclass

import gradio as gr

from studio.base.text import DEFAULT, text
from studio.ui import panels
from studio.ui.chat_panel import ChatPanel, chat_panel
from studio.ui.decision_panel import DecisionPanel, PresetPanel, preset_panel
from studio.ui.drift_panel import DriftPanel, drift_panel
from studio.ui.frugal_blocks import FrugalBlocks
from studio.ui.localized import Words, explained
from studio.ui.plan_panel import PlanPanel, plan_panel
from studio.ui.runs_panel import FrontPanel, RunsPanel, front_panel, runs_panel
from studio.ui.take_panel import TakePanel, take_panel


@dataclass(frozen=True)
class Page:
    """Every component of the page that an event reads or writes."""

    words: Words
    session: gr.State
    missing: gr.Number
    """Not seen; a new number in it has the figures measured that the plan asks for and nobody has measured yet."""
    kept: gr.BrowserState
    """What the browser remembers from one visit to the next: where models are to run, and the key of the runs."""
    address: gr.JSON
    """Not seen; what the page's address is to say of the choices."""
    visit: gr.JSON
    """Not seen; the key under which the page asks whether it is still known."""
    header: panels.Header
    model: panels.ModelPanel
    where: DecisionPanel
    presets: PresetPanel
    samples: gr.HTML
    front: FrontPanel
    drift: DriftPanel
    plan: PlanPanel
    map: panels.MapPanel
    chat: ChatPanel
    sizes: panels.SizePanel
    export: TakePanel
    runs: RunsPanel


def build() -> tuple[gr.Blocks, Page]:
    """Return the page with its components."""
    words = Words()
    with FrugalBlocks(title=text("page.title", DEFAULT), analytics_enabled=False) as blocks:
        session = gr.State(value=None)
        missing = gr.Number(value=0, visible=False)
        kept = gr.BrowserState({}, storage_key="studio", secret="studio")
        address = gr.JSON(visible=False)
        visit = gr.JSON(visible=False)
        header = panels.header(words)
        model, where = panels.model_panel(words)
        with gr.Row(elem_id="surface"):
            with gr.Column(elem_id="left", scale=1, min_width=320):
                presets = preset_panel(words)
                plan = plan_panel(words)
                front = front_panel(words)
                map_ = panels.map_panel(words)
                sizes = panels.size_panel(words)
            with gr.Column(elem_id="right", scale=1, min_width=320):
                samples, drift = _answers(words)
                export = take_panel(words)
                chat = chat_panel(words)
        runs = runs_panel(words)
        page = Page(
            words, session, missing, kept, address, visit, header, model, where, presets, samples, front, drift, plan,
            map_, chat, sizes, export, runs,
        )  # fmt: skip
    return blocks, page


def _answers(words: Words) -> tuple[gr.HTML, DriftPanel]:
    """The sample questions answered side by side, and what was measured of the copy."""
    with gr.Column(elem_id="answers"):
        words.on(gr.HTML, {"value": explained("samples.heading")})
        samples = gr.HTML(elem_id="samples")
        drift = drift_panel(words)
    return samples, drift
