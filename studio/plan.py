"""Choices -> a scheme for every tensor, with the exact bytes that follow. Reads no weights.

The ratio rule is NNCF's (``nncf/quantization/algorithms/weight_compression/mixed_precision.py``, 3.4): linear weights
but the head define the ratio; in order of rising sensitivity they take the primary mode while their share stays
below it; all else takes the backup.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property

from studio.architecture import Kind, Layer, ratio_defining
from studio.errors import SchemeError
from studio.scheme import GROUP_SIZES, WHOLE_CHANNEL, Mode, Scheme, fitting_group_sizes, parse_backup, parse_mode

MIN_RATIO = 0.05


@dataclass(frozen=True)
class Choice:
    """What the user set: ``Choice(Mode.INT4_ASYM, 64, 0.9, Mode.INT8_ASYM)``.

    8-bit modes are per output channel and take every weight, so group size and ratio do not apply to them.
    """

    mode: Mode = Mode.INT4_ASYM
    group_size: int = 64
    ratio: float = 1.0
    backup: Mode | None = Mode.INT8_ASYM

    def __post_init__(self) -> None:
        if not MIN_RATIO <= self.ratio <= 1:  # false for NaN too
            raise SchemeError("ratio_range", ratio=self.ratio, low=MIN_RATIO)
        if self.group_size not in GROUP_SIZES:
            sizes = ", ".join(str(size) for size in GROUP_SIZES)
            raise SchemeError("unknown_group_size", group_size=self.group_size, sizes=sizes)

    @classmethod
    def of(cls, mode: str, group_size: int, ratio: float, backup: str) -> "Choice":
        """Return the choice these words name. Raises SchemeError with the valid ones for an unknown word."""
        return cls(parse_mode(mode), group_size, ratio, parse_backup(backup))

    @property
    def primary(self) -> Scheme:
        return Scheme.of(self.mode, self.group_size)

    @property
    def secondary(self) -> Scheme | None:
        """What layers outside the ratio take, None for 16 bits."""
        if not self.mode.is_grouped:
            return self.primary
        return None if self.backup is None else Scheme(self.backup)

    @property
    def is_mixed(self) -> bool:
        """Whether sensitivities decide which layer gets what."""
        return self.mode.is_grouped and self.ratio < 1


@dataclass(frozen=True)
class Assignment:
    """One tensor and what it becomes; ``scheme`` None keeps it at 16 bits."""

    layer: Layer
    scheme: Scheme | None

    @property
    def nbytes(self) -> int:
        return self.layer.original_bytes if self.scheme is None else self.scheme.nbytes(self.layer.matrix)


@dataclass(frozen=True)
class Share:
    """A line of NNCF's table: what one mode takes of all weights and of the ratio-defining ones."""

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
    """False while sensitivities are unknown and the choice needs them: sizes are then estimates."""

    @cached_property
    def original_bytes(self) -> int:
        return sum(a.layer.original_bytes for a in self.assignments)

    @cached_property
    def compressed_bytes(self) -> int:
        return sum(a.nbytes for a in self.assignments)

    @cached_property
    def weights(self) -> int:
        return sum(a.layer.numel for a in self.assignments)

    @property
    def bits_per_weight(self) -> float:
        return self.compressed_bytes * 8 / self.weights

    def scheme_of(self, name: str) -> Scheme | None:
        """Return the scheme of the tensor called ``name``."""
        return self._schemes[name]

    @cached_property
    def _schemes(self) -> dict[str, Scheme | None]:
        return {a.layer.name: a.scheme for a in self.assignments}

    def breakdown(self) -> dict[str, int]:
        """Return bytes by what they hold: ``blocks``, ``embeddings``, ``head`` (codes), ``scales``, ``zero_points``,
        ``other`` (norms and biases). They add up to ``compressed_bytes``."""
        sums = dict.fromkeys(("blocks", "embeddings", "head", "scales", "zero_points", "other"), 0)
        for a in self.assignments:
            place = _PLACES[a.layer.kind]
            if a.scheme is None:
                sums[place] += a.nbytes
                continue
            for part in a.scheme.parts(a.layer.matrix):
                sums[{"scale": "scales", "zero_point": "zero_points"}.get(part.name, place)] += part.nbytes
        return sums

    def original_breakdown(self) -> dict[str, int]:
        """Return the 16-bit bytes in the places of :meth:`breakdown`."""
        sums = dict.fromkeys(self.breakdown(), 0)
        for a in self.assignments:
            sums[_PLACES[a.layer.kind]] += a.layer.original_bytes
        return sums

    def distribution(self) -> list[Share]:
        """Return NNCF's table of modes over all weights and over the ratio-defining ones, most bits first."""
        defining = {layer.name for layer in ratio_defining([a.layer for a in self.assignments])}
        shares: dict[str, list[int]] = {}
        order: dict[str, int] = {}
        for a in self.assignments:
            if a.layer.kind is Kind.OTHER:
                continue
            label = "float16" if a.scheme is None else str(a.scheme)
            order[label] = 16 if a.scheme is None else a.scheme.mode.bits
            row = shares.setdefault(label, [0, 0, 0, 0])
            counts = (a.layer.numel, 1)
            row[0], row[1] = row[0] + counts[0], row[1] + counts[1]
            if a.layer.name in defining:
                row[2], row[3] = row[2] + counts[0], row[3] + counts[1]
        return [Share(label, *shares[label]) for label in sorted(shares, key=lambda label: (-order[label], label))]


