"""Choices -> a scheme for every tensor, with the exact bytes that follow. Reads no weights.

The ratio rule is NNCF's (``nncf/quantization/algorithms/weight_compression/mixed_precision.py``, 3.4): linear weights
but the head define the ratio; in order of rising sensitivity they take the primary mode while their share stays
below it; all else takes the backup. A pinned weight stands outside of the rule, as NNCF's ignored ones do.
Where fused layers share a scheme, a lot of them is taken as one weight: by its mean score, by its first pin, and with
groups that fit all of it.
"""

import math
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from statistics import median
from typing import NamedTuple

from studio.base.errors import SchemeError
from studio.checkpoint.layers import Kind, Layer, ratio_defining
from studio.planning.allotment import Damages, allotted
from studio.planning.choice import Choice
from studio.planning.fused import JOINED, Joined, lots, width_of
from studio.planning.mixes import MIXES, NONE, fitting
from studio.planning.palettes import PALETTES
from studio.quantization.scheme import Mode, Scheme, fitting_group_sizes

MIN_ADJUSTED_GROUP = 32
"""The smallest group that a weight's is adjusted to; below it the weight takes the backup."""


class Assignment(NamedTuple):
    """One tensor and what it becomes; ``scheme`` None keeps it at 16 bits."""

    layer: Layer
    scheme: Scheme | None

    @property
    def nbytes(self) -> int:
        return self.layer.original_bytes if self.scheme is None else self.scheme.nbytes(self.layer.matrix)


@dataclass(frozen=True)
class DistributionRow:
    """A row of NNCF's table: what one mode takes of all weights and of the ratio-defining ones."""

    scheme: str
    weights: int
    layers: int
    ratio_weights: int
    ratio_layers: int


@dataclass(frozen=True)
class Plan:
    """Every tensor of the model with its scheme, in the model's order."""

    choice: Choice
    assignments: tuple[Assignment, ...]
    is_exact: bool
    """False while sensitivities are unknown or estimates, and the choice needs them: sizes are then estimates."""
    pinned: frozenset[str] = frozenset()
    """Names of the weights whose scheme the user decided."""

    @cached_property
    def original_bytes(self) -> int:
        return sum(self.original_breakdown.values())

    @cached_property
    def compressed_bytes(self) -> int:
        return sum(self.breakdown.values())

    @cached_property
    def weights(self) -> int:
        return sum(math.prod(shape) * count for (_, _, shape), count in self._alike.items())

    @cached_property
    def _alike(self) -> "Counter[tuple[Kind, Scheme | None, tuple[int, ...]]]":
        """How many tensors have the same part, scheme and shape: a model of thousands has a few dozen sorts."""
        return Counter([(a.layer.kind, a.scheme, a.layer.shape) for a in self.assignments])

    @property
    def compressed_layers(self) -> int:
        """How many tensors do not stay at 16 bits."""
        return sum(count for (_, scheme, _), count in self._alike.items() if scheme is not None)

    @property
    def linear_schemes(self) -> set[Scheme | None]:
        """What linear weights become, None for 16 bits."""
        return {scheme for kind, scheme, _ in self._alike if kind is Kind.LINEAR}

    @property
    def bits_per_weight(self) -> float:
        return self.compressed_bytes * 8 / self.weights

    def scheme_of(self, name: str) -> Scheme | None:
        """Return the scheme of the tensor called ``name``."""
        return self._schemes[name]

    @cached_property
    def _schemes(self) -> dict[str, Scheme | None]:
        return {a.layer.name: a.scheme for a in self.assignments}

    @cached_property
    def breakdown(self) -> dict[str, int]:
        """Bytes by what they hold: ``blocks``, ``embeddings``, ``head`` (codes), ``scales``, ``zero_points``, ``other``
        (norms and biases). They add up to ``compressed_bytes``."""
        sums = dict.fromkeys(BREAKDOWN, 0)
        for (kind, scheme, shape), count in self._alike.items():
            place = _PLACES[kind]
            if scheme is None:
                sums[place] += 2 * math.prod(shape) * count
                continue
            if scheme.mode.is_in_blocks:  # codes and scales in one array
                codes = math.prod(shape) * scheme.mode.bits // 8
                sums[place] += codes * count
                sums["scales"] += (scheme.nbytes((math.prod(shape[:-1]), shape[-1])) - codes) * count
                continue
            for part in scheme.parts((math.prod(shape[:-1]), shape[-1])):
                category = place if part.name == "codes" else _PART_PLACES.get(part.name, "scales")
                sums[category] += part.nbytes * count
        return sums

    @cached_property
    def original_breakdown(self) -> dict[str, int]:
        """The 16-bit bytes in the places of :attr:`breakdown`."""
        sums = dict.fromkeys(BREAKDOWN, 0)
        for (kind, _, shape), count in self._alike.items():
            sums[_PLACES[kind]] += 2 * math.prod(shape) * count
        return sums

    def distribution(self) -> list[DistributionRow]:
        """Return NNCF's table of modes over all weights and over the ratio-defining ones, most bits first."""
        follows = self.choice.all_layers and self.choice.mode.is_mixable
        defining = {layer.kind for layer in ratio_defining([a.layer for a in self.assignments], follows)}
        shares: dict[Scheme | None, list[int]] = {}
        for (kind, scheme, shape), count in self._alike.items():
            if kind is Kind.OTHER:
                continue
            row = shares.setdefault(scheme, [0, 0, 0, 0])
            counts = (math.prod(shape) * count, count)
            row[0], row[1] = row[0] + counts[0], row[1] + counts[1]
            if kind in defining:
                row[2], row[3] = row[2] + counts[0], row[3] + counts[1]
        return [DistributionRow("float16" if s is None else str(s), *shares[s]) for s in sorted(shares, key=_by_bits)]


