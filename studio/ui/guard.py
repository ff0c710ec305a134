"""What becomes of a handler that fails: a sentence beside what was pressed. Knows no handler but by its name."""

import functools
import logging
from collections.abc import Callable, Iterable, Iterator
from typing import Any, Protocol

import gradio as gr
from gradio.blocks import Block

from studio.errors import Cancelled, UserError
from studio.session import Session
from studio.text import text
from studio.ui import present, show
from studio.ui.page import Page
from studio.ui.show import Updates

LOG = logging.getLogger(__name__)


class Paged(Protocol):
    """Whatever holds handlers of a page."""

    page: Page


def guarded(handler: Callable[..., Iterable[Updates]]) -> Callable[..., Iterator[Updates]]:
    """Turn whatever a handler raises into a sentence where the visitor is looking; a stack trace goes to the log."""

    @functools.wraps(handler)
    def safe(self: Paged, session: Session | None, language: str, *inputs: Any) -> Iterator[Updates]:
        page = self.page
        if session is None:
            yield {page.model.notice: present.notice(text("error.choose_a_model", language), "error")}
            return
        place = _PLACES[handler.__name__](page)
        try:
            yield from handler(self, session, language, *inputs)
        except Cancelled:
            yield _after(page, session, handler.__name__) | {place: present.notice(text("stage.cancelled", language))}
        except UserError as error:
            yield _after(page, session, handler.__name__) | {place: present.notice(error.sentence(language), "error")}
        except Exception:
            LOG.exception("%s failed", handler.__name__)
            sentence = text("error.unexpected", language)
            yield _after(page, session, handler.__name__) | {place: present.notice(sentence, "error")}

    return safe


def _after(page: Page, session: Session, handler: str) -> Updates:
    """Return what a handler that failed has to put back: its buttons, or the name of the model that stayed."""
    if handler in ("compress", "talk", "regenerate", "export"):
        return show.resting(page, session)
    if handler == "open_model" and session.checkpoint is not None:
        return {page.model.name: gr.update(value=session.checkpoint.name)}
    return {}


_PLACES: dict[str, Callable[[Page], Block]] = {
    "open_model": lambda page: page.model.notice,
    "measure": lambda page: page.model.notice,
    "estimate": lambda page: page.model.notice,
    "halt": lambda page: page.model.notice,
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
    **dict.fromkeys(("pick_text", "take_text", "fetch_text"), lambda page: page.drift.progress),
    "cancel": lambda page: page.plan.progress,
    "talk": lambda page: page.chat.notice,
    "regenerate": lambda page: page.chat.notice,
    "edit": lambda page: page.chat.notice,
    "stop": lambda page: page.chat.notice,
    "clear": lambda page: page.chat.notice,
    "export": lambda page: page.export.progress,
}
"""Where each handler's errors are shown: beside what was pressed."""
