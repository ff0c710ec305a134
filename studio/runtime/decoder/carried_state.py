"""What a transformers model carries from one piece of a text to the next, and how it wants them. Knows no weights.

Most take transformers' own cache and any number of tokens. Some carry a state that their code continues one token at a
time, some make a cache of their own, and some carry nothing: these read the whole text again for every token.
"""

import inspect
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from torch import Tensor, nn

CARRIED = ("cache", "cache_params", "past_key_values", "state")
"""What models call what they carry; before transformers 5.24 keys and values had other names."""

ONE_BY_ONE = frozenset({"mamba", "falcon_mamba", "jamba", "zamba", "recurrent_gemma", "minimax"})
"""Families whose code begins anew, or masks wrongly, where more than one token comes to a state."""

IN_MODULES = ("conv1d_state", "recurrent_states")
"""What some keep in their modules' attributes, where the next text would find it."""


@dataclass(frozen=True)
class Memory:
    """How a model is given a text in pieces."""

    name: str | None
    """The argument, and the part of its output, that it carries; None where it carries nothing."""
    is_own: bool
    """Whether it makes it itself, not transformers' DynamicCache."""
    one_by_one: bool
    """Whether only the first piece may be longer than a token."""
    takes_positions: bool
    """Whether it is told where a piece stands: some look for that in a first layer that does not know."""


def memory_of(model: nn.Module) -> Memory:
    """Return how a transformers model is given a text in pieces."""
    names = inspect.signature(model.forward).parameters
    # RoBERTa's positions begin behind that of padding.
    counts_itself = any(hasattr(module, "create_position_ids_from_input_ids") for module in model.modules())
    kind = str(getattr(model.config, "model_type", ""))
    return Memory(
        name=next((name for name in CARRIED if name in names), None),
        is_own=not model._supports_default_dynamic_cache(),  # type: ignore[operator]
        one_by_one=kind in ONE_BY_ONE,
        takes_positions="position_ids" in names and not counts_itself,
    )


class Places:
    """Where a model keeps a text's state in its own modules. One text's is there at a time."""

    def __init__(self, model: nn.Module) -> None:
        self._all = [(module, name) for module in model.modules() for name in IN_MODULES if name in vars(module)]

    def put(self, states: Sequence[Any]) -> None:
        """Let the model go on with these states; with none of them it begins anew."""
        for (module, name), state in zip(self._all, states or [None] * len(self._all), strict=True):
            setattr(module, name, state)

    def take(self) -> list[Any]:
        """Return the states that the model has by now."""
        return [getattr(module, name) for module, name in self._all]


def carried_bytes(carried: Any) -> int:
    """Return the bytes of all tensors in whatever a model carries: a cache, lists, tables."""
    if isinstance(carried, Tensor):
        return carried.nbytes
    if isinstance(carried, dict):
        return sum(map(carried_bytes, carried.values()))
    if isinstance(carried, list | tuple):
        return sum(map(carried_bytes, carried))
    module = type(carried).__module__
    return carried_bytes(vars(carried)) if module.startswith("transformers.") and hasattr(carried, "__dict__") else 0
