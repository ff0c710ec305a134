"""A model that can answer, with its files on this machine, for commands that need no plan."""

from typing import TYPE_CHECKING

from studio.base.errors import ModelError
from studio.cli.terminal import Terminal

if TYPE_CHECKING:
    from studio.checkpoint.checkpoint import Checkpoint


def fetched(here: Terminal, model: str) -> "Checkpoint":
    """Return a model that can chat, with its files on this machine."""
    from studio.session.session import Session

    session = Session(paths=True)
    checkpoint = here.follow(session.open(model))
    if not checkpoint.can_chat:  # before it is fetched for nothing
        raise ModelError("cannot_chat", architecture=checkpoint.architecture)
    return here.follow(session.fetch())
