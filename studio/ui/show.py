"""Session -> what changes on which component. Pure but for asking whether the Hub answers; handles no events."""

from collections.abc import Iterable
from html import escape
from typing import Any

import gradio as gr
from gradio.blocks import Block

from studio import hub, source
from studio.jobs import Answers
from studio.plan import group_sizes
from studio.scheme import GROUP_SIZES, Mode
from studio.session import Session
from studio.template import Message
from studio.text import text
from studio.ui import drift, estimate, methods, present
from studio.ui.charts import size_figure
from studio.ui.heatmap import Errors, heatmap
from studio.ui.page import Page

Updates = dict[Block, Any]
Bubble = dict[str, str]
"""``{"role": "user", "content": "…"}``"""


def dynamic(page: Page, session: Session, language: str) -> Updates:
    """Return everything that follows from the session's model, plan and compressed copy."""
    plan, choice = session.plan, session.choice
    found = present.weight_errors(session)
    fitting: tuple[int, ...] = GROUP_SIZES
    if session.checkpoint is not None and choice.misfit == "error":
        fitting = group_sizes(session.checkpoint.layers)
    grouped, mixable = choice.mode.is_grouped, choice.mode.is_mixable
    shown: Updates = {
        page.model.facts: present.model_facts(session, language),
        page.model.strip: present.strip(session, found, language),
        page.plan.group_size: gr.update(
            choices=present.group_choices(fitting, language),
            interactive=grouped,
            info=present.group_info(session, fitting, language),
        ),
        page.plan.ratio: gr.update(interactive=mixable),
        page.plan.backup: gr.update(choices=present.backup_choices(language, choice.mode), interactive=mixable),
        page.plan.all_layers: gr.update(interactive=mixable),
        page.plan.method: gr.update(
            choices=methods.method_choices(language, session),
            interactive=choice.mode.bits < 8,
            info=methods.method_info(session, language),
        ),
        page.plan.calibration: gr.update(visible=choice.method.needs_inputs and choice.mode.bits < 8),
        page.plan.undo: gr.update(interactive=session.can_undo),
        page.chat.compressed: gr.update(
            label=compressed_label(session, language),
            placeholder=text("chat.nothing_compressed" if session.folder is None else "chat.ready", language),
        ),
        page.export.summary: present.export_summary(session, language),
        page.export.button: gr.update(interactive=session.folder is not None),
    }
    if plan is None:
        return shown
    return shown | {
        **_map(page, session, found, language),
        page.map.table: present.layer_table(plan, found, language, estimate.estimates(session, found)),
        page.map.pins: present.pins(plan, language),
        page.map.unpin: gr.update(interactive=bool(choice.pins)),
        page.sizes.plot: size_figure(plan, language),
        page.sizes.legend: present.size_legend(plan, language),
        page.sizes.distribution: present.distribution_table(plan, language),
    }


def controls(page: Page, session: Session) -> Updates:
    """Return the controls of the plan as the session's choice has them.

    Not part of :func:`dynamic`: an answer to one move must not set back what the visitor has moved since.
    """
    choice = session.choice
    return {
        page.plan.mode: gr.update(value=choice.mode.value),
        page.plan.group_size: gr.update(value=choice.group_size),
        page.plan.ratio: gr.update(value=choice.ratio),
        page.plan.backup: gr.update(value=backup_name(choice.backup)),
        page.plan.misfit: gr.update(value=choice.misfit),
        page.plan.all_layers: gr.update(value=choice.all_layers),
        page.plan.method: gr.update(value=choice.method.value),
    }


def backup_name(backup: Mode | None) -> str:
    """Return what a backup is called among the choices."""
    return "none" if backup is None else backup.value


def map_of(page: Page, session: Session, language: str) -> Updates:
    """Return the map in the colour the visitor picked, its legend, and the figures that fill in with it."""
    found = present.weight_errors(session)
    return _map(page, session, found, language) | {page.model.strip: present.strip(session, found, language)}


def _map(page: Page, session: Session, found: Errors | None, language: str) -> Updates:
    plan, colour = session.plan, session.colour
    if plan is None:
        return {}
    errors = present.errors_on_show(session, found, colour)
    guessed = estimate.estimates(session, found) if colour == "weight" else {}
    legend = present.map_legend(plan, colour, errors, language, guessed) + estimate.needs_whole(session, language)
    is_offered = session.is_sampling or estimate.is_offered(session, found)
    offer = gr.update(visible=is_offered, interactive=not session.is_sampling, value=estimate.offer(session, language))
    return {
        page.map.legend: legend,
        page.map.grid: heatmap(plan, errors, language, guessed),
        page.map.estimate: offer,
        page.map.halt: gr.update(visible=session.is_sampling),
    }


