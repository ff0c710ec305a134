"""A model that can answer, for commands that need no plan: its files are brought here, and one sees it."""

from typing import TYPE_CHECKING

from studio.cli.terminal import Terminal

if TYPE_CHECKING:
    from studio.session.session import Session


def fetch(here: Terminal, session: "Session", name: str) -> None:
    """Make a model that can chat the session's, with its files on this machine."""
    from studio.session.whole_jobs import fetched

    here.follow(fetched(session, name))
