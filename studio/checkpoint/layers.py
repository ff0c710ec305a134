"""One layer of a model: its kind, shape and name. Knows nothing of configs or files."""

import math
import re
from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum
from functools import cached_property

EXPERT = re.compile(r"(?<=\.)\d+(?=\.)")
"""The number of an expert in a name, between dots."""


class Kind(StrEnum):
    """The part a tensor plays."""

    LINEAR = "linear"
    EMBEDDING = "embedding"
    HEAD = "head"
    OTHER = "other"
    """Norms, biases, convolutions, routers that are no linear module: kept at 16 bits always."""


@dataclass(frozen=True)
class Layer:
    """One tensor of the model.

    ``Layer("model.layers.0.mlp.up_proj.weight", ("model.layers.0.mlp.up_proj.weight",), Kind.LINEAR, (1536, 576))``.
    A weight's ``shape`` is always [N, K], or [E, N, K] for E experts, output channels first, also where the model
    holds it ``transposed``.
    """

    name: str
    """The parameter's name in the model."""
    sources: tuple[str, ...]
    """The checkpoint's tensors that, stacked along their rows, make it."""
    kind: Kind
    shape: tuple[int, ...]
    transposed: bool = False
    tied: tuple[str, ...] = ()
    """Other parameters that are this same tensor: a tied head."""
    side: str = ""
    """``"encoder"`` or ``"decoder"`` in a model with both, whose blocks have the same numbers."""

    @property
    def source(self) -> str:
        """The first of the checkpoint's tensors: the name to put into a message."""
        return self.sources[0]

    @property
    def is_weight(self) -> bool:
        """Whether it can be compressed."""
        return self.kind is not Kind.OTHER

    @cached_property
    def numel(self) -> int:
        return math.prod(self.shape)

    @property
    def original_bytes(self) -> int:
        """Bytes at 16 bits."""
        return 2 * self.numel

    @cached_property
    def matrix(self) -> tuple[int, int]:
        """[N, K] of a weight, [E * N, K] of experts'."""
        *rows, width = self.shape
        return math.prod(rows), width

    @property
    def stored_shape(self) -> tuple[int, ...]:
        """The shape the model's parameter has: [K, N] or [E, K, N] where it is transposed."""
        return (*self.shape[:-2], self.shape[-1], self.shape[-2]) if self.transposed else self.shape

    @cached_property
    def block(self) -> int | None:
        """The transformer block it sits in, None outside the blocks."""
        return next((int(part) for part in self.name.split(".") if part.isdecimal()), None)

    @cached_property
    def projection(self) -> str:
        """What it is called within a block: ``"self_attn.q_proj"``; outside one, its module's name.

        In a model with both it begins with the one it is in: ``"encoder.layer.0.SelfAttention.q"``.
        """
        parts = self.name.removesuffix(".weight").split(".")
        numbers = [index for index, part in enumerate(parts) if part.isdecimal()]
        within = parts[numbers[0] + 1 :] if numbers else parts[-1:]
        return ".".join((self.side, *within) if self.side else within)

    @cached_property
    def place(self) -> tuple[str, int] | None:
        """Where it stands on a map: its projection, ``*`` for an expert's number, by its block; None outside both."""
        if self.kind is not Kind.LINEAR or self.block is None:
            return None
        return EXPERT.sub("*", f".{self.projection}.")[1:-1], self.block


def ratio_defining(layers: Sequence[Layer], all_layers: bool = False) -> list[Layer]:
    """Return the weights the ratio speaks of: linear ones, without the head (a tied head goes with its embedding).

    With ``all_layers``, as NNCF names it, head and embeddings join them, after the others.
    """
    linear = [layer for layer in layers if layer.kind is Kind.LINEAR]
    if not all_layers:
        return linear
    return linear + [layer for kind in (Kind.HEAD, Kind.EMBEDDING) for layer in layers if layer.kind is kind]
