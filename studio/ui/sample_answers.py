"""The sample questions and both models' answers, as HTML. Pure; what a model wrote is escaped where it is marked."""

from collections.abc import Sequence
from html import escape

from studio.base.text import text
from studio.chat.conversation import Turn
from studio.checkpoint.open_model import BUILTIN
from studio.session.session import Session
from studio.ui.answers import divergence_words, turn_bubbles

COUNT = 3


def prompts(session: Session, language: str) -> list[str]:
    """Return the questions: in the visitor's language, but for the built-in model, which mostly knows English."""
    is_builtin = session.checkpoint is not None and session.checkpoint.name == BUILTIN
    return [text(f"samples.prompt_{number}", "en" if is_builtin else language) for number in range(1, COUNT + 1)]


def sample_answers(session: Session, language: str) -> str:
    """Return each question with both answers side by side; before they are given, what will be asked."""
    turns, asked = session.samples.turns, prompts(session, language)
    is_builtin = session.checkpoint is not None and session.checkpoint.name == BUILTIN
    note = f'<p class="hint">{escape(text("samples.builtin", language))}</p>' if is_builtin else ""
    if not turns:
        items = "".join(f"<li>{escape(prompt)}</li>" for prompt in asked)
        return f'<p class="hint">{escape(text("samples.none", language))}</p><ol class="coming">{items}</ol>{note}'
    return "".join(_turn(turn, language) for turn in turns) + note


def _turn(turn: Turn, language: str) -> str:
    names = [text("chat.original", language), text("chat.compressed", language)]
    said = [(names[i], _said(turn, i, language)) for i in range(len(turn.answers.replies))]
    return side_by_side(turn.prompt, said, _parting(turn, language))


def side_by_side(question: str, answers: Sequence[tuple[str, str]], below: str = "") -> str:
    """Return a question with what each answered; names and question as text, answers and what is below as HTML."""
    columns = "".join(f'<div><h4>{escape(name)}</h4><p class="said">{said}</p></div>' for name, said in answers)
    return (
        f'<article class="sample"><p class="question">{escape(question)}</p>'
        f'<div class="pair">{columns}</div>{below}</article>'
    )


def _said(turn: Turn, column: int, language: str) -> str:
    reply = turn.answers.replies[column]
    if reply.error is not None:
        return escape(reply.error.sentence(language))
    bubbles: Sequence[dict[str, str]] = turn_bubbles(turn.prompt, turn.answers, column, language)
    more = "…" if reply.ended == "length" else ""
    return (bubbles[-1]["content"] + more) if len(bubbles) > 1 else "…"


def _parting(turn: Turn, language: str) -> str:
    answers = turn.answers
    if answers.divergence is not None:
        return f'<p class="parting">{escape(divergence_words(answers.divergence, 0, language)[0])}</p>'
    if answers.is_compared and all(reply.ended for reply in answers.replies):
        return f'<p class="hint">{escape(text("part.nowhere", language))}</p>'
    return ""
