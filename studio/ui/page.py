"""The page as a whole: where each panel stands. On a phone the style sheet reorders them. Decides nothing else."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import gradio as gr

from studio.base.text import DEFAULT, text
from studio.ui import panels
from studio.ui.chat_panel import ChatPanel, chat_panel
from studio.ui.drift_panel import DriftPanel, drift_panel
from studio.ui.localized import Words
from studio.ui.plan_panel import PlanPanel, plan_panel


@dataclass(frozen=True)
class Page:
    """Every component of the page that an event reads or writes."""

    words: Words
    session: gr.State
    missing: gr.Number
    """Not seen; a new number in it has the figures measured that the plan asks for and nobody has measured yet."""
    header: panels.Header
    model: panels.ModelPanel
    drift: DriftPanel
    plan: PlanPanel
    map: panels.MapPanel
    chat: ChatPanel
    sizes: panels.SizePanel
    export: panels.ExportPanel


def build(close: Callable[[Any], None]) -> tuple[gr.Blocks, Page]:
    """Return the page with its components; ``close`` is called with the session of a visitor who left."""
    words = Words()
    with gr.Blocks(title=text("page.title", DEFAULT), analytics_enabled=False) as blocks:
        session = gr.State(value=None, delete_callback=close)  # Gradio lets it go an hour after the tab
        missing = gr.Number(value=0, visible=False)
        header = panels.header(words)
        model = panels.model_panel(words)
        drift = drift_panel(words)
        with gr.Row(elem_id="surface"):
            with gr.Column(elem_id="left", scale=1, min_width=320):
                plan = plan_panel(words)
                map_ = panels.map_panel(words)
                sizes = panels.size_panel(words)
            with gr.Column(elem_id="right", scale=1, min_width=320):
                chat = chat_panel(words)
                export = panels.export_panel(words)
        page = Page(words, session, missing, header, model, drift, plan, map_, chat, sizes, export)
    return blocks, page
