"""The wiring of all events, in one place."""

from collections.abc import Callable
from typing import Any

import gradio as gr

from studio.ui import show
from studio.ui.handlers import Handlers
from studio.ui.page import Page

WORK = "work"
"""Loading, compressing, chatting and exporting wait for each other: they share one machine."""


def wire(page: Page, blocks: gr.Blocks) -> None:
    """Attach every handler to its component."""
    who = [page.session, page.header.language]
    plan, chat = page.plan, page.chat
    choices: list[Any] = [plan.mode, plan.group_size, plan.ratio, plan.backup, plan.misfit, plan.all_layers]
    sampling = [
        chat.max_new_tokens, chat.temperature, chat.top_p, chat.top_k, chat.repetition_penalty, chat.seed,
    ]  # fmt: skip
    do = Handlers(page)
    everything = show.components(page)
    quick: dict[str, Any] = {
        "concurrency_limit": None,
        "api_visibility": "private",
        "show_progress": "hidden",
        "queue": True,
    }
    last = quick | {"trigger_mode": "always_last"}
    slow = quick | {"concurrency_limit": 1, "concurrency_id": WORK}

    # What is asked for while a measurement runs is not lost: the newest comes after it.
    measuring = last | {"concurrency_limit": 1, "concurrency_id": "measure"}
    headers = quick | {"concurrency_limit": 4, "concurrency_id": "headers"}

    def on(trigger: Callable[..., Any], handler: Callable[..., Any], inputs: list[Any], how: dict[str, Any]) -> Any:
        return trigger(handler, inputs=inputs, outputs=everything, **how)

    loaded = on(blocks.load, do.visit, [], quick)
    opened = loaded.then(do.open_model, [*who, page.model.name], everything, **headers)
    opened.then(do.survey, who, everything, **measuring)
    on(page.header.language.input, do.speak, who, quick)
    page.header.language.change(
        None,
        inputs=[page.header.language],
        js="(language) => { document.documentElement.lang = language }",
        api_visibility="private",
    )
    page.header.theme.click(None, js="() => document.body.classList.toggle('dark')", api_visibility="private")

    newest = headers | {"trigger_mode": "always_last"}
    picked = on(page.model.name.input, do.open_model, [*who, page.model.name], newest)
    picked.then(do.survey, who, everything, **measuring)
    page.model.name.key_up(do.suggest, [page.header.language], page.model.name, **last)

    # One listener for all: two of them could answer in the wrong order, and the older figures would stay.
    moved = [control.input for control in choices]
    planned = gr.on(moved, do.choose, inputs=[*who, *choices], outputs=everything, **last)
    # A mode seldom chosen is measured when it is.
    surveyed = planned.then(do.survey, who, everything, **measuring)
    surveyed.then(do.outputs, [*who, page.map.layer], everything, **measuring)
    on(page.map.colour.input, do.paint, [*who, page.map.colour], last).then(
        do.outputs, [*who, page.map.layer], everything, **measuring
    )
    for map_ in (page.map.grid, page.map.legend):
        on(map_.click, do.pick, who, last)
    on(page.map.layer.input, do.describe, [*who, page.map.layer], last)
    for button, handler, inputs in (
        (page.map.pin, do.pin, [*who, page.map.layer, page.map.scheme]),
        (page.map.unpin, do.unpin, who),
        (plan.undo, do.undo, who),
    ):
        on(button.click, handler, inputs, quick).then(do.survey, who, everything, **measuring)
    pressed = on(plan.compress.click, do.queue_compress, who, quick)
    compressed = pressed.then(do.compress, who, everything, **slow)
    compressed.then(do.survey, who, everything, **measuring)  # of a model that was fetched just now
    on(plan.cancel.click, do.cancel, who, quick)

    for trigger in (chat.send.click, chat.prompt.submit):
        sent = on(trigger, do.queue_talk, who, quick)
        sent.then(do.talk, [*who, chat.prompt, chat.system, *sampling], everything, **slow)
    on(chat.stop.click, do.stop, who, quick)
    on(chat.clear.click, do.clear, who, quick)

    exported = on(page.export.button.click, do.export, who, slow)
    exported.success(
        None,
        inputs=[page.export.file],
        js="(file) => { if (file) setTimeout(() => document.querySelector('#export-file')?.click(), 100) }",
        api_visibility="private",
    )
