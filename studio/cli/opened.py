"""Models that commands work on: one that can answer, and one that is about to be compressed. Knows no command."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from studio.base.text import text
from studio.cli.options import Chosen
from studio.cli.terminal import Terminal, language, say
from studio.planning.choice import Choice

if TYPE_CHECKING:
    from studio.checkpoint.checkpoint import Checkpoint
    from studio.compression.compress import Compressed
    from studio.session.session import Session


def fetch(here: Terminal, session: "Session", name: str) -> None:
    """Make a model that can chat the session's, with its files on this machine."""
    from studio.session.whole_jobs import fetched

    here.follow(fetched(session, name))


@contextmanager
def compressing(
    here: Terminal, model: str, chosen: Chosen, calibrate: str, target: Path, revision: str | None = None
) -> "Iterator[tuple[Session, Checkpoint]]":
    """Lend a session with a model and a plan, on the disk of ``target``, and the model. Raises UserError.

    ``revision``: a commit of it on the Hub, the newest by default.
    """
    from studio.session.whole_jobs import compressing_into, planned

    choice = Choice.of(**chosen)
    here.interrupted = "interrupted_anew" if choice.is_calibrated else "interrupted"
    with compressing_into(target, choice, calibrate) as session:
        checkpoint = here.follow(planned(session, model, "group_size" in chosen, revision))
        note_part(here, checkpoint)
        if session.model.grid is not None:
            here.note(text("model.note_grid", language(), scheme=session.model.grid))
        yield session, checkpoint


def note_part(here: Terminal, checkpoint: "Checkpoint") -> None:
    """Say where a model is only part of what its files hold, and which tensors nothing is made of."""
    if checkpoint.part:
        here.note(text(f"model.note_part_{checkpoint.part}", language()))
    found = checkpoint.left_out
    if found is not None:
        here.note(found.sentence(language()))


def note_uncalibrated(here: Terminal, done: "Compressed") -> None:
    """Say which weights a calibrated method could not round by what they are given."""
    if done.unreached:
        here.note(say("unreached", layers=", ".join(done.unreached)))
    if done.stacks:
        here.note(text("method.stacks", language(), count=len(done.stacks)))
