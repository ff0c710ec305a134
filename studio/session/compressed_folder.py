"""A name that may be a folder which the studio compressed. Knows no session."""

from pathlib import Path

from studio.base.typed_paths import typed_path
from studio.checkpoint.config import check_can_chat, load_config
from studio.checkpoint.file_names import CONFIG
from studio.checkpoint.json_file import read_json
from studio.checkpoint.recipe import is_compressed


def compressed_folder(name: Path | str) -> Path | None:
    """Return the folder of a compressed model that can chat, None for a name of another kind. Raises UserError."""
    folder = typed_path(name)
    if not is_compressed(folder):
        return None
    check_can_chat(load_config(read_json(folder / CONFIG)))
    return folder
