"""Weights that have one scheme, since an engine multiplies them at once. Knows no schemes and no plans.

vLLM makes one module of q, k and v, one of gate and up, and one of all experts of a block. Sources: its models'
``packed_modules_mapping``; ``get_moe_method`` of its compressed-tensors, which refuses experts of several schemes.
"""

import math
from collections.abc import Sequence

from studio.checkpoint.layers import Layer

Joined = tuple[tuple[str, ...], ...]
"""Modules of one parent that are one module in an engine, by name."""
JOINED: Joined = (("q_proj", "k_proj", "v_proj"), ("gate_proj", "up_proj"))
"""vLLM's."""
MATRIX = 2
"""Dimensions of a weight that is no stack of experts'."""


def lots(layers: Sequence[Layer], joined: Joined) -> list[list[Layer]]:
    """Return the weights in lots of one scheme each, in the order of each lot's first: the parts that are ``joined``,
    with them the experts of a block, one by one or stacked in tensors, all others alone. A part of another width is
    apart, unless experts have it: see :func:`width_of`."""
    found: dict[object, list[Layer]] = {}
    for layer in layers:
        found.setdefault(_lot(layer, joined), []).append(layer)
    return list(found.values())


def width_of(lot: Sequence[Layer]) -> int:
    """Return the widest input, in channels, whose groups fit every weight of a lot: the greatest common divisor."""
    return lot[0].matrix[1] if len(lot) == 1 else math.gcd(*(layer.matrix[1] for layer in lot))


def _lot(layer: Layer, joined: Joined) -> object:
    if not joined:
        return layer.name
    projection, block = layer.place or ("", 0)
    experts, star, _ = projection.partition(".*.")
    if star:
        return experts, block
    if len(layer.shape) > MATRIX:
        return projection.rpartition(".")[0], block
    parent, _, own = layer.name.removesuffix(".weight").rpartition(".")
    parts = next((parts for parts in joined if own in parts), None)
    return layer.name if parts is None else (parent, parts, layer.matrix[1])
