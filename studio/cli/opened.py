"""Models that can answer, for commands that need no plan: a compressed folder, or one whose files are brought here."""

from pathlib import Path
from typing import TYPE_CHECKING

from studio.base.errors import ModelError
from studio.base.typed_paths import typed_path
from studio.cli.terminal import Terminal

if TYPE_CHECKING:
    from studio.session.session import Session


def compressed_folder(name: str) -> Path | None:
    """Return the folder of a compressed model that can chat, None for a name of another kind. Raises UserError."""
    from studio.checkpoint.checkpoint import read_json
    from studio.checkpoint.config import check_can_chat, load_config
    from studio.checkpoint.file_names import CONFIG
    from studio.checkpoint.recipe import is_compressed

    folder = typed_path(name)
    if not is_compressed(folder):
        return None
    check_can_chat(load_config(read_json(folder / CONFIG)))
    return folder


def fetch(here: Terminal, session: "Session", name: str) -> None:
    """Make a model that can chat the session's, with its files on this machine."""
    checkpoint = here.follow(session.open(name))
    if not checkpoint.can_chat:  # before it is fetched for nothing
        raise ModelError("cannot_chat", architecture=checkpoint.architecture)
    here.follow(session.fetch())