def _by_bits(scheme: Scheme | None) -> tuple[int, str, int]:
    """Return what NNCF's table is sorted by: most bits first, then the mode, then the group."""
    return (-16, "", 0) if scheme is None else (-scheme.mode.bits, scheme.mode.value, scheme.group_size)


BREAKDOWN = ("blocks", "embeddings", "head", "scales", "zero_points", "other")
"""What bytes can hold."""
_PART_PLACES = {"zero_point": "zero_points", "offset": "zero_points"}
"""Of what is beside the codes; all else counts as scales."""
_PLACES = {Kind.LINEAR: "blocks", Kind.EMBEDDING: "embeddings", Kind.HEAD: "head", Kind.OTHER: "other"}


def group_sizes(layers: Sequence[Layer]) -> tuple[int, ...]:
    """Return the group sizes that fit every ratio-defining weight of this model."""
    return fitting_group_sizes(layer.matrix[1] for layer in ratio_defining(layers))


def make_plan(
    layers: Sequence[Layer],
    choice: Choice,
    sensitivities: Mapping[str, float] | None = None,
    are_estimates: bool = False,
    damages: Damages | None = None,
) -> Plan:
    """Return the plan of ``choice``.

    ``sensitivities``: a score by tensor name, NNCF's or that of :func:`damage_scores`; high stays at backup. Without
    them a mixed choice is planned in the model's order and marked as an estimate, as it is where they
    ``are_estimates``. ``damages``: by layer and scheme, what a budget is spent by; likewise.
    Raises SchemeError when the group size fits no or not every layer, unless the choice says what to do then, and for
    a budget that this model cannot be.
    """
    pinned = _pinned(layers, choice)
    if choice.budget is not None:
        palette = PALETTES[choice.target]
        given, is_exact = allotted(
            layers, choice.budget, palette, damages or {}, choice.method, pinned, _joined(choice)
        )
        given |= pinned
        return Plan(choice, tuple([Assignment(x, given.get(x.name)) for x in layers]), is_exact, frozenset(pinned))
    if choice.mix != NONE:
        mixed = MIXES[choice.mix].schemes(layers) | pinned
        taken = tuple([Assignment(layer, mixed.get(layer.name)) for layer in layers])
        return Plan(choice, taken, True, frozenset(pinned))
    # An 8-bit integer mode takes every weight; NNCF asks nothing of their widths.
    follows = choice.all_layers and choice.mode.is_mixable
    defining = [layer for layer in ratio_defining(layers, follows) if layer.name not in pinned]
    together = lots(defining, _joined(choice))
    shared = {layer.name: width_of(lot) for lot in together if len(lot) > 1 for layer in lot}

    def width(layer: Layer) -> int:
        """Return the input channels that its groups have to fit: a lot's, where it is in one."""
        return shared.get(layer.name, layer.matrix[1])

    widths = {width(layer) for layer in layers if layer.is_weight}  # few, also where there are thousands of layers
    fitted = {each: fitted_scheme(each, choice) for each in widths}
    backup = {each: _backup(each, choice) for each in widths}
    misfits = [layer for layer in defining if fitted[width(layer)] is None]
    if choice.group_size_fallback == "error":
        _check_groups(misfits, defining, choice)
    alike = [lot for lot in together if fitted[width(lot[0])] is not None]
    if choice.is_mixed and sensitivities is not None:
        alike = sorted(alike, key=lambda lot: _mean_score(lot, sensitivities))
    primary = _within_ratio(alike, choice.ratio if choice.mode.is_mixable else 1.0)
    kept = {layer.name for layer in misfits} if choice.group_size_fallback == "ignore" else set()

    def scheme(layer: Layer) -> Scheme | None:
        if layer.kind is Kind.OTHER or layer.name in kept:
            return None
        if layer.name in pinned:
            return pinned[layer.name]
        return (fitted if layer.name in primary else backup)[width(layer)]

    assignments = tuple([Assignment(layer, scheme(layer)) for layer in layers])
    is_exact = not choice.is_mixed or (sensitivities is not None and not are_estimates)
    return Plan(choice, assignments, is_exact, frozenset(pinned))