_PLACES = {Kind.LINEAR: "blocks", Kind.EMBEDDING: "embeddings", Kind.HEAD: "head", Kind.OTHER: "other"}


def group_sizes(layers: Sequence[Layer]) -> tuple[int, ...]:
    """Return the group sizes that fit every ratio-defining weight of this model."""
    return fitting_group_sizes(layer.matrix[1] for layer in ratio_defining(layers))


def make_plan(layers: Sequence[Layer], choice: Choice, sensitivities: Mapping[str, float] | None = None) -> Plan:
    """Return the plan of ``choice``.

    ``sensitivities``: NNCF's score by tensor name, high stays at backup. Without them a mixed choice is planned in the
    model's order and marked as an estimate. Raises SchemeError when the group size fits no or not every layer.
    """
    defining = ratio_defining(layers)
    _check_groups(defining, choice)
    ranked = defining
    if choice.is_mixed and sensitivities is not None:
        ranked = sorted(defining, key=lambda layer: sensitivities[layer.name])
    primary = _within_ratio(ranked, choice.ratio if choice.mode.is_grouped else 1.0)
    assignments = tuple(Assignment(layer, _scheme(layer, choice, primary)) for layer in layers)
    return Plan(choice, assignments, is_exact=not choice.is_mixed or sensitivities is not None)


def _within_ratio(ranked: Sequence[Layer], ratio: float) -> set[str]:
    """Return the names that take the primary mode: the first ones, while their share stays below the ratio."""
    if ratio == 1:
        return {layer.name for layer in ranked}
    total = sum(layer.numel for layer in ranked)
    names: set[str] = set()
    taken = 0
    for layer in ranked:
        taken += layer.numel
        if taken / total >= ratio:
            break
        names.add(layer.name)
    return names


def _scheme(layer: Layer, choice: Choice, primary: set[str]) -> Scheme | None:
    if layer.kind is Kind.OTHER:
        return None
    return choice.primary if layer.name in primary else choice.secondary


def _check_groups(defining: Sequence[Layer], choice: Choice) -> None:
    """Raise SchemeError with the sizes that would fit when the chosen one does not."""
    misfits = [layer for layer in defining if not choice.primary.fits(layer.matrix[1])]
    if misfits:
        fitting = ", ".join(str(size) for size in group_sizes(defining))
        example = misfits[0]
        raise SchemeError(
            "group_size_misfit",
            group_size=choice.group_size,
            count=len(misfits),
            layer=example.name,
            width=example.matrix[1],
            fitting=fitting,
        )
