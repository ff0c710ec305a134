"""One hostile input: how it is made, how it is opened, and what may be said of it. Opens nothing."""

import json
import pickle
import shutil
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from tests.gguf_files import write_gguf

WEIGHTS, CONFIG, TOKENIZER, INDEX = (
    "model.safetensors", "config.json", "tokenizer.json", "model.safetensors.index.json",
)  # fmt: skip
SECRET = "the-secret-of-somebody-else"
COMPRESS = ("compress", "{model}", "--out", "{out}")
CHAT = ("chat", "{model}", "--prompt", "Hello", "--max-new-tokens", "4")
ESTIMATE = ("estimate", "{model}")
EVALUATE = ("evaluate", "{out}", "--against", "{model}")
TOO_MUCH = ("file_too_large", "too_deep", "too_many_values", "too_many_tensors", "too_many_layers", "large_buffers")
"""By which anything may be refused that is larger, deeper or more than any model has."""
GGUF, PACKED, RECIPE = "model.gguf", "packed", "recipe.json"


@dataclass(frozen=True)
class Place:
    """Where a case is built, and the sound files that it may spoil."""

    folder: Path
    base: Path
    """``llama``, a tiny model; ``packed``, what compress made of it; ``gguf.pickle``, the parts of its GGUF file."""

    @property
    def model(self) -> Path:
        return self.folder / "model"

    @property
    def marker(self) -> Path:
        """A file that only code of the case would make."""
        return self.folder / "ran"

    @property
    def secret(self) -> Path:
        """Somebody else's file, beside the model."""
        return self.folder / "secret.txt"

    def llama(self) -> Path:
        """Put the tiny model there."""
        return Path(shutil.copytree(self.base / "llama", self.model))

    def packed(self) -> Path:
        """Put the compressed folder there."""
        return Path(shutil.copytree(self.base / PACKED, self.model))

    def gguf(self, metadata: Mapping[str, Any] | None = None, change: Callable[[Any], object] = lambda _: None) -> Path:
        """Write the model as a GGUF file, with other metadata (None takes one away) and changed arrays."""
        known, arrays = pickle.loads((self.base / "gguf.pickle").read_bytes())
        change(arrays)
        return write_gguf(self.folder / GGUF, "llama", known | dict(metadata or {}), arrays)


@dataclass(frozen=True)
class Case:
    """One of them."""

    name: str
    build: Callable[[Place], object]
    keys: tuple[str, ...] = ()
    """By which errors it may be refused; none: it has to be harmless."""
    command: tuple[str, ...] = COMPRESS
    """What opens it."""
    model: str = "model"
    """The name of what is opened, in the case's folder."""
    may_work: bool = False
    """Whether it may be harmless, too."""
    named: str = ""
    """A word that the sentence has to have."""
    environment: Mapping[str, str] = field(default_factory=dict)

    @property
    def is_harmless(self) -> bool:
        return self.may_work or not self.keys


def edit(path: Path, change: Callable[[Any], object]) -> None:
    """Change a JSON file in place."""
    content = json.loads(path.read_text())
    changed = change(content)
    path.write_text(json.dumps(changed if isinstance(changed, list | dict) else content))


def read_header(file: Path) -> tuple[dict[str, Any], bytes]:
    """Return the header of a safetensors file, and its data."""
    raw = file.read_bytes()
    end = 8 + int.from_bytes(raw[:8], "little")
    return json.loads(raw[8:end]), raw[end:]


def write_header(file: Path, header: bytes, data: bytes = b"") -> None:
    file.write_bytes(len(header).to_bytes(8, "little") + header + data)


def pickle_that_runs(marker: Path) -> bytes:
    """Return a pickle that makes a file where it is loaded."""

    class Runs:
        def __reduce__(self) -> tuple[Any, ...]:
            return Path.touch, (marker,)

    return pickle.dumps(Runs())
