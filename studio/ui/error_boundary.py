"""What becomes of a handler that fails: a sentence beside what was pressed. Knows no handler but by its name."""

import asyncio
import functools
import logging
from collections.abc import Callable, Generator, Iterable, Iterator
from typing import Any, Protocol

import gradio as gr
from gradio.blocks import Block

from studio.base.errors import Cancelled, ResourceError, UserError, is_out_of_memory
from studio.base.text import text
from studio.checkpoint.tokenizer.guarded_tokenizer import well_formed
from studio.session.session import Session
from studio.ui import decision_updates, drift_panel, html, updates
from studio.ui.door.allowance import allowance
from studio.ui.page import Page
from studio.ui.updates import Updates
from studio.ui.watching.jobs import KINDS, watched

LOG = logging.getLogger(__name__)
ENDS = (GeneratorExit, KeyboardInterrupt, SystemExit, asyncio.CancelledError)
"""What ends a handler from outside: nothing went wrong in it, and nobody waits for its answer."""


class Paged(Protocol):
    """Whatever holds handlers of a page."""

    page: Page


def errors_shown(handler: Callable[..., Iterable[Updates]]) -> Callable[..., Iterator[Updates]]:
    """Turn whatever a handler raises into a sentence where the visitor is looking; a stack trace goes to the log."""

    @functools.wraps(handler)
    def safe(self: Paged, session: Session | None, language: str, *inputs: Any, **named: Any) -> Iterator[Updates]:
        page, name = self.page, handler.__name__
        if session is None:
            yield {page.model.notice: html.notice(text("error.choose_a_model", language), "error")}
            return
        sayable = {name: _sayable(given) for name, given in named.items()}
        with watched(name, session) as job:
            try:
                allowance().begin(KINDS.get(name, ""), session.visitor)
                answers = handler(self, session, language, *map(_sayable, inputs), **sayable)
                yield from answers if name == "speak" else _in_its_language(page, session, answers)
                return
            except ENDS:
                raise
            except BaseException as error:  # a library's panic is no Exception, and yet the buttons are to come back
                job.fail(error)
                said = _said(error, session, name, session.spoken or language)
        yield {**_RESTS.get(name, _nothing)(page, session), _PLACES[name](page): said}
        if name in _REDRAWS:
            yield _REDRAWS[name](page, session, session.spoken or language)

    return safe


def _in_its_language(page: Page, session: Session, answers: Iterable[Updates]) -> Iterator[Updates]:
    """Yield what a handler answers; what was put in words while another language was chosen, in that one once more."""
    steps = iter(answers)
    try:
        while True:
            spoken = session.spoken
            shown = next(steps, None)
            if shown is None:
                return
            yield shown
            if session.spoken is not None and session.spoken != spoken:
                anew = updates.spoken(page, session, session.spoken)
                yield {component: anew.get(component, gr.skip()) for component in shown}
    finally:
        if isinstance(steps, Generator):
            steps.close()


def _sayable(given: Any) -> Any:
    """Return what a visitor gave so that it can be shown again: half a character would end all that Gradio sends."""
    return well_formed(given) if isinstance(given, str) else given


def _said(error: BaseException, session: Session, name: str, language: str) -> str:
    """Return what to say of an error, as HTML; one that nobody meant is written to the log."""
    if isinstance(error, Cancelled):
        return html.notice(text(_cancelled(session, name), language))
    if isinstance(error, UserError):
        return html.notice(error.sentence(language), "error")
    LOG.error("%s failed", name, exc_info=error)
    if is_out_of_memory(error):
        return html.notice(ResourceError("out_of_memory").sentence(language), "error")
    return html.notice(text("error.unexpected", language), "error")


_FETCHING = ("compress", "make")
"""Handlers that fetch a model whose files are not here."""


def _cancelled(session: Session, name: str) -> str:
    """Return what is true of a job that was stopped: only compressing keeps what it did, and not by every method.

    What was fetched stays, whoever fetched it.
    """
    if name in _FETCHING and session.checkpoint is not None and session.checkpoint.folder is None:
        return "stage.cancelled_download"
    if name not in ("compress", "make") or (session.copy.compressed is not None and name == "make"):
        return "stage.stopped"
    is_calibrated = session.choice.is_calibrated
    return "stage.cancelled_calibrated" if is_calibrated else "stage.cancelled"


