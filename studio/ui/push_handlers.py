"""What the events of pushing do: as whom, the files of which program, how far they are. Wires nothing."""

from collections.abc import Iterator

import gradio as gr

from studio.base.errors import Cancelled, HubError
from studio.base.progress import Progress
from studio.base.steps import relayed
from studio.base.text import text
from studio.base.units import format_bytes
from studio.export.push import COMMIT, Destination, Pushed, url_of
from studio.session.session import Session
from studio.ui import html, updates
from studio.ui.error_boundary import errors_shown
from studio.ui.login import owners_token
from studio.ui.pacing import paced
from studio.ui.page import Page
from studio.ui.updates import Updates


class PushHandlers:
    """The handlers of one page."""

    def __init__(self, page: Page) -> None:
        self.page = page

    @errors_shown
    def push(self, session: Session, language: str, repo: str, is_public: bool, is_existing: bool) -> Iterator[Updates]:
        """Send the copy to the Hub as the owner of this machine."""
        yield from self._push(session, language, Destination(repo.strip(), is_public, is_existing), owners_token())

    @errors_shown
    def push_as(
        self,
        session: Session,
        language: str,
        repo: str,
        is_public: bool,
        is_existing: bool,
        token: gr.OAuthToken | None,
    ) -> Iterator[Updates]:
        """Send the copy to the Hub as the visitor who logged in."""
        if token is None:
            raise HubError("push_log_in")
        yield from self._push(session, language, Destination(repo.strip(), is_public, is_existing), token.token)

    def _push(self, session: Session, language: str, where: Destination, token: str) -> Iterator[Updates]:
        panel = self.page.export
        yield {
            panel.push: gr.update(interactive=False),
            panel.stop_push: gr.update(interactive=True),
            panel.pushed: html.notice(text("stage.push_ask", language)),
        }
        steps, ended = session.copy.push(session.decision.target, where, token), list[Pushed]()

        is_commit_asked = False

        def noted(event: Progress) -> Progress:
            nonlocal is_commit_asked
            is_commit_asked = is_commit_asked or event.stage == COMMIT
            return event

        def sending() -> Iterator[Progress]:
            ended.append((yield from relayed(steps, noted)))

        try:
            for event in paced(sending()):
                yield {panel.pushed: html.progress(event, session.spoken or language)}
        except Cancelled as stopped:
            if is_commit_asked:
                raise HubError("push_unknown", url=url_of(where.repo)) from stopped
            raise
        [done] = ended
        key = "terminal.pushed_private" if done.is_private else "terminal.pushed_public"
        said = text(key, session.spoken or language, size=format_bytes(done.nbytes), url=done.url)
        yield {**updates.push_at_rest(self.page), panel.pushed: html.notice(said, "good")}

    @errors_shown
    def stop_push(self, session: Session, language: str) -> Iterator[Updates]:
        """Ask it to end."""
        session.jobs.stop("push")
        yield {self.page.export.stop_push: gr.update(interactive=False)}
