"""What the events of the chat do: read -> session method -> present. Wires nothing."""

from collections.abc import Generator, Iterator
from typing import Any

import gradio as gr

from studio.base.progress import Progress
from studio.base.text import text
from studio.chat.conversation import Turn
from studio.runtime import machine
from studio.runtime.sampling import Sampling
from studio.session.session import Session
from studio.ui import html, updates
from studio.ui.error_boundary import errors_shown
from studio.ui.pacing import paced
from studio.ui.page import Page
from studio.ui.updates import Updates


class ChatHandlers:
    """The handlers of one page."""

    def __init__(self, page: Page) -> None:
        self.page = page

    @errors_shown
    def queue_talk(self, session: Session, language: str) -> Iterator[Updates]:
        """Send was pressed: say so at once, also while another visitor's job runs."""
        session.jobs.clear_stop("chat")
        chat = self.page.chat
        yield {
            **{button: gr.update(interactive=False) for button in (chat.send, chat.regenerate, chat.edit)},
            chat.stop: gr.update(interactive=True),
            chat.notice: html.notice(text("stage.waiting", language)),
        }

    @errors_shown
    def talk(self, session: Session, language: str, prompt: str, *settings: Any) -> Iterator[Updates]:
        """Both models answer; each token is painted as it comes."""
        session.conversation.accepted = None
        is_accepted = yield from self._answered(
            session, language, prompt or "", session.conversation.is_editing, *settings
        )
        session.conversation.accepted = prompt if is_accepted else None
        yield {self.page.chat.notice: updates.editing(session, session.spoken or language)}

    @errors_shown
    def empty(self, session: Session, language: str, prompt: str) -> Iterator[Updates]:
        """Take a message that the conversation took out of the box; one that was refused, or typed since, stays."""
        yield {self.page.chat.prompt: gr.update(value="") if prompt == session.conversation.accepted else gr.skip()}
        session.conversation.accepted = None

    @errors_shown
    def regenerate(self, session: Session, language: str, prompt: str, *settings: Any) -> Iterator[Updates]:
        """Both models answer the last message anew; what is being typed stays."""
        last = session.conversation.last
        if last is None:
            yield updates.chat_at_rest(self.page, session)
            return
        is_accepted = yield from self._answered(session, language, last.prompt, True, *settings)
        is_same = is_accepted and self._sampling(*settings).temperature == 0
        said = text("chat.same_again", session.spoken or language) if is_same else ""
        yield {self.page.chat.notice: html.notice(said)}

    def _answered(
        self, session: Session, language: str, prompt: str, again: bool, system: str, kv_bits: int, *settings: Any
    ) -> Generator[Updates, None, bool]:
        """Paint the answers as they come; return whether the conversation took the message, or was cleared meanwhile.

        One that no column could answer is not kept, so it leaves the columns again, but for what they say of it.
        """
        sampling, reset_count, last = (
            self._sampling(system, kv_bits, *settings),
            session.conversation.reset_count,
            session.conversation.last,
        )
        before = session.conversation.turns[:-1] if again else session.conversation.turns
        shown: Updates = {}
        for item in paced(session.chat(prompt, sampling, system or "", int(kv_bits), again)):
            spoken = session.spoken or language
            if isinstance(item, Progress):
                yield {self.page.chat.notice: html.progress(item, spoken)}
            elif session.conversation.reset_count == reset_count:  # not cleared meanwhile
                shown = updates.answers(self.page, session, before, Turn(prompt, item), spoken)
                yield shown | {self.page.chat.notice: ""}
        spoken, resting = session.spoken or language, updates.chat_at_rest(self.page, session)
        if session.conversation.reset_count == reset_count and session.conversation.last is last:
            said: Updates = {line: shown[line] for line in self.page.chat.lines if line in shown}
            yield updates.merged(updates.conversation(self.page, session, spoken), said, resting)
            return False
        session.conversation.is_editing = False
        machine.measure()
        yield updates.merged(updates.rested(self.page, session, spoken), resting)
        return True

    def _sampling(self, system: str, kv_bits: int, *settings: Any) -> Sampling:
        longest, temperature, top_p, top_k, penalty, seed = settings
        return Sampling(int(longest), float(temperature), float(top_p), int(top_k), float(penalty), int(seed or 0))

    @errors_shown
    def look_at_speed(self, session: Session, language: str) -> Iterator[Updates]:
        """The picture of the speeds comes into sight: draw it."""
        session.looks_at_speed = True
        yield updates.speed_picture(self.page, session, language)

    @errors_shown
    def leave_speed(self, session: Session, language: str) -> Iterator[Updates]:
        """It is out of sight again: draw it no more."""
        session.looks_at_speed = False
        yield updates.speed_picture(self.page, session, language)

    @errors_shown
    def edit(self, session: Session, language: str) -> Iterator[Updates]:
        """Let the last message be changed and asked anew; pressed again, leave it as it is."""
        last, talk = session.conversation.last, session.conversation
        talk.is_editing = last is not None and not talk.is_editing
        if last is None or not talk.is_editing:
            yield {self.page.chat.prompt: gr.update(value=""), self.page.chat.notice: ""}
            return
        yield {
            self.page.chat.prompt: gr.update(value=last.prompt),
            self.page.chat.notice: updates.editing(session, language),
        }

    @errors_shown
    def stop(self, session: Session, language: str) -> Iterator[Updates]:
        """Ask the answers to end."""
        session.jobs.stop("chat")
        yield {self.page.chat.stop: gr.update(interactive=False)}

    @errors_shown
    def clear(self, session: Session, language: str) -> Iterator[Updates]:
        """Forget the conversation."""
        session.conversation.forget()
        yield {**updates.conversation(self.page, session, language), self.page.chat.notice: ""}
