"""The wiring of all events, in one place. Decides nothing."""

import functools
from collections.abc import Callable, Iterable
from typing import Any

import gradio as gr

from studio.ui import decision_updates, login, updates
from studio.ui.chat_handlers import ChatHandlers
from studio.ui.controls import TYPED
from studio.ui.decision_handlers import DecisionHandlers
from studio.ui.drift_handlers import DriftHandlers
from studio.ui.handlers import Handlers
from studio.ui.in_browser import SCRIPT as IN_BROWSER
from studio.ui.page import Page
from studio.ui.presence import PRESENCE
from studio.ui.push_handlers import PushHandlers
from studio.ui.scripts import ADDRESS, FOCUS, MENUS, NAMES, PROJECTOR, RADIOS, SAVE, SHARE, WIDE

CHATS = 8
"""Answers given at once, in a lane of their own: none waits for what is long. A step of one has the whole machine."""
WORKERS = 16
"""Visitors who compress, make, export or verify, and as many who measure drift: most of them wait for a place, and are
told where they stand (``base/fair_turns.py``)."""
MEASURERS = 8
"""Visitors whose models are measured in turns; the others wait in line."""
THREADS = CHATS + 2 * WORKERS + MEASURERS + 32
"""Of Gradio: one for each of these, and some for what is quick."""


