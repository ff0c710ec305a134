"""A folder's tokenizer and chat template, read by transformers. Trusts nothing in them; runs in a child alone.

Of ``config.json`` the library sees the family's name and the tokenizer's class, and nothing else: sizes that a stranger
wrote there can fill the memory.
"""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from studio.base.errors import CheckpointError
from studio.checkpoint.file_names import CONFIG
from studio.checkpoint.json_file import read_json

TOKENIZER, SETTINGS = "tokenizer.json", "tokenizer_config.json"
FILES = (TOKENIZER, "tokenizer.model", "tiktoken.model", "tekken.json", "vocab.json", "vocab.txt", "spiece.model")
"""What a vocabulary can stand in, the first that is there being the one that is read."""
TEMPLATES = "additional_chat_templates"
OTHERS = ("*vocab*", "*.model", "*.spm", "*.tiktoken", "tokenizer*")
OBJECTS = (SETTINGS, "special_tokens_map.json", "added_tokens.json")
"""Files that hold a JSON object, where they are there."""
SHOWN = 60
"""Characters of a stranger's value in a sentence."""


def vocabulary_file(folder: Path) -> str:
    """Return the name of the file that a folder's vocabulary stands in. Raises CheckpointError where there is none."""
    named = (name for name in FILES if (folder / name).is_file())
    other = (file.name for pattern in OTHERS for file in sorted(folder.glob(pattern)) if file.is_file())
    found = next((name for names in (named, other) for name in names), None)
    if found is None:
        raise CheckpointError("no_tokenizer", model=folder.name)
    return found


def read_tokenizer(folder: Path) -> Any:
    """Return transformers' tokenizer of a folder.

    Raises CheckpointError for files that are none or hold what cannot be, and whatever the libraries raise.
    """
    from transformers import AutoTokenizer

    vocabulary_file(folder)
    settings = {name: _object(folder / name) for name in OBJECTS}
    _check(settings[SETTINGS])
    tokenizer = AutoTokenizer.from_pretrained(
        folder, config=_config(folder), local_files_only=True, trust_remote_code=False
    )
    tokenizer.model_max_length = 1 << 60  # the model says what it can read; this would only be warned of
    return tokenizer


def chat_template(folder: Path, tokenizer: Any) -> tuple[str, str] | None:
    """Return the text of a chat template and the name of the file it stands in, None for a model without one.

    Raises CheckpointError where it is no text.
    """
    found, alone = tokenizer.chat_template, folder / "chat_template.json"
    if found is None and alone.is_file():  # how processors of pictures were saved, for a time
        return _text(_object(alone).get("chat_template"), alone.name), alone.name
    name = "default"
    if isinstance(found, Mapping) and found:
        name = name if name in found else min(map(str, found))
        found = found.get(name)
    if not found and found != 0:
        return None
    if (folder / "chat_template.jinja").is_file() and name == "default":
        file = "chat_template.jinja"
    else:
        file = f"{TEMPLATES}/{name}.jinja"
        file = file if (folder / file).is_file() else SETTINGS
    return _text(found, file), file


def _text(found: Any, file: str) -> str:
    if not isinstance(found, str):
        raise _wrong(file, "chat_template", found)
    return found


def _check(settings: Mapping[str, Any]) -> None:
    """Raise CheckpointError for a value that the library would stumble over later."""
    length = settings.get("model_max_length")
    if isinstance(length, bool) or not isinstance(length, int | float | None):
        raise _wrong(SETTINGS, "model_max_length", length)
    template = settings.get("chat_template")
    if isinstance(template, list):
        is_sound = all(isinstance(t, dict) and isinstance(t.get("template"), str) and "name" in t for t in template)
    else:
        is_sound = isinstance(template, str | None)
    if not is_sound:
        raise _wrong(SETTINGS, "chat_template", template)


def _wrong(file: str, key: str, value: Any) -> CheckpointError:
    return CheckpointError("tokenizer_setting", file=file, key=key, value=json.dumps(value, default=str)[:SHOWN])


def _config(folder: Path) -> Any:
    """Return a config of the model's family as it comes, with the name of its tokenizer's class."""
    from transformers import PreTrainedConfig
    from transformers.models.auto.configuration_auto import CONFIG_MAPPING

    said = _object(folder / CONFIG)
    kind, tokenizer_class = said.get("model_type"), said.get("tokenizer_class")
    try:
        config = CONFIG_MAPPING[kind]() if isinstance(kind, str) and kind in CONFIG_MAPPING else PreTrainedConfig()
    except Exception:  # some need parts to be made of; none of these chats
        config = PreTrainedConfig()
    config.tokenizer_class = tokenizer_class if isinstance(tokenizer_class, str) else None
    config._name_or_path = str(folder)
    return config


def _object(file: Path) -> dict[str, Any]:
    """Return the JSON object of a file, an empty one where it is not there. Raises CheckpointError for another."""
    return read_json(file) if file.is_file() else {}