def merged(*parts: Updates) -> Updates:
    """Return all updates as one; of one component the properties are joined, the later ones winning."""
    whole: Updates = {}
    for part in parts:
        for component, change in part.items():
            before = whole.get(component)
            both = isinstance(before, dict) and isinstance(change, dict)
            whole[component] = {**before, **change} if both else change  # type: ignore[dict-item]
    return whole


def resting(page: Page, session: Session) -> Updates:
    """Return the buttons as they are while nothing runs."""
    return {
        page.plan.compress: gr.update(interactive=True),
        page.plan.cancel: gr.update(interactive=False),
        page.chat.send: gr.update(interactive=True),
        page.chat.stop: gr.update(interactive=False),
        page.export.button: gr.update(interactive=session.folder is not None),
    }


def conversation(page: Page, session: Session, language: str) -> Updates:
    """Return both columns as the session remembers them, without figures of an answer."""
    original, compressed = (bubbles(said) for said in session.conversations)
    return {
        page.chat.original: original,
        page.chat.compressed: gr.update(value=compressed, label=compressed_label(session, language)),
        page.chat.original_stats: "",
        page.chat.compressed_stats: "",
    }


def compressed_label(session: Session, language: str) -> str:
    """Return the compressed column's heading, with the scheme that answers in it."""
    if session.compressed is None:
        return text("chat.compressed", language)
    return text("chat.compressed_scheme", language, scheme=session.compressed.plan.choice.primary)


def model_choices(language: str) -> list[tuple[str, str]]:
    """Return the models to start with: the built-in one, and small ones on the Hub."""
    return [(text("model.builtin", language), source.BUILTIN)] + [(name, name) for name in source.SUGGESTIONS]


def answers(page: Page, before: list[list[Bubble]], prompt: str, given: Answers, language: str) -> Updates:
    """Return both columns with the turn that is being answered, and each answer's figures."""
    chat = page.chat
    columns = ((chat.original, chat.original_stats), (chat.compressed, chat.compressed_stats))
    shown: Updates = {}
    for i, reply in enumerate(given.replies):
        column, line = columns[i]
        said = bubbles([{"role": "user", "content": prompt}, {"role": "assistant", "content": reply.text}])
        shown[column] = before[i] + (said if reply.text else said[:1])
        shown[line] = present.stats(reply, given.weight_bytes[i], given.is_slow[i], language)
    return shown


def bubbles(said: Iterable[Message]) -> list[Bubble]:
    """Return a conversation as the chat component takes it.

    It takes HTML, also with its Markdown switched off; escaped, what a model or a visitor wrote is shown as it is and
    can neither draw over the page nor make the browser fetch anything.
    """
    return [{"role": turn["role"], "content": escape(turn["content"], quote=False)} for turn in said]


def no_file(page: Page) -> Updates:
    """Return what takes back the file made for a copy that is no longer the one on show."""
    return {page.export.progress: "", page.export.file: gr.update(visible=False, value=None)}


def spoken(page: Page, session: Session, language: str) -> Updates:
    """Return every text of the page in ``language``; what a visitor typed stays."""
    model = gr.update(choices=model_choices(language), info=model_info(language))
    lost = drift.measured(page.drift, session, language) | {page.drift.progress: ""}
    return merged(page.words.updates(language), dynamic(page, session, language), lost, {page.model.name: model})


def model_info(language: str) -> str:
    """Return how a model is picked here: by searching the Hub, where it answers."""
    return text("model.info" if hub.reachable() else "model.info_offline", language)


def planned(page: Page) -> list[Block]:
    """Return the components that a change of plan may change: fewer than all, for each costs the browser a look."""
    controls = (page.plan.group_size, page.plan.ratio, page.plan.backup, page.plan.all_layers, page.plan.undo)
    rounding = (page.plan.method, page.plan.calibration)
    map_ = (page.map.legend, page.map.grid, page.map.table, page.map.pins, page.map.unpin, page.map.card)
    sample = (page.map.estimate, page.map.halt)
    sizes = (page.sizes.plot, page.sizes.legend, page.sizes.distribution)
    return [
        page.model.facts, page.model.strip, page.model.notice, page.plan.progress, *controls, *rounding, *map_, *sample,
        *sizes, page.chat.compressed, page.export.summary, page.export.button,
    ]  # fmt: skip


def components(page: Page) -> list[Block]:
    """Return every component a handler may change."""
    listed: dict[Block, None] = dict.fromkeys([page.session, *page.words.components])
    for panel in (page.header, page.model, page.drift, page.plan, page.map, page.chat, page.sizes, page.export):
        listed.update(dict.fromkeys(vars(panel).values()))
    return list(listed)
