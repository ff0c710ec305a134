"""What each event does: read -> session method -> present. Wires nothing; every handler is a few lines."""

import time
from collections.abc import Iterable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import gradio as gr
from gradio.utils import get_upload_folder

from studio.base.errors import Cancelled, UserError
from studio.base.progress import Progress
from studio.base.settings import settings
from studio.base.text import preferred, text
from studio.base.units import format_bytes
from studio.base.workspace import own_folder
from studio.checkpoint import hub, open_model
from studio.checkpoint.tokenizer.guarded_tokenizer import well_formed
from studio.planning.choice import Choice
from studio.planning.figures import DEFAULT, FIGURES
from studio.planning.presets import CUSTOM
from studio.quantization.scheme import Scheme, parse_mode
from studio.session.opened_recipe import open_recipe
from studio.session.session import Session
from studio.ui import browser_memory, choices, decision_updates, drift_panel, html, method_choices, updates
from studio.ui.address import follow
from studio.ui.controls import picked
from studio.ui.door.door import visitor_of
from studio.ui.error_boundary import errors_shown
from studio.ui.pacing import MAP_PACE, paced
from studio.ui.page import Page
from studio.ui.presence import ATTENDANCE
from studio.ui.turns import in_turn
from studio.ui.updates import Updates
from studio.ui.watching.jobs import SESSIONS

VERIFIED = ("gguf",)
"""Targets whose files can be read back and compared."""


def _begun(language: str) -> str:
    """Return what is shown until a job says where it stands: the first one's process takes seconds to be there."""
    return html.progress(Progress("begin"), language)


