"""A budget shared out: each weight gets the scheme that makes the predicted loss of all least. Knows no plans.

What a layer is predicted to lose in a scheme is its damage (``predicted_damage``), which is that of rounding to
nearest, times what the method leaves of it (``remaining_loss``); the losses of layers add up. Experts of one block and
projection are one weight to most engines, and get one scheme, as do the parts that an engine joins.
"""

from collections.abc import Mapping, Sequence
from statistics import median

from studio.base.errors import SchemeError
from studio.base.units import format_bytes
from studio.checkpoint.layers import Kind, Layer
from studio.planning.budget import Budget
from studio.planning.fused import Joined, lots
from studio.planning.palettes import Palette
from studio.planning.remaining_loss import remaining_loss
from studio.quantization.methods import Method
from studio.quantization.scheme import Scheme

Damages = Mapping[str, Mapping[str, float]]
"""Layer -> scheme -> nats a token; a layer that has none cannot be measured."""
Schemes = dict[str, Scheme | None]
"""Layer -> scheme, None for 16 bits."""


def allotted(
    layers: Sequence[Layer],
    budget: Budget,
    palette: Palette,
    damages: Damages,
    method: Method,
    pinned: Mapping[str, Scheme | None],
    joined: Joined = (),
) -> tuple[Schemes, bool]:
    """Return the scheme of every weight that is not ``pinned``, and whether all damages were known for it.

    Parts that are ``joined``, by the palette's target or by choice, get one scheme.

    What is not known, or cannot be measured, counts as the median layer's weights do. A machine with room for more
    than the largest that this model can be is given that. Raises SchemeError for a size that is larger, and for any
    budget that is smaller than anything this model can be, pins included.
    """
    from studio.planning.knapsack import Option, least_loss  # brings numpy, which only plans with a budget need

    limit = budget.limit(layers, palette)
    free = _free(layers, pinned)
    held = _held(layers, free, palette, pinned)
    alike = _held_together(free, palette.joined or joined)
    guessed = _Guess(free, damages)
    offered: list[list[Scheme | None]] = [[*_offered(lot, palette), None] for lot in alike]
    groups = [
        [
            Option(
                sum(palette.nbytes(layer, scheme) for layer in lot),
                sum(_loss(layer, scheme, damages, method, guessed) for layer in lot),
            )
            for scheme in schemes
        ]
        for lot, schemes in zip(alike, offered, strict=True)
    ]
    low, high = (held + sum(most(option.size for option in group) for group in groups) for most in (min, max))
    if budget.room is not None:
        limit = min(limit, high)
    taken = least_loss(groups, limit - held) if limit <= high else None
    if taken is None:
        ends = format_bytes(low), format_bytes(high)
        raise SchemeError("budget_range", budget=str(budget), limit=format_bytes(limit), low=ends[0], high=ends[1])
    found = {
        layer.name: schemes[place] for lot, schemes, place in zip(alike, offered, taken, strict=True) for layer in lot
    }
    return found, not guessed.is_lacking(palette)


def bounds(layers: Sequence[Layer], palette: Palette) -> tuple[int, int]:
    """Return the fewest bytes that a model can take, and the most with every weight in a scheme that can hold it."""
    free = _free(layers, {})
    held = _held(layers, free, palette, {})
    sizes = [
        [palette.nbytes(layer, scheme) for scheme in palette.offered(layer)] or [palette.nbytes(layer, None)]
        for layer in free
    ]
    return held + sum(map(min, sizes)), held + sum(map(max, sizes))


def _free(layers: Sequence[Layer], pinned: Mapping[str, Scheme | None]) -> list[Layer]:
    return [layer for layer in layers if layer.is_weight and layer.name not in pinned]


def _held(layers: Sequence[Layer], free: Sequence[Layer], palette: Palette, pinned: Mapping[str, Scheme | None]) -> int:
    """Return the bytes of all that is not ``free``."""
    every = sum(palette.nbytes(layer, pinned.get(layer.name)) for layer in layers)
    return every - sum(palette.nbytes(layer, None) for layer in free)


def _held_together(layers: Sequence[Layer], joined: Joined) -> list[list[Layer]]:
    """Return the weights in lots of one scheme each: the parts that are joined, or else the experts of a block and
    projection; all others alone."""
    if joined:
        return lots(layers, joined)
    found: dict[object, list[Layer]] = {}
    for layer in layers:
        is_expert = layer.place is not None and "*" in layer.place[0]
        found.setdefault((layer.place if is_expert else layer.name, layer.matrix[1]), []).append(layer)
    return list(found.values())


def _offered(lot: Sequence[Layer], palette: Palette) -> list[Scheme]:
    """Return the schemes that each weight of a lot can be in."""
    return [scheme for scheme in palette.offered(lot[0]) if all(scheme in palette.offered(each) for each in lot[1:])]


def _loss(layer: Layer, scheme: Scheme | None, damages: Damages, method: Method, guess: "_Guess") -> float:
    if scheme is None:
        return 0.0
    known = (damages.get(layer.name) or {}).get(str(scheme))
    damage = guess.of(layer, scheme) if known is None else known
    return damage * (remaining_loss(scheme, method) if layer.kind is Kind.LINEAR else 1.0)


class _Guess:
    """Damages that are not known: the median of a weight's in the same scheme, or a quarter for every bit more."""

    def __init__(self, layers: Sequence[Layer], damages: Damages) -> None:
        self._layers, self._damages = layers, damages
        self._medians: dict[Scheme, float] = {}

    def of(self, layer: Layer, scheme: Scheme) -> float:
        """Return what a layer's damage may be."""
        if scheme not in self._medians:
            lines = ((each, (self._damages.get(each.name) or {}).get(str(scheme))) for each in self._layers)
            known = [damage / each.numel for each, damage in lines if damage is not None]
            self._medians[scheme] = median(known) if known else 0.25 ** (8 * scheme.nbytes(layer.matrix) / layer.numel)
        return self._medians[scheme] * layer.numel

    def is_lacking(self, palette: Palette) -> bool:
        """Return whether a damage that can be measured is not known."""
        for layer in self._layers:
            line = self._damages.get(layer.name)
            if layer.kind is Kind.LINEAR and line is None:
                return True
            if line and not all(str(scheme) in line for scheme in palette.offered(layer)):
                return True
        return False
