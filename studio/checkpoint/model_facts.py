"""What config and headers tell of a model, kept from one visit to the next. Knows neither transformers nor torch.

Whatever it depends on is in the name of its file: config, headers, files and the release of transformers, whose code
decides what counts as a layer. What is read is checked as a file that anyone may have written.
"""

import hashlib
import importlib.metadata
import json
import math
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from studio.base import json_cache
from studio.base.settings import settings
from studio.checkpoint.headers import TensorEntry
from studio.checkpoint.layers import Kind, Layer

VERSION = 1
"""Raised when other layers are found for the same files, or written in another way."""


@dataclass(frozen=True)
class ModelFacts:
    """A model as its config and headers describe it."""

    architecture: str
    source_format: str
    """The formats of the weights, the one with most bytes first: ``"BF16"``, ``"MXFP4/BF16"``."""
    can_chat: bool
    part: str
    layers: tuple[Layer, ...]


def file_of(config: Mapping[str, Any], entries: Mapping[str, TensorEntry], *files: object) -> Path:
    """Return where the facts are kept; ``files`` says which tensors stand behind the headers, as far as is known."""
    key = hashlib.sha256(repr((VERSION, importlib.metadata.version("transformers"), files)).encode())
    key.update(json.dumps(config, sort_keys=True).encode())
    for name, entry in entries.items():
        key.update(repr((name, entry.file, entry.dtype, entry.shape)).encode())
    return settings().cache_dir / "models" / f"{key.hexdigest()[:32]}.json"


def keep(file: Path, facts: ModelFacts) -> None:
    """Write facts for the next visit."""
    json_cache.keep(file, asdict(facts))


def recall(file: Path, entries: Mapping[str, TensorEntry]) -> ModelFacts | None:
    """Return what is kept from an earlier visit, None where there is nothing, or nothing that fits the headers."""
    try:
        kept: dict[str, Any] = json_cache.recall(file)
        layers = tuple([_layer(**line) for line in kept.pop("layers")])
        facts = ModelFacts(**kept, layers=layers)
        words = (facts.architecture, facts.source_format, facts.part)
        is_sound = all(isinstance(word, str) for word in words) and isinstance(facts.can_chat, bool)
        return facts if is_sound and all(_is_held(layer, entries) for layer in layers) else None
    except (ValueError, KeyError, TypeError, AttributeError):
        return None


def _layer(
    name: str, sources: Iterable[str], kind: str, shape: list[int], transposed: bool, tied: Iterable[str], side: str
) -> Layer:
    if not all(type(size) is int and size >= 0 for size in shape) or not isinstance(transposed, bool):
        raise ValueError
    if not all(isinstance(each, str) for each in (name, side, *tied)):
        raise ValueError
    return Layer(name, tuple(sources), Kind(kind), tuple(shape), transposed, tuple(tied), side)


def _is_held(layer: Layer, entries: Mapping[str, TensorEntry]) -> bool:
    """Return whether a layer's tensors have as many numbers as it has; packed ones have two to a byte."""
    held = sum(entries[name].numel * (1 if _is_plain(entries[name]) else 2) for name in layer.sources)
    return bool(layer.sources) and held == math.prod(layer.shape)


def _is_plain(entry: TensorEntry) -> bool:
    return entry.dtype != "U8"