def wire(page: Page, blocks: gr.Blocks) -> None:
    """Attach every handler to its component."""
    who = [page.session, page.header.language]
    plan, chat = page.plan, page.chat
    sampling = [
        chat.system, chat.kv_bits, chat.max_new_tokens, chat.temperature, chat.top_p, chat.top_k,
        chat.repetition_penalty, chat.seed,
    ]  # fmt: skip
    do = Handlers(page)
    everything, moving = updates.components(page), updates.moving(page)
    quick: dict[str, Any] = {
        "concurrency_limit": None,
        "api_visibility": "private",
        "show_progress": "hidden",
        # Gradio tells every output of an event of its every stage, hidden or not; this one is not drawn.
        "show_progress_on": page.session,
        "queue": True,
    }
    last = quick | {"trigger_mode": "always_last"}
    slow = quick | {"concurrency_limit": WORKERS, "concurrency_id": "work"}
    talking = quick | {"concurrency_limit": CHATS, "concurrency_id": "chat"}

    # Without the queue, which looks for work twenty times a second and answers in three messages.
    instant = last | {"queue": False}
    headers = quick | {"concurrency_limit": 12, "concurrency_id": "headers"}

    def on(trigger: Callable[..., Any], handler: Callable[..., Any], inputs: list[Any], how: dict[str, Any]) -> Any:
        return trigger(handler, inputs=inputs, outputs=everything, **how)

    decide = DecisionHandlers(page)
    loaded = on(blocks.load, do.visit_as if login.has_login() else do.visit, [], quick)
    recalled = loaded.then(decide.recall, [*who, page.kept], everything, **quick)
    recalled.then(do.open_model, [*who, page.model.name], everything, **headers)
    for script in (MENUS, NAMES, RADIOS, FOCUS):
        blocks.load(None, js=script, api_visibility="private")
    on(page.header.language.input, do.speak, who, quick)
    page.header.language.change(
        None,
        inputs=[page.header.language],
        js="(language) => { document.documentElement.lang = language }",
        api_visibility="private",
    )
    page.header.theme.click(None, js="() => document.body.classList.toggle('dark')", api_visibility="private")

    page.header.projector.click(None, js=PROJECTOR, api_visibility="private")
    page.chat.wide.click(None, js=WIDE, api_visibility="private")

    newest = headers | {"trigger_mode": "always_last"}
    on(page.model.name.input, do.open_model, [*who, page.model.name], newest)
    page.model.name.key_up(do.suggest, [page.header.language], page.model.name, **last)

    # One listener for all: two of them could answer in the wrong order, and the older figures would stay.
    # A dropdown says twice that something was picked, and once that it was left.
    moved = [each.blur if name in TYPED else each.input for name, each in plan.controls.items()]
    gr.on(moved, at_once(do.choose), inputs=who, inputs_kwargs=plan.controls, outputs=moving, **instant)
    on(page.map.colour.input, do.paint, [*who, page.map.colour], last)
    far = quick | {"concurrency_limit": 4, "concurrency_id": "sample"}
    page.map.estimate.click(do.estimate, who, moving, **far)
    on(page.map.halt.click, do.halt, who, quick)
    for map_ in (page.map.grid, page.map.legend):
        on(map_.click, do.pick, who, last)
    on(page.map.layer.input, do.describe, [*who, page.map.layer], last)
    for button, handler, inputs in (
        (page.map.pin, do.pin, [*who, page.map.layer, page.map.scheme]),
        (page.map.unpin, do.unpin, who),
        (plan.undo, do.undo, who),
    ):
        on(button.click, handler, inputs, quick)
    # Not after each of these: mostly nothing is missing. What is asked for while it measures comes after that.
    measuring = last | {"concurrency_limit": MEASURERS, "concurrency_id": "measure"}
    page.missing.change(do.measure, who, moving, **measuring)
    pressed = on(plan.compress.click, do.queue_compress, who, quick)
    pressed.then(do.compress, who, everything, **slow)
    on(plan.cancel.click, do.cancel, who, quick)

    lost = DriftHandlers(page)
    asked = on(page.drift.measure.click, lost.queue_drift, who, quick)
    shown = [*vars(page.drift).values(), *decision_updates.measured_parts(page)]
    asked.then(lost.measure_drift, who, shown, **slow | {"concurrency_id": "drift"})
    on(page.drift.stop.click, lost.stop_drift, who, quick)
    front = page.front
    asked = on(front.judge.click, lost.queue_judge, who, quick)
    judged = [front.judge, front.halt, front.notice, front.chart]
    asked.then(lost.judge, [*who, front.other], judged, **slow | {"concurrency_id": "drift"})
    on(front.halt.click, lost.stop_judge, who, quick)
    for kind, pick, box, take, dataset, fetch in (
        (
            plan.reads,
            lost.pick_calibration,
            plan.calibration,
            lost.take_calibration,
            plan.dataset,
            lost.fetch_calibration,
        ),
        (page.drift.reads, lost.pick_text, page.drift.text, lost.take_text, page.drift.dataset, lost.fetch_text),
    ):
        on(kind.input, pick, [*who, kind], quick)
        for taken in (box.upload, box.clear):
            on(taken, take, [*who, box], quick)
        on(dataset.submit, fetch, [*who, dataset], headers)

    said = ChatHandlers(page)
    for trigger in (chat.send.click, chat.prompt.submit):
        sent = on(trigger, said.queue_talk, who, quick)
        answered = sent.then(said.talk, [*who, chat.prompt, *sampling], everything, **talking)
        answered.then(said.empty, [*who, chat.prompt], [page.model.notice, chat.prompt, chat.notice], **quick)
    again = on(chat.regenerate.click, said.queue_talk, who, quick)
    again.then(said.regenerate, [*who, chat.prompt, *sampling], everything, **talking)
    on(chat.edit.click, said.edit, who, quick).then(
        None, js="() => document.querySelector('#prompt textarea')?.focus()", api_visibility="private"
    )
    on(chat.how_fast.expand, said.look_at_speed, who, quick)
    on(chat.how_fast.collapse, said.leave_speed, who, quick)
    on(chat.stop.click, said.stop, who, quick)
    on(chat.clear.click, said.clear, who, quick)

    where = page.where
    settled = [where.host.input, where.context.input, where.memory.input, where.bandwidth.input]
    asked_for = [*who, where.host, where.memory, where.bandwidth, where.context]
    gr.on(settled, decide.settle, inputs=asked_for, outputs=everything, **last)
    for program in (where.program, page.export.program):
        on(program.input, decide.run_in, [*who, program], last)
    on(page.presets.preset.input, decide.take_preset, [*who, page.presets.preset], last)
    on(page.export.switch.click, decide.switch_plan, who, quick)
    for place in (page.front.picked.click, page.runs.table.click):
        on(place, decide.load_plan, who, last)
    ticks = [page.runs.table, page.runs.comparison, page.runs.notice]
    page.runs.table.select(decide.tick_run, who, ticks, **last)
    on(page.runs.recipe.upload, do.open_recipe, [*who, page.runs.recipe], headers)
    drawn = page.runs.picture.click(decide.draw_picture, who, [page.runs.drawn, page.runs.notice], **quick)
    drawn.then(None, inputs=[page.runs.drawn], js=SHARE, api_visibility="private")
    making = on(page.presets.make.click, decide.queue_make, who, quick)
    making.then(decide.make, who, [*vars(page.presets).values(), page.samples], **slow).then(
        decide.made, who, everything, **quick
    )
    on(page.presets.stop.click, decide.stop_make, who, quick)
    on(page.export.others.expand, decide.look_at_others, who, quick)
    on(page.export.others.collapse, decide.leave_others, who, quick)
    on(page.export.verify.click, decide.verify, who, slow)
    page.visit.change(None, inputs=[page.visit], js=PRESENCE, api_visibility="private")
    sent = PushHandlers(page)
    asked = [*who, page.export.repo, page.export.is_public, page.export.is_existing]
    sending = quick | {"concurrency_limit": 4, "concurrency_id": "push"}
    on(page.export.push.click, sent.push_as if login.has_login() else sent.push, asked, sending)
    on(page.export.stop_push.click, sent.stop_push, who, quick)
    answered_there = on(page.export.in_browser.click, decide.answer_in_browser, [*who, page.export.prompt], slow)
    answered_there.then(None, inputs=[page.export.asked], js=IN_BROWSER, api_visibility="private")
    page.address.change(None, inputs=[page.address], js=ADDRESS, api_visibility="private")

    exported = on(page.export.button.click, do.export, who, slow)
    exported.success(
        None,
        inputs=[page.export.file],
        js=SAVE,
        api_visibility="private",
    )


def at_once(handler: Callable[..., Iterable[updates.Updates]]) -> Callable[..., updates.Updates]:
    """Return a handler's updates as one answer, which is what an event without the queue takes."""

    @functools.wraps(handler)
    def answer(*inputs: Any, **named: Any) -> updates.Updates:
        return updates.merged(*handler(*inputs, **named))

    return answer
