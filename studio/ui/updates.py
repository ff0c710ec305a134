"""Session -> what changes on which component. Pure but for asking whether the Hub answers; handles no events."""

import itertools
from collections.abc import Callable, Sequence
from typing import Any

import gradio as gr
from gradio.blocks import Block

from studio.base.text import text
from studio.chat.conversation import Turn
from studio.checkpoint import open_model
from studio.checkpoint.stored_as import by_type
from studio.planning.choice import OPTIONS, Choice
from studio.planning.figures import FIGURES
from studio.planning.plan import group_sizes
from studio.quantization.scheme import GROUP_SIZES
from studio.session.looked_at import levels_of
from studio.session.session import Session
from studio.ui import answers as talking
from studio.ui import (
    choices,
    decision_updates,
    drift_panel,
    html,
    map_text,
    method_choices,
    present,
    sampled_map,
    understand,
)
from studio.ui.controls import CONTROLLED
from studio.ui.heatmap import Errors, heatmap
from studio.ui.page import Page
from studio.ui.size_chart import size_chart
from studio.ui.weight_chart import levels_hint, weight_chart

Updates = dict[Block, Any]
_ASKED = itertools.count(1)
"""A number that no visitor's page shows yet."""
_TURNS = itertools.count(1)
"""Which of two pictures was begun later, and so shows what the other may not know of."""


def dynamic(page: Page, session: Session, language: str) -> Updates:
    """Return everything that follows from the session's model, plan and compressed copy."""
    whole: Updates = {
        page.model.facts: present.model_facts(session, language),
        page.presets.int4: understand.int4(session, language),
        page.chat.prompt: gr.update(info=present.prompt_info(session, language)),
        page.chat.compressed: compressed_words(session, language),
        page.export.summary: present.export_summary(session, language),
        **decision_updates.samples(page, session, language),
        **decision_updates.runs(page, session, language),
    }
    plan = planned(page, session, language)
    return merged(whole, offered(page, session, language), plan, decision_updates.options(page, session, language))


def made(page: Page, session: Session, language: str) -> Updates:
    """Return the page after a plan was carried out."""
    return merged(
        dynamic(page, session, language),
        conversation(page, session, language),
        no_file(page),
        drift_panel.shown(page.drift, session, language),
        {page.drift.progress: "", page.chat.notice: ""},  # they were said of the copy before it, or of there being none
    )


def offered(page: Page, session: Session, language: str) -> Updates:
    """Return what the controls offer, which follows from the model, the mode and what is done where groups misfit."""
    choice = session.choice
    fitting: tuple[int, ...] = GROUP_SIZES
    if session.checkpoint is not None and choice.group_size_fallback == "error":
        fitting = group_sizes(session.checkpoint.layers)
    controls = page.plan.controls
    in_use: Updates = {controls[name]: gr.update(interactive=applies(choice)) for name, applies in _conditional()}
    offers: Updates = {
        controls["group_size"]: gr.update(
            choices=choices.group_choices(fitting, language), info=choices.group_info(session, fitting, language)
        ),
        controls["backup"]: gr.update(choices=choices.backup_choices(language, choice.mode)),
        controls["method"]: gr.update(
            choices=method_choices.method_choices(language, session),
            info=method_choices.method_info(session, language),
        ),
        page.plan.reading: gr.update(visible=choice.is_calibrated),
    }
    return merged(in_use, offers)


def _conditional() -> list[tuple[str, Callable[[Choice], bool]]]:
    """Return the fields whose control does not always make a difference, with when it does."""
    conditions = ((name, OPTIONS[name].applies) for name in CONTROLLED)
    return [(name, applies) for name, applies in conditions if applies is not None]


def planned(page: Page, session: Session, language: str) -> Updates:
    """Return what follows from the plan: fewer components than all, for each costs the browser a look."""
    return {
        **figures(page, session, language),
        page.plan.undo: gr.update(interactive=session.planner.can_undo),
        page.map.unpin: gr.update(interactive=bool(session.choice.pins)),
        **decision_updates.planned(page, session, language),
        **(levels(page, session, language) if session.selected_layers else {}),
    }


def figures(page: Page, session: Session, language: str) -> Updates:
    """Return every figure of the plan, and no button: what a measurement that ends changes.

    All of it is stamped with its turn, for the answer to a move of a control may overtake that of the measurement which
    it set off.
    """
    turn, plan = next(_TURNS), session.plan
    found = map_text.weight_errors(session)
    shown: Updates = {page.sizes.strip: present.strip(session, found, language)}
    shown |= decision_updates.verdict(page, session, language)
    if plan is not None:
        came = map_text.came_of(session)
        shown |= {
            **_map(page, session, found, language),
            page.map.table: map_text.layer_table(plan, found, language, sampled_map.estimates(session, found), came),
            page.map.pins: map_text.pins(plan, language),
            page.sizes.chart: size_chart(plan, language, by_type(came.values())),
            page.sizes.distribution: map_text.distribution_table(plan, language),
        }
    return _stamped(turn, shown)


