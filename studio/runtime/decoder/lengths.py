"""Rotations whose frequencies follow the length of the text (dynamic NTK, longrope). Knows no caches.

transformers keeps the longest length it has met in the model, where the next text finds it. Here every reading begins
from the config's own frequencies, so that an answer depends on its text alone.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from torch import nn


@dataclass(frozen=True)
class Lengths:
    """A model's rotations that follow the length."""

    dynamic: tuple[int, ...] = ()
    """The original lengths of those whose frequencies change with every token beyond."""
    switching: tuple[int, ...] = ()
    """The original lengths of those that change once, beyond it."""

    def __bool__(self) -> bool:
        return bool(self.dynamic or self.switching)

    def of(self, length: int) -> tuple[int, ...]:
        """Return what the frequencies for a length depend on: two lengths with the same have the same frequencies."""
        grown = (max(length, original) for original in self.dynamic)
        return (*grown, *(length > original for original in self.switching))

    def switched(self, length: int) -> tuple[bool, ...]:
        """Return on which side of their original length the switching ones are."""
        return tuple(length > original for original in self.switching)


def lengths_of(model: nn.Module) -> Lengths:
    """Return a model's rotations that follow the length."""
    dynamic, switching = set(), set()
    for module in _rotations(model):
        parameters = module.config.rope_parameters
        kinds = module.rope_type if isinstance(module.rope_type, dict) else {"": module.rope_type}
        for kind, name in kinds.items():
            if "dynamic" in name:
                dynamic.add(int(module.original_max_seq_len))
            elif name == "longrope":
                of_kind = parameters[kind] if kind else parameters
                switching.add(int(of_kind["original_max_position_embeddings"]))
    return Lengths(tuple(sorted(dynamic)), tuple(sorted(switching)))


def forget_lengths(model: nn.Module) -> None:
    """Let a model's rotations forget what lengths they have met."""
    for module in _rotations(model):
        kinds = module.rope_type if isinstance(module.rope_type, dict) else {"": module.rope_type}
        for kind, name in kinds.items():
            prefix = f"{kind}_" if kind else ""
            if "dynamic" in name:
                setattr(module, f"{prefix}inv_freq", getattr(module, f"{prefix}original_inv_freq").clone())
                setattr(module, f"{prefix}max_seq_len_cached", module.original_max_seq_len)


def _rotations(model: nn.Module) -> Iterator[Any]:
    return (module for module in model.modules() if hasattr(module, "rope_type") and hasattr(module, "config"))
