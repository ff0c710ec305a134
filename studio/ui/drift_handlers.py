"""What the events of drift and of texts do: read -> session method -> present. Wires nothing."""

import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import gradio as gr
from gradio.blocks import Block

from studio.base.errors import Cancelled, UserError
from studio.base.text import text
from studio.calibration.texts import GENERATED
from studio.session import expected
from studio.session.session import Session
from studio.ui import decision_updates, drift_panel, html, method_choices, updates
from studio.ui.error_boundary import errors_shown
from studio.ui.pacing import paced
from studio.ui.page import Page
from studio.ui.updates import Updates


class DriftHandlers:
    """The handlers of one page."""

    def __init__(self, page: Page) -> None:
        self.page = page

    @errors_shown
    def queue_drift(self, session: Session, language: str) -> Iterator[Updates]:
        """Measure was pressed: say so at once, also while another visitor's runs."""
        session.jobs.clear_stop("drift")
        panel = self.page.drift
        yield {
            panel.measure: gr.update(interactive=False),
            panel.stop: gr.update(visible=True, interactive=True),
            panel.progress: html.notice(text("stage.waiting", language)),
        }

    @errors_shown
    def measure_drift(self, session: Session, language: str) -> Iterator[Updates]:
        """Measure in the background; the figures sharpen as they come, and those of a stopped one stay."""
        panel = self.page.drift
        said, began, guess = "", time.monotonic(), expected.whole_drift(session)
        try:
            for event in paced(session.measure_drift()):
                spoken = session.spoken or language
                figures: Updates = drift_panel.measured(panel, session, spoken)
                yield figures | {panel.progress: html.progress(event, spoken)}
            if session.texts.evaluation is None:
                expected.took(expected.WHOLE, time.monotonic() - began, guess)
        except Cancelled:
            is_partial = session.copy.drift is not None and not session.copy.drift.is_whole
            said = html.notice(text("drift.stopped", session.spoken or language)) if is_partial else ""
        spoken = session.spoken or language
        if session.copy.drift is not None and session.copy.drift.is_whole:
            session.note_run()
        yield {
            **drift_panel.shown(panel, session, spoken),
            **decision_updates.measured(self.page, session, spoken),
            panel.progress: said,
        }

    @errors_shown
    def queue_judge(self, session: Session, language: str) -> Iterator[Updates]:
        """Judge was pressed: say so at once, also while another visitor's model is measured."""
        session.jobs.clear_stop("drift")
        front = self.page.front
        yield {
            front.judge: gr.update(interactive=False),
            front.halt: gr.update(interactive=True),
            front.notice: html.notice(text("stage.waiting", language)),
        }

    @errors_shown
    def judge(self, session: Session, language: str, name: str) -> Iterator[Updates]:
        """Judge a file of others on the text that copies are measured on, and put it on the chart."""
        front = self.page.front
        for event in paced(session.judge(str(name or ""))):
            yield {front.notice: html.progress(event, session.spoken or language)}
        spoken = session.spoken or language
        yield {
            **decision_updates.front(self.page, session, spoken),
            **decision_updates.judge_at_rest(self.page),
            front.notice: html.notice(text("front.judge_done", spoken), "good"),
        }

    @errors_shown
    def stop_judge(self, session: Session, language: str) -> Iterator[Updates]:
        """Ask the judging to end."""
        session.jobs.stop("drift")
        yield {self.page.front.halt: gr.update(interactive=False)}

    @errors_shown
    def stop_drift(self, session: Session, language: str) -> Iterator[Updates]:
        """Ask the measurement to end."""
        session.jobs.stop("drift")
        yield {self.page.drift.stop: gr.update(interactive=False)}

    @errors_shown
    def pick_text(self, session: Session, language: str, kind: str) -> Iterator[Updates]:
        """Measure on the built-in texts, or offer the box for another."""
        session.texts.evaluate_on(None)
        panel = self.page.drift
        yield _boxes(kind, panel.text, panel.dataset) | {panel.progress: ""}

    @errors_shown
    def take_text(self, session: Session, language: str, given: str | None) -> Iterator[Updates]:
        """Measure on the visitor's file from now on, or on the built-in texts again."""
        panel = self.page.drift
        yield {panel.progress: html.notice(text("reads.reading", language))}
        yield {panel.progress: ""} | _offered(
            session.texts.evaluate_on, _path(given), panel.text, panel.progress, language
        )

    @errors_shown
    def fetch_text(self, session: Session, language: str, name: str) -> Iterator[Updates]:
        """Measure on a data set of the Hub from now on."""
        panel = self.page.drift
        yield {panel.progress: html.notice(text("reads.fetching", language))}
        said = _offered(session.texts.evaluate_on, str(name or ""), panel.dataset, panel.progress, language)
        reads = (
            text("reads.reads", language, text=session.texts.evaluation.name)
            if session.texts.evaluation is not None
            else ""
        )
        yield {panel.progress: html.notice(reads)} | said

    @errors_shown
    def pick_calibration(self, session: Session, language: str, kind: str) -> Iterator[Updates]:
        """Calibrate on the built-in texts or the model's own words, or offer the box for another text."""
        session.texts.calibrate_on(kind if kind == GENERATED.name else None)
        plan = self.page.plan
        yield _boxes(kind, plan.calibration, plan.dataset) | self._reads(session, language)

    @errors_shown
    def take_calibration(self, session: Session, language: str, given: str | None) -> Iterator[Updates]:
        """Calibrate on the visitor's file from now on, or on the built-in texts again."""
        plan = self.page.plan
        yield {plan.progress: html.notice(text("reads.reading", language))}
        said = _offered(session.texts.calibrate_on, _path(given), plan.calibration, plan.progress, language)
        yield self._reads(session, language) | said

    @errors_shown
    def fetch_calibration(self, session: Session, language: str, name: str) -> Iterator[Updates]:
        """Calibrate on a data set of the Hub from now on."""
        plan = self.page.plan
        yield {plan.progress: html.notice(text("reads.fetching", language))}
        said = _offered(session.texts.calibrate_on, str(name or ""), plan.dataset, plan.progress, language)
        yield self._reads(session, language) | said

    def _reads(self, session: Session, language: str) -> Updates:
        """Return what another text changes: what the method says, and whether the copy is still the plan's."""
        return {
            **updates.figures(self.page, session, language),
            self.page.plan.controls["method"]: gr.update(info=method_choices.method_info(session, language)),
            self.page.plan.progress: updates.staleness(session, language),
        }


def _path(given: str | None) -> Path | None:
    return None if given is None else Path(given)


def _boxes(kind: str, file: gr.File, dataset: gr.Textbox) -> Updates:
    """Return the boxes of both kinds, the one that was picked in sight and the others empty.

    What is in sight is emptied as it leaves, never as it comes: Gradio sends the last update of a handler twice, and
    the second one would take away what has been typed by then.
    """
    boxes: tuple[tuple[str, Any, Any], ...] = (("file", file, None), ("dataset", dataset, ""))
    return {
        box: gr.update(visible=True) if kind == name else gr.update(visible=False, value=empty)
        for name, box, empty in boxes
    }


def _offered(
    take: Callable[[Path | str | None], None], given: Path | str | None, box: Block, place: gr.HTML, language: str
) -> Updates:
    """Let the session take a text, or return why not; a file then leaves the box, a name stays to be corrected."""
    try:
        take(given)
    except UserError as error:
        emptied = gr.skip() if isinstance(given, str) else gr.update(value=None)
        return {box: emptied, place: html.notice(error.sentence(language), "error")}
    return {box: gr.skip()}