def card(page: Page, session: Session, language: str) -> Updates:
    """Return what the layer that the visitor looks at costs in each scheme."""
    turn = next(_TURNS)
    return _stamped(turn, {page.map.card: map_text.layer_card(session, session.selected_layers, language)})


def _stamped(turn: int, pictures: Updates) -> Updates:
    """Return the pictures, each of HTML with the turn that it was begun in."""
    return {
        component: f'{picture}<i hidden data-turn="{turn}"></i>' if isinstance(picture, str) else picture
        for component, picture in pictures.items()
    }


def missing(page: Page, session: Session, language: str) -> Updates:
    """Return what has the missing figures measured, and says so: nothing at all where none is missing."""
    if not session.is_unmeasured:
        return {}
    waits = html.notice(text("stage.in_line", language))
    return {page.missing: next(_ASKED), page.model.measuring: waits}


def controls(page: Page, session: Session) -> Updates:
    """Return the controls of the plan as the session's choice has them.

    Not part of :func:`dynamic`: an answer to one move must not set back what the visitor has moved since.
    """
    words = session.choice.words()
    return {control: gr.update(value=words[name]) for name, control in page.plan.controls.items()}


def map_of(page: Page, session: Session, language: str) -> Updates:
    """Return the map in the colour the visitor picked, its legend, and the figures that fill in with it."""
    turn, found = next(_TURNS), map_text.weight_errors(session)
    shown = _map(page, session, found, language) | {page.sizes.strip: present.strip(session, found, language)}
    return _stamped(turn, shown)