def _nothing(page: Page, session: Session) -> Updates:
    return {}


_RESTS: dict[str, Callable[[Page, Session], Updates]] = {
    **dict.fromkeys(("queue_compress", "compress", "cancel"), updates.plan_at_rest),
    **dict.fromkeys(("queue_talk", "talk", "regenerate", "stop"), updates.chat_at_rest),
    **dict.fromkeys(
        ("queue_drift", "measure_drift", "stop_drift"), lambda page, session: drift_panel.at_rest(page.drift)
    ),
    "estimate": lambda page, session: updates.sample_at_rest(page),
    "halt": lambda page, session: updates.sample_at_rest(page),
    "export": updates.export_at_rest,
    **dict.fromkeys(("push", "push_as", "stop_push"), lambda page, session: updates.push_at_rest(page)),
    "verify": lambda page, session: {page.export.verify: gr.update(interactive=True)},
    **dict.fromkeys(("queue_make", "make", "stop_make"), lambda page, session: decision_updates.at_rest(page)),
    **dict.fromkeys(("queue_judge", "judge", "stop_judge"), lambda page, _: decision_updates.judge_at_rest(page)),
}
"""What each handler that failed has to put back first: the buttons that it, or the one before it, switched off."""


def _compressing(page: Page, session: Session, language: str) -> Updates:
    """Return what follows from a model whose files may be here by now, though it was not compressed."""
    return updates.merged(updates.dynamic(page, session, language), updates.missing(page, session, language))


_REDRAWS: dict[str, Callable[[Page, Session, str], Updates]] = {
    "compress": _compressing,
    "talk": updates.conversation,
    "regenerate": updates.conversation,
    "estimate": updates.map_of,
    "measure": updates.map_of,
    "measure_drift": lambda page, session, language: drift_panel.shown(page.drift, session, language),
}
"""What else is no longer true after each handler that failed, from the session as it stands."""

_PLACES: dict[str, Callable[[Page], Block]] = {
    "open_model": lambda page: page.model.notice,
    "measure": lambda page: page.model.measuring,
    "estimate": lambda page: page.model.measuring,
    "halt": lambda page: page.model.measuring,
    "paint": lambda page: page.map.notice,
    "pick": lambda page: page.map.notice,
    "describe": lambda page: page.map.notice,
    "pin": lambda page: page.map.notice,
    "unpin": lambda page: page.map.notice,
    "undo": lambda page: page.plan.progress,
    "speak": lambda page: page.model.notice,
    "choose": lambda page: page.plan.progress,
    "queue_compress": lambda page: page.plan.progress,
    "queue_talk": lambda page: page.chat.notice,
    "compress": lambda page: page.plan.progress,
    **dict.fromkeys(("pick_calibration", "take_calibration", "fetch_calibration"), lambda page: page.plan.progress),
    **dict.fromkeys(("queue_drift", "measure_drift", "stop_drift"), lambda page: page.drift.progress),
    **dict.fromkeys(("queue_judge", "judge", "stop_judge"), lambda page: page.front.notice),
    **dict.fromkeys(("pick_text", "take_text", "fetch_text"), lambda page: page.drift.progress),
    "cancel": lambda page: page.plan.progress,
    "talk": lambda page: page.chat.notice,
    "regenerate": lambda page: page.chat.notice,
    "empty": lambda page: page.chat.notice,
    **dict.fromkeys(("edit", "look_at_speed", "leave_speed"), lambda page: page.chat.notice),
    "stop": lambda page: page.chat.notice,
    "clear": lambda page: page.chat.notice,
    "export": lambda page: page.export.progress,
    **dict.fromkeys(("queue_make", "make", "made", "stop_make", "take_preset"), lambda page: page.presets.progress),
    **dict.fromkeys(("settle", "run_in", "recall"), lambda page: page.model.notice),
    **dict.fromkeys(("switch_plan", "verify", "look_at_others", "leave_others"), lambda page: page.export.progress),
    **dict.fromkeys(("push", "push_as", "stop_push"), lambda page: page.export.pushed),
    "answer_in_browser": lambda page: page.export.in_browser_progress,
    **dict.fromkeys(("load_plan", "tick_run", "draw_picture", "open_recipe"), lambda page: page.runs.notice),
}
"""Where each handler's errors are shown: beside what was pressed."""
