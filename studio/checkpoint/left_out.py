"""What a model's files hold that the model as transformers runs it does not: layers that predict further tokens (MTP),
towers for pictures or sound. Told from headers, before anything is written without it. Knows no target.

Tables that a model computes by itself (rotations, masks) and a head that is its embedding once more are no loss.
"""

import re
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from studio.base.errors import printable
from studio.base.text import text
from studio.base.units import format_bytes
from studio.checkpoint import stored_as
from studio.checkpoint.headers import TensorEntry
from studio.checkpoint.layers import Layer
from studio.checkpoint.scale_names import BLOCKS
from studio.checkpoint.tensor_names import TEXT_PARTS

COMPUTED = frozenset({"inv_freq", "masked_bias", "position_ids", "cos_cached", "sin_cached"})
"""What tables are called that are no weights."""
MASK_AXES = 4
"""A ``bias`` of so many is GPT-2's causal mask."""
SHOWN, MAX_WORDS = 4, 200
"""Parts, and characters, that a sentence names."""
NUMBER = re.compile(r"\.\d+(?=\.|$)")


@dataclass(frozen=True)
class LeftOut:
    """Tensors without a place: ``LeftOut(16, 1048576, ("model.layers.61", "mtp"))``."""

    tensors: int
    nbytes: int
    """As the files hold them."""
    parts: tuple[str, ...]
    """What they belong to, that of most bytes first."""

    def sentence(self, language: str) -> str:
        """Return what is said of them before something is made without them."""
        return text("model.note_left_out", language, **self.words)

    @property
    def words(self) -> dict[str, str]:
        """What a sentence says of them."""
        named = ", ".join(self.parts[:SHOWN]) + (", …" if len(self.parts) > SHOWN else "")
        return {
            "count": str(self.tensors),
            "size": format_bytes(self.nbytes),
            "parts": printable(named[:MAX_WORDS]),
        }


def left_out_names(entries: Mapping[str, TensorEntry], layers: Iterable[Layer]) -> list[str]:
    """Return the names of all entries that :func:`left_out` tells of, the scales and zero points of weights too."""
    return [name for stored in _without_place(entries, layers) for name in stored_as.parts_of(stored.name, entries)]


def left_out(entries: Mapping[str, TensorEntry], layers: Iterable[Layer]) -> LeftOut | None:
    """Return what no layer is made of; None where everything has its place."""
    found = _without_place(entries, layers)
    parts: Counter[str] = Counter()
    for stored in found:
        parts[_part(stored.name)] += stored.nbytes
    names = tuple(name for name, _ in parts.most_common())
    return LeftOut(len(found), parts.total(), names) if found else None


def _without_place(entries: Mapping[str, TensorEntry], layers: Iterable[Layer]) -> list[stored_as.StoredAs]:
    used, twins = set[str](), set[str]()
    for layer in layers:
        used.update(name.removesuffix(BLOCKS) for name in layer.sources)
        twins.update(layer.tied)
        twins.update([layer.name] if layer.tied else [])
    found = []
    for stored in stored_as.of_entries(entries):
        plain = ".".join(word for word in stored.name.split(".") if word not in TEXT_PARTS)
        if stored.name not in used and plain not in twins and not _is_computed(stored.name, stored.shape):
            found.append(stored)
    return found


def _is_computed(name: str, shape: tuple[int, ...]) -> bool:
    leaf = name.rpartition(".")[2]
    return leaf in COMPUTED or (leaf == "bias" and len(shape) == MASK_AXES)


def _part(name: str) -> str:
    """Return what a tensor belongs to: a numbered layer, or the first word after ``model``."""
    number = NUMBER.search(name)
    words = name.split(".")
    first = 2 if words[0] == "model" and len(words) > 2 else 1
    own = ".".join(words[:first])
    return name[: number.end()] if number is not None and name.startswith(("model.layers.", "layers.")) else own