def damage_scores(
    layers: Sequence[Layer], choice: Choice, damages: Mapping[str, Mapping[str, float]]
) -> dict[str, float] | None:
    """Return a score by tensor name: damage of the primary mode per weight. ``damages``: by layer and scheme.

    A layer without any (an embedding, experts in one tensor, what no token comes to) counts as the median one does.
    None while a layer is not measured yet.
    """
    linear = {layer.name for layer in ratio_defining(layers)}
    scores: dict[str, float] = {}
    without = []
    for layer in ratio_defining(layers, all_layers=True):
        layer_damage, scheme = damages.get(layer.name), fitted_scheme(layer.matrix[1], choice)
        if layer_damage is None and layer.name in linear:
            return None
        if layer_damage and scheme is not None:
            if str(scheme) not in layer_damage:
                return None
            scores[layer.name] = layer_damage[str(scheme)] / layer.numel
        else:
            without.append(layer.name)
    median_score = median(scores.values()) if scores else 0.0
    return scores | dict.fromkeys(without, median_score)


def _pinned(layers: Sequence[Layer], choice: Choice) -> dict[str, Scheme | None]:
    """Return the schemes the user decided, by name. Raises SchemeError for a group that does not fit."""
    pinned: dict[str, Scheme | None] = {}
    weights = [layer for layer in layers if layer.is_weight] if choice.pins else []
    for lot in lots(weights, _joined(choice)):
        pin = next((pin for pin in choice.pins if any(pin.takes(layer.name) for layer in lot)), None)
        if pin is None:
            continue
        for layer in lot:
            if pin.scheme is not None and not pin.scheme.fits(layer.matrix[1]):
                raise SchemeError("pin_misfit", scheme=str(pin.scheme), layer=layer.name, width=layer.matrix[1])
            pinned[layer.name] = pin.scheme
    return pinned


def _joined(choice: Choice) -> Joined:
    """Return what shares a scheme; a mix of llama.cpp's says of each weight what it takes."""
    return JOINED if choice.share_fused and choice.mix == NONE else ()


def _mean_score(lot: Sequence[Layer], sensitivities: Mapping[str, float]) -> float:
    """Return the score of a lot per weight of it."""
    if len(lot) == 1:
        return sensitivities[lot[0].name]
    return sum(sensitivities[layer.name] * layer.numel for layer in lot) / sum(layer.numel for layer in lot)


def fitted_scheme(width: int, choice: Choice) -> Scheme | None:
    """Return the primary scheme with a group that divides ``width`` input channels, None where there is none."""
    if choice.primary.fits(width):
        return choice.primary
    other = _in_other_blocks(choice.primary, width)
    if other is not None:
        return other
    power = width & -width  # the largest power of two that divides it
    if choice.group_size_fallback == "adjust" and choice.mode.is_grouped and power >= MIN_ADJUSTED_GROUP:
        return Scheme(choice.mode, power)
    return None


def _backup(width: int, choice: Choice) -> Scheme | None:
    """Return the backup scheme; where its groups do not divide ``width`` input channels, one scale a channel does."""
    scheme = choice.secondary
    if scheme is None or scheme.fits(width):
        return scheme
    other = _in_other_blocks(scheme, width)
    if other is not None:
        return other
    return Scheme(scheme.mode) if scheme.mode.is_grouped else Scheme(Mode.INT8_ASYM)


def _in_other_blocks(scheme: Scheme, width: int) -> Scheme | None:
    """Return what llama.cpp takes for rows that are no whole number of this scheme's blocks, None where it has none."""
    return fitting(scheme.mode.stored_as.misfit, width)


def _within_ratio(ranked: Sequence[Sequence[Layer]], ratio: float) -> set[str]:
    """Return the names that take the primary mode: the first ones, while their share stays below the ratio."""
    if ratio == 1:
        return {layer.name for lot in ranked for layer in lot}
    total = sum(layer.numel for lot in ranked for layer in lot)
    names: set[str] = set()
    taken = 0
    for lot in ranked:
        taken += sum(layer.numel for layer in lot)
        if taken / total >= ratio:
            break
        names.update(layer.name for layer in lot)
    return names


def _check_groups(misfits: Sequence[Layer], defining: Sequence[Layer], choice: Choice) -> None:
    """Raise SchemeError with the sizes that would fit when the chosen one does not."""
    if misfits:
        fitting = ", ".join(str(size) for size in fitting_group_sizes(layer.matrix[1] for layer in defining))
        example = misfits[0]
        raise SchemeError(
            "group_size_misfit",
            group_size=choice.primary.group_size,
            count=len(misfits),
            layer=example.name,
            width=example.matrix[1],
            fitting=fitting,
        )
