"""Download and run: a tab for each program, what it makes of the plan, what to type, the file. Wires no events."""

from dataclasses import dataclass

import gradio as gr

from studio.export import runners
from studio.ui import login
from studio.ui.decision_panel import program_choices
from studio.ui.in_browser import ANSWER
from studio.ui.localized import Words, explained
from studio.ui.scripts import NEWEST

MAX_PROMPT = 10_000
"""Characters of a message that the visitor's own browser answers."""


@dataclass(frozen=True)
class TakePanel:
    program: gr.Radio
    reads: gr.HTML
    """Whether the program reads the plan, what that becomes there, and what to type."""
    others: gr.Accordion
    """Closed at first; what is in it is found out once it opens."""
    table: gr.HTML
    """What every program makes of the plan."""
    switch: gr.Button
    """Makes the plan one that the program reads."""
    button: gr.Button
    file: gr.DownloadButton
    verify: gr.Button
    progress: gr.HTML
    verified: gr.HTML
    repo: gr.Textbox
    is_public: gr.Checkbox
    is_existing: gr.Checkbox
    push: gr.Button
    stop_push: gr.Button
    pushed: gr.HTML
    prompt: gr.Textbox
    in_browser: gr.Button
    """Has the visitor's own browser answer."""
    in_browser_progress: gr.HTML
    asked: gr.JSON
    """Not seen; what the browser is asked."""
    summary: gr.HTML


def take_panel(words: Words) -> TakePanel:
    """What can be taken along."""
    with gr.Column(elem_id="export"):
        words.on(gr.HTML, {"value": explained("export.heading")})
        program = words.on(
            gr.Radio,
            {"label": "decision.program", "choices": program_choices},
            value=runners.DEFAULT,
            elem_id="programs",
            container=False,
        )
        reads = gr.HTML(elem_id="reads", js_on_load=NEWEST)
        with words.on(gr.Accordion, {"label": "export.others"}, open=False, elem_id="others") as others:
            table = gr.HTML(elem_id="others-table")
        with gr.Row(elem_classes="tight"):
            switch = words.on(
                gr.Button, {"value": "export.switch"}, visible=False, elem_id="switch-plan", min_width=150
            )
            button = words.on(
                gr.Button, {"value": "export.button"}, variant="primary", interactive=False, elem_id="export-button"
            )
            file = words.on(gr.DownloadButton, {"label": "export.file"}, visible=False, elem_id="export-file")
            verify = words.on(gr.Button, {"value": "export.verify"}, visible=False, elem_id="verify", min_width=120)
        progress = gr.HTML(elem_id="export-progress")
        verified = gr.HTML(elem_id="verified")
        with words.on(
            gr.Accordion, {"label": "export.push_heading"}, open=False, elem_id="push-panel", visible=login.can_push()
        ):
            if login.has_login():
                gr.LoginButton(size="md")  # in the Hub's words, of which a script of its own makes those of the visitor
            repo = words.on(
                gr.Textbox, {"label": "export.repo", "info": "export.repo_info"}, placeholder="owner/name",
                elem_id="repo", max_length=200,
            )  # fmt: skip
            with gr.Row(elem_classes="tight"):
                public = words.on(gr.Checkbox, {"label": "export.public"}, elem_id="push-public", min_width=160)
                existing = words.on(gr.Checkbox, {"label": "export.existing"}, elem_id="push-existing", min_width=160)
            with gr.Row(elem_classes="tight"):
                push = words.on(gr.Button, {"value": "export.push"}, elem_id="push", min_width=120)
                stop = words.on(
                    gr.Button, {"value": "export.stop_push"}, interactive=False, elem_id="stop-push", min_width=120
                )
            pushed = gr.HTML(elem_id="pushed")
        with words.on(gr.Accordion, {"label": "export.in_browser"}, open=False, elem_id="in-browser-panel"):
            prompt = words.on(
                gr.Textbox,
                {"label": "chat.prompt", "info": "export.in_browser_info", "value": "chat.prompt_example"},
                elem_id="in-browser-prompt",
                max_length=MAX_PROMPT,
            )
            in_browser = words.on(gr.Button, {"value": "export.in_browser_answer"}, elem_id="in-browser", min_width=120)
            in_browser_progress = gr.HTML(elem_id="in-browser-progress")
            gr.HTML(ANSWER)
            asked = gr.JSON(visible=False)
        summary = gr.HTML(elem_id="export-summary")
    return TakePanel(
        program, reads, others, table, switch, button, file, verify, progress, verified, repo, public, existing, push,
        stop, pushed, prompt, in_browser, in_browser_progress, asked, summary,
    )  # fmt: skip
