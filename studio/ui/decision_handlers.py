"""What the events of the decision do: where it runs, which preset, the one button. Read -> session method -> present.

Wires nothing.
"""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import gradio as gr
from gradio.utils import get_upload_folder

from studio.base.progress import Progress
from studio.base.text import text
from studio.base.workspace import own_folder
from studio.export.targets import target_named
from studio.planning import hosts
from studio.planning.presets import CUSTOM
from studio.planning.presets import DEFAULT as DEFAULT_PRESET
from studio.runtime import machine
from studio.session import making
from studio.session.session import Session
from studio.ui import browser_memory, decision_updates, html, in_browser, take, updates
from studio.ui.error_boundary import errors_shown
from studio.ui.hosts import host_of
from studio.ui.make_progress import make_progress
from studio.ui.pacing import MAKE_PACE, paced
from studio.ui.page import Page
from studio.ui.sample_answers import prompts
from studio.ui.share_picture import share_picture
from studio.ui.turns import in_turn
from studio.ui.updates import Updates

BEGUN = Progress("begin")


class DecisionHandlers:
    """The handlers of one page."""

    def __init__(self, page: Page) -> None:
        self.page = page

    @errors_shown
    @in_turn
    def settle(
        self, session: Session, language: str, host: str, memory: float, bandwidth: float, context: int
    ) -> Updates:
        """Another machine or context was named: say whether it fits there."""
        decision = session.decision
        decision.host = host_of(host, memory, bandwidth)
        decision.context = context if context in hosts.CONTEXTS else hosts.DEFAULT_CONTEXT
        return {
            self.page.where.own: gr.update(visible=host == hosts.OWN),
            **decision_updates.verdict(self.page, session, language),
            **decision_updates.front(self.page, session, language),
            **decision_updates.address(self.page, session),
            self.page.kept: gr.update(value=browser_memory.remembered(session)),
        }

    @errors_shown
    @in_turn
    def run_in(self, session: Session, language: str, program: str) -> Updates:
        """Another program is to run it: the preset becomes one of what that loads."""
        session.decision.run_in(program, session.copy.compressed is not None)
        kept: Updates = {self.page.kept: gr.update(value=browser_memory.remembered(session))}
        return self._replanned(session, language) | kept | decision_updates.program(self.page, session)

    @errors_shown
    @in_turn
    def take_preset(self, session: Session, language: str, preset: str) -> Updates:
        """Plan by a preset, or open the plan's own controls."""
        session.decision.pick(preset)
        return self._replanned(session, language)

    @errors_shown
    @in_turn
    def switch_plan(self, session: Session, language: str) -> Updates:
        """Plan anew by the usual preset, of what the program can read."""
        session.decision.pick(DEFAULT_PRESET)
        return self._replanned(session, language)

    @errors_shown
    @in_turn
    def load_plan(self, session: Session, language: str, event: gr.EventData) -> Updates:
        """A point of the chart, or a run of the table, was clicked: plan that again."""
        data = event._data or {}
        said = str(data.get("plan") or data.get("run") or "")
        kind, _, name = said.partition(":")
        if kind == "preset":
            session.decision.pick(name)
        elif kind == "run" and name.isdecimal():
            run = session.decision.runs.numbered(int(name))
            if run is not None and session.checkpoint is not None and run.model == session.checkpoint.name:
                session.decision.picked = CUSTOM
                session.planner.choose(run.choice)
        return self._replanned(session, language)

    @errors_shown
    @in_turn
    def tick_run(self, session: Session, language: str, event: gr.EventData) -> Updates:
        """A run was ticked, or left again: compare the two that are."""
        number = str((event._data or {}).get("tick", ""))
        if number.isdecimal():
            session.decision.runs.tick(int(number[:9]))
        return decision_updates.runs(self.page, session, language)

    @errors_shown
    def draw_picture(self, session: Session, language: str) -> Iterator[Updates]:
        """Draw the picture to share; the browser saves it."""
        yield {self.page.runs.drawn: gr.update(value={"svg": share_picture(session, session.spoken or language)})}

    def _replanned(self, session: Session, language: str) -> Updates:
        """Return the page after a plan that its controls did not make."""
        return updates.merged(
            updates.planned(self.page, session, language),
            updates.offered(self.page, session, language),
            updates.controls(self.page, session),
            decision_updates.options(self.page, session, language),
            updates.missing(self.page, session, language),
            {self.page.plan.progress: updates.staleness(session, language)},
        )

    @errors_shown
    def queue_make(self, session: Session, language: str) -> Iterator[Updates]:
        """Make it was pressed: say so at once, also while another visitor's job runs."""
        making.clear_stop(session)
        yield {
            self.page.presets.make: gr.update(interactive=False),
            self.page.presets.stop: gr.update(interactive=True),
            self.page.presets.progress: html.notice(text("stage.waiting", language)),
        }

    @errors_shown
    def make(self, session: Session, language: str) -> Iterator[Updates]:
        """Compress, ask both models, measure: answers and loss show as they come."""
        page, before = self.page, session.samples.turns
        steps = making.make(session, prompts(session, session.spoken or language))
        for step in paced(steps, MAKE_PACE):
            spoken = session.spoken or language
            shown: Updates = {page.presets.progress: make_progress(step, spoken)}
            if session.samples.turns != before:
                before = session.samples.turns
                shown |= decision_updates.samples(page, session, spoken)
            yield shown
        machine.measure()
        done = html.notice(text("make.done", session.spoken or language), "good")
        yield {page.presets.progress: done, **decision_updates.at_rest(page)}

    @errors_shown
    def made(self, session: Session, language: str) -> Iterator[Updates]:
        """Show what there is once the one button has ended, whichever way."""
        language = session.spoken or language
        missing = updates.missing(self.page, session, language)
        yield updates.merged(updates.made(self.page, session, language), missing)

    @errors_shown
    def stop_make(self, session: Session, language: str) -> Iterator[Updates]:
        """Ask whatever step runs to end."""
        making.stop(session)
        yield {self.page.presets.stop: gr.update(interactive=False)}

    @errors_shown
    def answer_in_browser(self, session: Session, language: str, prompt: str) -> Iterator[Updates]:
        """Write the copy as a browser loads it, and say where it is: the rest is the browser's own."""
        export = self.page.export
        yield {export.asked: gr.update(value=None), export.in_browser_progress: html.progress(BEGUN, language)}
        place, found = own_folder(Path(get_upload_folder())), list[Path]()

        def writing() -> Iterator[Progress]:
            found.append((yield from session.copy.for_browser(place)))

        for event in paced(writing()):
            yield {export.in_browser_progress: html.progress(event, session.spoken or language)}
        language = session.spoken or language
        said = {name: text(f"export.in_browser_{name}", language) for name in ("loading", "answering", "failed")}
        address = f"/gradio_api/file={found[0].as_posix()}"
        made = session.copy.compressed
        cautions = [] if made is None else target_named("onnx").cautions(made.plan)
        yield {
            export.in_browser_progress: "".join(html.notice(each.sentence(language)) for each in cautions),
            export.asked: gr.update(value=in_browser.asked(address, prompt, said)),
        }

    @errors_shown
    def look_at_others(self, session: Session, language: str) -> Iterator[Updates]:
        """The table of all programs opens: find out what each makes of the plan."""
        session.looks_at_others = True
        yield {self.page.export.table: take.others(session, session.spoken or language)}

    @errors_shown
    def leave_others(self, session: Session, language: str) -> Iterator[Updates]:
        """It is out of sight again."""
        session.looks_at_others = False
        yield {self.page.export.table: ""}

    @errors_shown
    def verify(self, session: Session, language: str) -> Iterator[Updates]:
        """Read the file back and compare it with what was measured."""
        export = self.page.export
        yield {export.verify: gr.update(interactive=False), export.progress: html.notice(text("verify.busy", language))}
        steps, found = session.copy.verify(), None
        while found is None:
            try:
                yield {export.progress: html.progress(next(steps), session.spoken or language)}
            except StopIteration as finished:
                found = finished.value
        yield {
            export.verify: gr.update(interactive=True),
            export.progress: "",
            export.verified: take.verified(found, session.spoken or language),
        }

    @errors_shown
    def recall(self, session: Session, language: str, kept: Any) -> Iterator[Updates]:
        """Go on where this browser left: with its runs, its machine and its program, unless the address says others."""
        yield browser_memory.recall(self.page, session, language, kept)
