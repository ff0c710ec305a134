"""What the events of drift and of texts do: read -> session method -> present. Wires nothing."""

from collections.abc import Callable, Iterator
from pathlib import Path

import gradio as gr

from studio.errors import Cancelled, UserError
from studio.session import Session
from studio.text import text
from studio.ui import drift, methods, present
from studio.ui.guard import guarded
from studio.ui.handlers import paced
from studio.ui.page import Page
from studio.ui.show import Updates


class DriftHandlers:
    """The handlers of one page."""

    def __init__(self, page: Page) -> None:
        self.page = page

    @guarded
    def queue_drift(self, session: Session, language: str) -> Iterator[Updates]:
        """Measure was pressed: say so at once, also while another visitor's runs."""
        session.begin("drift")
        panel = self.page.drift
        yield {
            panel.measure: gr.update(interactive=False),
            panel.stop: gr.update(visible=True, interactive=True),
            panel.progress: present.notice(text("stage.waiting", language)),
        }

    @guarded
    def measure_drift(self, session: Session, language: str) -> Iterator[Updates]:
        """Measure in the background; the figures sharpen as they come, and those of a stopped one stay."""
        panel = self.page.drift
        said = ""
        try:
            for event in paced(session.measure_drift()):
                figures: Updates = drift.measured(panel, session, language)
                yield figures | {panel.progress: present.progress(event, language)}
        except Cancelled:
            said = present.notice(text("drift.stopped", language)) if session.drift is not None else ""
        except Exception:  # `guarded` says what happened
            yield drift.shown(panel, session, language)
            raise
        yield drift.shown(panel, session, language) | {panel.progress: said}

    @guarded
    def stop_drift(self, session: Session, language: str) -> Iterator[Updates]:
        """Ask the measurement to end."""
        session.stop("drift")
        yield {self.page.drift.stop: gr.update(interactive=False)}

    @guarded
    def take_text(self, session: Session, language: str, file: str | None) -> Iterator[Updates]:
        """Measure on the visitor's text from now on, or on the built-in ones again."""
        panel = self.page.drift
        yield _taken(session.evaluate_on, file, panel.text, panel.progress, language)

    @guarded
    def take_calibration(self, session: Session, language: str, file: str | None) -> Iterator[Updates]:
        """Calibrate on the visitor's text from now on, or on the built-in ones again."""
        plan = self.page.plan
        said = _taken(session.calibrate_on, file, plan.calibration, plan.progress, language)
        yield said | {plan.method: gr.update(info=methods.method_info(session, language))}


def _taken(
    take: Callable[[Path | None], None], file: str | None, box: gr.File, place: gr.HTML, language: str
) -> Updates:
    """Let the session take a file; one that it does not leaves the box again."""
    try:
        take(None if file is None else Path(file))
    except UserError as error:
        return {box: gr.update(value=None), place: present.notice(error.sentence(language), "error")}
    return {box: gr.skip(), place: ""}
