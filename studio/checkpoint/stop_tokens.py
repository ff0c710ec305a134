"""Which tokens end an answer, as a model's files say. Knows no tokenizer, whose own may end one too."""

from pathlib import Path
from typing import Any

from studio.checkpoint.config_values import bad_value
from studio.checkpoint.file_names import CONFIG, GENERATION
from studio.checkpoint.json_file import read_json


def stop_ids(folder: Path, config: Any) -> frozenset[int]:
    """Return the ids that end an answer: by ``generation_config.json`` where it names some, else by the model's config.

    Raises CheckpointError, the file named, for what are no ids.
    """
    path, file = folder / GENERATION, GENERATION
    found = read_json(path).get("eos_token_id") if path.is_file() else None
    if found is None:
        file, found = CONFIG, getattr(config, "eos_token_id", None)
    ids = found if isinstance(found, list) else [found]
    if not all(each is None or type(each) is int for each in ids):
        raise bad_value("eos_token_id", found, "int, [int, …]", file)
    return frozenset(each for each in ids if each is not None)
