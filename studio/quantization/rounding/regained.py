"""Weights that lie on a coarse grid already, as quantization-aware training leaves them: the grid, found again.

A group of a weight may be ``d q + m`` for whole numbers q and two numbers of 16 bits, as a file of ggml's types or a
scheme of ours had it before it was written as 16-bit weights. Least squares finds d and m nearly, and every weight then
errs a little; here they are found exactly: such that each weight is again what it was, once rounded to its own dtype.
Within that dtype a weight is known to half a unit in its last place, which bounds d and m from both sides; few fp16
numbers lie between. Knows nothing of layers or files.
"""

from dataclasses import dataclass
from itertools import product

import torch
from torch import Tensor

from studio.quantization.ggml.blocks import BlockFormat, Blocks
from studio.quantization.methods import Method
from studio.quantization.rounding.quantized_weight import Codes, QuantizedWeight
from studio.quantization.scheme import Scheme

FIRST = 4
"""Groups looked at before a weight is taken for one on a grid: of others hardly one group is."""
PIECE = 1 << 17
"""Weights worked on at once: 1 MB of fp64."""
ALL, FEW = 32, 16
"""Of grids of more steps than ``ALL`` those are tried that use them all (Q8_0 all but one), and those of ``FEW`` steps
and less."""
NEAR = sorted(range(-24, 25), key=abs)
"""fp16 numbers tried about the estimate of a step: bf16 weights tell it no better."""
FIRST_NEAR = 3
"""Those tried first, which do for most groups."""
TINY = 1e-12
"""In place of a sum of squares that is nothing."""
SLACK = 0.25
"""Of a step: what estimates of step and offset may be off for the largest weight of a group that is on a grid."""


@dataclass(frozen=True)
class _Lattice:
    """Steps a group can take: ``span`` of them at most; offset free, or codes from ``low`` on about zero."""

    span: int
    low: int | None

    @property
    def high(self) -> int:
        return self.span + (self.low or 0)


def may_regain(scheme: Scheme, method: Method) -> bool:
    """Return whether a weight on a grid stays on it: not where rounding is to be NNCF's, bit for bit."""
    return scheme.mode.is_in_blocks or method is not Method.NEAREST