def _map(page: Page, session: Session, found: Errors | None, language: str) -> Updates:
    known, figure = map_text.known_of(session, found), FIGURES[session.map_figure]
    if known is None:
        return {}
    errors = figure.on_map(known)
    guessed = figure.estimates(known)
    as_nearest = errors is not None and map_text.is_as_nearest(session, figure)
    total, is_coming = figure.total(known), session.model.has_figures
    legend = map_text.map_legend(known.plan, figure, errors, language, guessed, as_nearest, total, is_coming)
    legend += sampled_map.needs_whole(session, language)
    is_offered = session.measurements.is_sampling or sampled_map.is_offered(session, found)
    offer = gr.update(
        visible=is_offered, interactive=not session.measurements.is_sampling, value=sampled_map.offer(session, language)
    )
    return {
        page.map.legend: legend,
        page.map.grid: heatmap(known.plan, errors, language, guessed, figure, map_text.came_of(session)),
        page.map.estimate: offer,
        page.map.halt: gr.update(visible=session.measurements.is_sampling),
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


def staleness(session: Session, language: str) -> str:
    """Return what there is to say of a compressed copy that is not the plan's, nothing where it is."""
    is_stale = session.copy.compressed is not None and not session.is_copy_of_choice
    return html.notice(text("plan.stale", language)) if is_stale else ""


def editing(session: Session, language: str) -> str:
    """Return what there is to say while the next message is to take the place of the last one, else nothing."""
    return html.notice(text("chat.editing", language)) if session.conversation.is_editing else ""


def plan_at_rest(page: Page, session: Session) -> Updates:
    """Return the plan's buttons as they are while nothing is compressed."""
    return {page.plan.compress: gr.update(interactive=True), page.plan.cancel: gr.update(interactive=False)}


def chat_at_rest(page: Page, session: Session) -> Updates:
    """Return the chat's buttons as they are while nothing is answered."""
    return {
        page.chat.send: gr.update(interactive=True),
        page.chat.stop: gr.update(interactive=False),
        page.chat.regenerate: gr.update(interactive=session.conversation.last is not None),
        page.chat.edit: gr.update(interactive=session.conversation.last is not None),
    }


def export_at_rest(page: Page, session: Session) -> Updates:
    """Return the button of the one file as it is while none is made."""
    return decision_updates.button(page, session)


def push_at_rest(page: Page) -> Updates:
    """Return the buttons of pushing as they are while nothing is sent."""
    return {page.export.push: gr.update(interactive=True), page.export.stop_push: gr.update(interactive=False)}


def sample_at_rest(page: Page) -> Updates:
    """Return the buttons of the sample as they are while none is drawn."""
    return {page.map.estimate: gr.update(interactive=True), page.map.halt: gr.update(visible=False)}


def conversation(page: Page, session: Session, language: str) -> Updates:
    """Return both columns as the session remembers them, with the figures of the last answers."""
    turns, last = session.conversation.turns, session.conversation.last
    original, compressed = (talking.bubbles(turns, column, language) for column in (0, 1))
    lines = (
        [] if last is None else [talking.figures(last.answers, i, language) for i in range(len(last.answers.replies))]
    )
    return {
        page.chat.original: gr.update(value=original),
        page.chat.compressed: gr.update(value=compressed) | compressed_words(session, language),
        page.chat.original_stats: lines[0] if lines else "",
        page.chat.compressed_stats: lines[1] if len(lines) > 1 else "",
        **rested(page, session, language),
    }


def rested(page: Page, session: Session, language: str) -> Updates:
    """Return what a conversation that rests changes beside its columns."""
    last = session.conversation.last
    return {
        page.chat.speed: talking.speed(session, None if last is None else last.answers, language),
        **speed_picture(page, session, language),
        page.chat.cache: talking.cache_table(session, language),
        page.chat.regenerate: gr.update(interactive=last is not None),
        page.chat.edit: gr.update(interactive=last is not None),
    }


def speed_picture(page: Page, session: Session, language: str) -> Updates:
    """Return the picture of the last answers' speeds where somebody looks, else nothing."""
    last, chart = session.conversation.last, None
    if last is not None and session.looks_at_speed:
        chart = talking.speed_chart(session, last.answers, language)
    return {page.chat.roofline: gr.update(value=chart, visible=chart is not None)}


def compressed_words(session: Session, language: str) -> dict[str, Any]:
    """Return the compressed column's heading, with the scheme that answers in it, and what an empty one says."""
    if session.copy.compressed is None:
        label, empty = text("chat.compressed", language), text("chat.nothing_compressed", language)
    else:
        scheme = session.copy.compressed.plan.choice.label
        label, empty = text("chat.compressed_scheme", language, scheme=scheme), text("chat.ready", language)
    return gr.update(label=label, placeholder=empty)


def model_choices(language: str) -> list[tuple[str, str]]:
    """Return the models to start with: the built-in one, and small ones on the Hub."""
    return [(text("model.builtin", language), open_model.BUILTIN)] + [(name, name) for name in open_model.SUGGESTIONS]


def answers(page: Page, session: Session, before: Sequence[Turn], turn: Turn, language: str) -> Updates:
    """Return both columns with the turn that is being answered, and each answer's figures."""
    chat, given = page.chat, turn.answers
    columns = tuple(zip((chat.original, chat.compressed), chat.lines, strict=True))
    shown: Updates = {chat.speed: talking.speed(session, given, language)}
    for i in range(len(given.replies)):
        column, line = columns[i]
        said = talking.turn_bubbles(turn.prompt, given, i, language)
        shown[column] = talking.bubbles(before, i, language) + said
        shown[line] = talking.figures(given, i, language)
    return shown


def no_file(page: Page) -> Updates:
    """Return what takes back the file made for a copy that is no longer the one on show."""
    return {
        page.export.progress: "",
        page.export.verified: "",
        page.export.file: gr.update(visible=False, value=None),
        page.export.verify: gr.update(visible=False),
    }


def spoken(page: Page, session: Session, language: str) -> Updates:
    """Return every text of the page in ``language``; what a visitor typed stays."""
    model = gr.update(choices=model_choices(language))
    talk = conversation(page, session, language)
    lost = drift_panel.measured(page.drift, session, language) | card(page, session, language)
    named: Updates = {page.model.name: model}
    return merged(page.words.updates(language), dynamic(page, session, language), talk, lost, named)


def levels(page: Page, session: Session, language: str) -> Updates:
    """Return the weights of the layer that the visitor looks at, with the levels of its scheme, where they are here.

    Raises CheckpointError for a damaged file.
    """
    found = levels_of(session.planner, session.selected_layers)
    chart = None if found is None else weight_chart(found, language)
    return {
        page.map.levels: gr.update(value=chart, visible=chart is not None),
        page.map.levels_hint: levels_hint(found, language),
    }


def no_levels(page: Page) -> Updates:
    """Return what takes back the picture of a layer of the model before."""
    return {page.map.levels: gr.update(value=None, visible=False), page.map.levels_hint: ""}


def moving(page: Page) -> list[Block]:
    """Return the components that a change of plan may change."""
    controls = [page.plan.controls[name] for name, _ in _conditional()]
    plan = (page.plan.reading, page.plan.undo, page.plan.box)
    map_ = (
        page.map.legend,
        page.map.grid,
        page.map.table,
        page.map.pins,
        page.map.unpin,
        page.map.card,
        page.map.levels,
    )
    sample = (page.map.estimate, page.map.halt, page.map.levels_hint)
    sizes = (page.sizes.strip, page.sizes.chart, page.sizes.distribution)
    decided = (page.where.verdict, page.presets.preset, page.presets.make, page.front.chart, page.address)
    export = page.export
    taken = (export.reads, export.table, export.switch, export.button, export.program, page.where.program)
    said = (page.model.notice, page.model.measuring, page.plan.progress)
    return [
        page.missing, *said, *controls, *plan, *map_, *sample, *sizes, *decided, *taken,
    ]  # fmt: skip


def components(page: Page) -> list[Block]:
    """Return every component a handler may change."""
    alone = (page.session, page.missing, page.kept, page.address, page.visit, page.samples)
    listed: dict[Block, None] = dict.fromkeys([*alone, *page.words.components])
    panels = (
        page.header, page.model, page.where, page.presets, page.front, page.drift, page.plan, page.map, page.chat,
        page.sizes, page.export, page.runs,
    )  # fmt: skip
    for panel in panels:
        for part in vars(panel).values():
            listed.update(dict.fromkeys(part.values() if isinstance(part, dict) else [part]))
    return list(listed)