class Handlers:
    """The handlers of one page."""

    def __init__(self, page: Page) -> None:
        self.page = page

    def visit(self, request: gr.Request) -> Iterator[Updates]:
        """A page was opened: make its session, in the browser's language, with the default model chosen."""
        yield from self._visit(request, None)

    def visit_as(self, request: gr.Request, token: gr.OAuthToken | None) -> Iterator[Updates]:
        """The same, where visitors can sign in: what only they may see on the Hub is theirs to open."""
        yield from self._visit(request, None if token is None else token.token)

    def _visit(self, request: gr.Request, login: str | None) -> Iterator[Updates]:
        visitor = visitor_of(request)
        session = Session(paths=settings().local_files and visitor.is_owner, visitor=visitor)
        session.login = login
        SESSIONS.add(session)
        session.measurements.predicted = session.decision.plans
        query = dict(request.query_params)
        follow(session, query)
        language = preferred(request.headers.get("accept-language", ""))
        visit = str(request.session_hash)
        ATTENDANCE.arrive(visit, session)
        yield updates.merged(
            updates.spoken(self.page, session, language),
            {
                self.page.session: session,
                self.page.visit: gr.update(value={"key": visit}),
                self.page.header.language: gr.update(value=language),
                self.page.model.name: gr.update(value=query.get("model") or open_model.default_model()),
                self.page.where.host: gr.update(value=session.decision.host.name),
                self.page.where.context: gr.update(value=session.decision.context),
                **decision_updates.program(self.page, session),
                self.page.chat.prompt: gr.update(value=text("chat.prompt_example", language)),
            },
        )

    @errors_shown
    def open_model(self, session: Session, language: str, name: str) -> Iterator[Updates]:
        """Open the chosen model from its headers."""
        yield {self.page.model.notice: html.notice(text("stage.headers", language))}
        before = session.checkpoint
        for event in paced(session.open(str(name or ""))):
            yield {self.page.model.notice: html.progress(event, session.spoken or language)}
        language = session.spoken or language
        if before is not None and session.checkpoint is before:  # chosen again, or merely left: nothing has changed
            yield {self.page.model.notice: "", **updates.missing(self.page, session, language)}
            return
        yield self._opened(session, language)

    @errors_shown
    def open_recipe(self, session: Session, language: str, given: str | None) -> Iterator[Updates]:
        """A recipe was given: open its model, and plan what it tells."""
        place = self.page.runs.notice
        if given is None:
            yield {place: gr.skip()}
            return
        wanted = ""

        def steps() -> Iterator[Progress]:
            nonlocal wanted
            wanted = (yield from open_recipe(session, Path(given))).text

        for event in paced(steps()):
            yield {place: html.progress(event, session.spoken or language)}
        language = session.spoken or language
        session.decision.picked = CUSTOM
        said = text("runs.recipe_text" if wanted else "runs.recipe_opened", language, text=wanted)
        opened = self._opened(session, language)
        name: Updates = {self.page.model.name: gr.update(value=session.checkpoint.name if session.checkpoint else "")}
        yield updates.merged(opened, name, {place: html.notice(said, "" if wanted else "good")})

    def _opened(self, session: Session, language: str) -> Updates:
        """Return the page with another model."""
        nothing: Updates = dict.fromkeys((self.page.model.notice, self.page.map.notice, self.page.chat.notice), "")
        return updates.merged(
            nothing,
            updates.dynamic(self.page, session, language),
            updates.controls(self.page, session),
            updates.conversation(self.page, session, language),
            updates.no_file(self.page),
            updates.no_levels(self.page),
            drift_panel.shown(self.page.drift, session, language),
            updates.card(self.page, session, language),
            {
                self.page.drift.progress: "",
                self.page.map.layer: gr.update(choices=choices.layer_choices(session), value=None),
                self.page.plan.progress: "",
            },
            updates.missing(self.page, session, language),
        )

    @errors_shown
    def estimate(self, session: Session, language: str) -> Iterator[Updates]:
        """Read a few rows of each layer where they are, and draw the map from them."""
        yield from self._filling(session, language, session.measurements.sample())
        # also where it was stopped
        yield updates.map_of(self.page, session, session.spoken or language) | {self.page.model.measuring: ""}

    @errors_shown
    def halt(self, session: Session, language: str) -> Iterator[Updates]:
        """End the sample; what it told so far stays on the map."""
        session.jobs.stop("sample")
        yield {self.page.map.halt: gr.update(visible=False)}

    @errors_shown
    def measure(self, session: Session, language: str) -> Iterator[Updates]:
        """Measure what the map lacks, in the background: it fills in, and from then on the plan is only looked up."""
        yield from self._filling(session, language, session.measure())
        yield updates.card(self.page, session, session.spoken or language)

    def _filling(self, session: Session, language: str, steps: Iterable[Progress]) -> Iterator[Updates]:
        """Show a measurement's progress, and the map as it fills in."""
        place = self.page.model.measuring
        yield {place: _begun(session.spoken or language)}
        painted = float("-inf")
        try:
            for event in paced(steps):
                spoken = session.spoken or language
                shown: Updates = {place: html.progress(event, spoken)}
                if time.monotonic() - painted >= MAP_PACE:
                    shown |= updates.map_of(self.page, session, spoken)
                    painted = time.monotonic()
                yield shown
        except Cancelled:  # the visitor went on to another model, which is measured next
            yield {place: ""}
            return
        language = session.spoken or language
        nothing: Updates = {place: ""}
        yield updates.merged(
            updates.figures(self.page, session, language),
            decision_updates.options(self.page, session, language),
            decision_updates.planned(self.page, session, language),
            nothing,
        )

    @errors_shown
    def paint(self, session: Session, language: str, colour: str) -> Iterator[Updates]:
        """Show another figure of each layer on the map."""
        session.map_figure = colour if colour in FIGURES else DEFAULT
        yield updates.map_of(self.page, session, language) | updates.missing(self.page, session, language)

    @errors_shown
    def speak(self, session: Session, language: str) -> Iterator[Updates]:
        """Say everything in another language, also what a job that runs will say; what it has said is said no more."""
        session.spoken = language
        page = self.page
        said = (page.model.notice, page.model.measuring, page.map.notice, page.export.progress, page.drift.progress)
        still = {**self._staleness(session, language), page.chat.notice: updates.editing(session, language)}
        still[page.kept] = gr.update(value=browser_memory.remembered(session))
        # the radio too: a page that was opened just now says its language only after it was asked for another
        chosen: Updates = {page.header.language: gr.update(value=language)}
        yield updates.spoken(page, session, language) | dict.fromkeys(said, "") | still | chosen

    @errors_shown
    def choose(self, session: Session, language: str, **values: Any) -> Iterator[Updates]:
        """A control moved: plan again. A new mode brings its own backup, unless the visitor chose another."""
        now = session.choice
        words = now.words() | picked(values)
        mode = parse_mode(str(words["mode"]))
        if mode is not now.mode and now.backup in (now.mode.default_backup, None) and words["backup"] != "none":
            words["backup"] = mode.default_backup.value
        chosen = Choice.of(**words)
        if chosen == now and session.plan is not None:
            yield self._staleness(session, language)
            return
        session.planner.choose(chosen)
        shown = self._planned(session, language)
        before, after = ((each.mode, each.group_size_fallback, each.method) for each in (now, chosen))
        if before != after:
            shown |= updates.offered(self.page, session, language)
        if mode is not now.mode:
            backups: Updates = {self.page.plan.controls["backup"]: gr.update(value=words["backup"])}
            shown = updates.merged(shown, backups)
        yield shown

    @errors_shown
    @in_turn
    def pick(self, session: Session, language: str, event: gr.EventData) -> Iterator[Updates]:
        """A layer of the map was clicked: show what it would cost in each scheme, ready to be pinned."""
        session.selected_layers = well_formed(str((event._data or {}).get("layer", "")))
        yield {
            self.page.map.pinning: gr.update(open=True),
            self.page.map.layer: gr.update(value=session.selected_layers),
            self.page.map.notice: "",
            **updates.card(self.page, session, language),
        }
        yield updates.levels(self.page, session, language)

    @errors_shown
    @in_turn
    def describe(self, session: Session, language: str, pattern: str) -> Iterator[Updates]:
        """A layer was named: show what it would cost in each scheme.

        A refused pin stays: the button is pressed right after the name is typed, and its answer may arrive first.
        """
        session.selected_layers = str(pattern or "")
        yield updates.card(self.page, session, language)
        yield updates.levels(self.page, session, language)

    @errors_shown
    @in_turn
    def pin(self, session: Session, language: str, pattern: str, scheme: str) -> Iterator[Updates]:
        """Keep these layers in one scheme and plan the others around them."""
        if not str(pattern or "").strip():
            yield {self.page.map.notice: html.notice(text("pin.pick_first", language), "error")}
            return
        session.planner.pin(str(pattern), None if scheme == "none" else Scheme.parse(str(scheme)))
        session.selected_layers = str(pattern)
        card = updates.card(self.page, session, language)
        yield self._planned(session, language) | {self.page.map.notice: "", **card}

    @errors_shown
    @in_turn
    def unpin(self, session: Session, language: str) -> Iterator[Updates]:
        """Forget all pins."""
        session.planner.choose(replace(session.choice, pins=()))
        yield self._planned(session, language) | {self.page.map.notice: ""}

    @errors_shown
    @in_turn
    def undo(self, session: Session, language: str) -> Iterator[Updates]:
        """Go back to the plan before this one."""
        session.planner.undo()
        shown = self._planned(session, language) | {self.page.map.notice: ""}
        offered = updates.offered(self.page, session, language)
        yield updates.merged(shown, offered, updates.controls(self.page, session))

    def _planned(self, session: Session, language: str) -> Updates:
        """Return the page after a change of plan."""
        return {
            **updates.planned(self.page, session, language),
            **updates.missing(self.page, session, language),
            **self._staleness(session, language),
        }

    def _staleness(self, session: Session, language: str) -> Updates:
        """Return what there is to say of a compressed copy that is not the plan's, instead of an error said before."""
        return {self.page.plan.progress: updates.staleness(session, language)}

    @errors_shown
    def queue_compress(self, session: Session, language: str) -> Iterator[Updates]:
        """Compress was pressed: say so at once, also while another visitor's job runs."""
        session.jobs.clear_stop("compress")
        yield {
            self.page.plan.compress: gr.update(interactive=False),
            self.page.plan.cancel: gr.update(interactive=True),
            self.page.plan.progress: html.notice(text("stage.waiting", language)),
        }

    @errors_shown
    def compress(self, session: Session, language: str) -> Iterator[Updates]:
        """Compress, with progress; Cancel ends it between two steps."""
        if session.is_copy_of_plan:  # all that was said to it and measured of it stays
            said = html.notice(text("plan.unchanged", session.spoken or language), "good")
            yield updates.plan_at_rest(self.page, session) | {self.page.plan.progress: said}
            return
        yield {self.page.plan.progress: _begun(session.spoken or language)}
        for event in paced(session.compress()):
            yield {self.page.plan.progress: html.progress(event, session.spoken or language)}
        language = session.spoken or language
        compressed = session.copy.compressed
        if compressed is None:  # another model was opened this moment
            yield updates.plan_at_rest(self.page, session) | {self.page.plan.progress: ""}
            return
        session.note_run()
        done = html.notice(text("stage.done", language, seconds=f"{compressed.seconds:.1f}"), "good")
        stale = updates.staleness(session, language)
        yield updates.merged(
            updates.plan_at_rest(self.page, session),
            updates.made(self.page, session, language),
            {self.page.plan.progress: stale or done + method_choices.uncalibrated(session, language)},
            updates.missing(self.page, session, language),  # of a model that was fetched just now
        )

    @errors_shown
    def cancel(self, session: Session, language: str) -> Iterator[Updates]:
        """Ask the compression to end."""
        session.jobs.stop("compress")
        yield {self.page.plan.cancel: gr.update(interactive=False)}

    @errors_shown
    def export(self, session: Session, language: str) -> Iterator[Updates]:
        """Make the one file that the program loads, and hand it to the browser."""
        yield updates.no_file(self.page) | {self.page.export.button: gr.update(interactive=False)}
        folder = own_folder(Path(get_upload_folder()))
        target = session.decision.target
        steps = session.copy.archive(folder, target.name)
        for event in paced(steps):
            yield {self.page.export.progress: html.progress(event, session.spoken or language)}
        language = session.spoken or language
        file = next(folder.iterdir())
        size = format_bytes(file.stat().st_size)
        yield {
            **updates.export_at_rest(self.page, session),
            self.page.export.file: gr.update(value=str(file), visible=True, label=f"{file.name} ({size})"),
            self.page.export.verify: gr.update(visible=target.name in VERIFIED),
            self.page.export.progress: html.notice(text("stage.ready", language, size=size, name=file.name), "good"),
        }

    def suggest(self, language: str, typed: gr.KeyUpData) -> Any:
        """Search the Hub for what is being typed."""
        query = well_formed(typed.input_value.strip())
        if len(query) < 2 or not hub.reachable():
            return gr.skip()
        try:
            found = hub.search(query)
        except UserError:
            return gr.skip()
        return gr.update(choices=updates.model_choices(language) + [(model.repo, model.repo) for model in found])