def regained(weight: Tensor, scheme: Scheme) -> QuantizedWeight | None:
    """Return ``weight`` [N, K] in ``scheme`` without loss, None where that is not possible, or the format is none of
    equal steps under 16-bit scales. Without loss: what the codes stand for, in the dtype of ``weight``, equals it.
    """
    lattice = _lattice(scheme)
    if lattice is None or not weight.numel():
        return None
    groups = weight.reshape(len(weight), scheme.groups(weight.shape[1]), -1)
    flat = groups.flatten(0, 1)
    if _found(flat[:FIRST], lattice) is None:
        return None
    pieces = []
    for piece in flat.split(max(1, PIECE // flat.shape[1])):
        found = _found(piece, lattice)
        if found is None:
            return None
        pieces.append(found)
    steps, scale, offset = (torch.cat(parts) for parts in zip(*pieces, strict=True))
    rows = groups.shape[:2]
    return _stored(scheme, steps.reshape(weight.shape), scale.reshape(rows), offset.reshape(rows))


def _lattice(scheme: Scheme) -> _Lattice | None:
    form = scheme.mode.stored_as
    if scheme.mode.is_in_blocks:
        blocks = scheme.mode.block_format
        if not blocks.is_uniform or blocks.scale_range is not None:
            return None
        return _Lattice(len(blocks.levels) - 1, None if blocks.has_offset else int(blocks.levels[0]))
    if form.scale_dtype != "F16" or form.code_dtype == "F8_E4M3" or scheme.mode.needs_whole:
        return None
    if scheme.mode.grid.codes is Codes.AFFINE:
        return _Lattice(2**form.bits - 1, None)
    if scheme.mode.grid.codes is Codes.SYMMETRIC:
        return _Lattice(2**form.bits - 1, -(2 ** (form.bits - 1)))
    return None


def _found(weights: Tensor, lattice: _Lattice) -> tuple[Tensor, Tensor, Tensor] | None:
    """Return steps int16 [G, g], scale and offset fp16 [G] of groups [G, g]; None once one group has none."""
    wide = weights.double()
    below, above = _reach(weights)
    steps = torch.zeros(weights.shape, dtype=torch.int16, device=weights.device)
    scale = torch.zeros(len(weights), dtype=torch.float16, device=weights.device)
    offset = torch.zeros_like(scale)
    left = torch.arange(len(weights), dtype=torch.int64, device=weights.device)
    for near, span in product((NEAR[:FIRST_NEAR], NEAR), _spans(lattice)):
        if not len(left):
            break
        group = _Groups(weights[left], wide[left], below[left], above[left], near)
        is_found, q, d, m = _free(group, span, lattice) if lattice.low is None else _about_zero(group, span, lattice)
        at = left[is_found]
        steps[at], scale[at], offset[at] = q[is_found], d[is_found], m[is_found]
        left = left[~is_found]
    return None if len(left) else (steps, scale, offset)


@dataclass(frozen=True)
class _Groups:
    """Groups as they are stored [G, g], in fp64, and the ends of what would round to them."""

    stored: Tensor
    wide: Tensor
    below: Tensor
    above: Tensor
    near: list[int]
    """Places of fp16 about an estimated step that are tried."""

    def is_near(self, dense: Tensor, step: Tensor) -> Tensor:
        """Return which groups could be ``dense`` if their steps [G, 1] were known better, bool [G]."""
        return ((dense - self.wide).abs() <= self.above - self.wide + SLACK * step.abs()).all(1)


def _spans(lattice: _Lattice) -> list[int]:
    """Return the steps between the ends of a group that are tried, or from zero to its largest weight."""
    most = lattice.span if lattice.low is None else -lattice.low
    spans = range(most, -1 if lattice.low is None else 0, -1)
    return [*spans] if most <= ALL else [*spans[1::-1], *spans[-FEW:]]


def _free(group: _Groups, span: int, lattice: _Lattice) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Return which groups are ``d q + m`` with ``span`` steps between their least and largest weight, and how."""
    low, high = group.wide.amin(1, keepdim=True), group.wide.amax(1, keepdim=True)
    step = (high - low) / max(span, 1)
    q = _whole(group.wide - low, step)
    for turn in range(2):  # least squares over the whole group, and again: of coarse dtypes the ends alone mislead
        centred = q - q.mean(1, keepdim=True)
        fitted = (centred * group.wide).sum(1, keepdim=True) / centred.square().sum(1, keepdim=True).clamp(min=TINY)
        middle = (group.wide - fitted * q).mean(1, keepdim=True)
        if not turn:
            q = _whole(group.wide - middle, fitted)
            q = q - q.amin(1, keepdim=True)
    best = _Best(group)
    q = torch.where(q.amax(1, keepdim=True) <= lattice.span, q, 0.0)
    if not bool(group.is_near(fitted * q + middle, fitted).any()):
        return best.answer()
    for near in group.near:
        d = _near(fitted, near)
        ends = d.double() * q
        least, most = (group.below - ends).amax(1, keepdim=True), (group.above - ends).amin(1, keepdim=True)
        # an end itself, too: a weight that is the offset may lie midway between two of its dtype
        for first, m in product(range(lattice.span - span + 1), ((least + most) / 2, least, most)):
            if best.is_whole:
                return best.answer()
            best.take((q + first).clamp(max=lattice.span), d, (m - d.double() * first).half())
    return best.answer()


def _about_zero(group: _Groups, span: int, lattice: _Lattice) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Return which groups are ``d q`` with ``span`` steps from zero to their largest weight, and how."""
    largest = group.wide.gather(1, group.wide.abs().argmax(1, keepdim=True))
    best = _Best(group)
    for sign in (-1, 1):
        if not lattice.low or not lattice.low <= sign * span <= lattice.high:
            continue
        step = largest / (sign * span)
        for _ in range(2):  # of many steps the largest weight alone is too short a rule
            q = _whole(group.wide, step)
            step = (q * group.wide).sum(1, keepdim=True) / q.square().sum(1, keepdim=True).clamp(min=1)
        if not bool(group.is_near(q * step, step).any()):
            continue
        for near in group.near:
            if best.is_whole:
                return best.answer()
            d = _near(step, near)
            q = _whole(group.wide, d.double())
            is_held = ((q >= lattice.low) & (q <= lattice.high)).all(1, keepdim=True)
            best.take(torch.where(is_held, q, 0.0), d, torch.zeros_like(d))
    return best.answer()


def _whole(weights: Tensor, step: Tensor) -> Tensor:
    """Return how many steps each weight is, 0 where a step is nothing."""
    return torch.where(step != 0, (weights / step).round_(), 0.0)


class _Best:
    """The first answer of each group that gives its weights again."""

    def __init__(self, group: _Groups) -> None:
        self._group = group
        shape = (len(group.stored), 1)
        self._found = torch.zeros(shape, dtype=torch.bool, device=group.stored.device)
        self._q = torch.zeros(group.stored.shape, dtype=torch.int16, device=group.stored.device)
        self._d = torch.zeros(shape, dtype=torch.float16, device=group.stored.device)
        self._m = torch.zeros_like(self._d)

    @property
    def is_whole(self) -> bool:
        return bool(self._found.all())

    def take(self, q: Tensor, d: Tensor, m: Tensor) -> None:
        """Take steps [G, g] with scale and offset fp16 [G, 1] where they are right: in fp32, as they are read."""
        dense = q.float() * d.float() + m.float()
        is_right = (dense.to(self._group.stored.dtype) == self._group.stored).all(1, keepdim=True)
        is_new = is_right & d.isfinite() & m.isfinite() & ~self._found
        self._q = torch.where(is_new, q.to(torch.int16), self._q)
        self._d, self._m = torch.where(is_new, d, self._d), torch.where(is_new, m, self._m)
        self._found = self._found | is_new

    def answer(self) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        return self._found.squeeze(1), self._q, self._d.squeeze(1), self._m.squeeze(1)


def _near(numbers: Tensor, places: int) -> Tensor:
    """Return the fp16 number so many places from those nearest to ``numbers``, which are not zero."""
    bits = numbers.half().view(torch.int16)
    return torch.where(bits & 0x7FFF > 2, bits + places, bits).view(torch.float16)


def _reach(weights: Tensor) -> tuple[Tensor, Tensor]:
    """Return the ends of what rounds to each weight, fp64: half a unit in the last place on both sides."""
    bits = {torch.float16: 11, torch.bfloat16: 8}.get(weights.dtype, 24)
    wide = weights.double()
    exponent = torch.frexp(wide)[1].to(torch.float64)
    half = torch.exp2(exponent - bits - 1)
    return wide - half, wide + half


def _stored(scheme: Scheme, steps: Tensor, scale: Tensor, offset: Tensor) -> QuantizedWeight:
    """Return steps [N, K] under scales and offsets fp16 [N, G] as the scheme stores them."""
    if scheme.mode.is_in_blocks:
        form: BlockFormat = scheme.mode.block_format
        low = 0 if form.has_offset else int(form.levels[0])
        blocks = Blocks((steps - low).to(torch.uint8), scale, offset if form.has_offset else None)
        return QuantizedWeight(blocks.codes, blocks.scale(), None, None, blocks)
    if scheme.mode.stored_as.has_offset:
        return QuantizedWeight(steps.to(torch.uint8), scale.float(), None, offset=offset.float())
    codes = (steps + 2 ** (scheme.mode.bits - 1)).to(torch.uint8)
    return QuantizedWeight(codes, scale.float(), None)
