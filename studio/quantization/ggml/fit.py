"""Weights -> blocks: scales, offsets and codes of least weighted error, within what a block can hold.

What is minimised is sum e (w - scale level(code) - offset)^2, e being how much each weight counts. First each sub-block
by itself, in real numbers: of codes given, the best scale and offset are weighted least squares, and codes and numbers
take turns from several starts. In a format of two levels they are then products of a 16-bit number of the super-block
and an integer of the sub-block: the integers are searched about their nearest, and the 16-bit numbers fitted again by
least squares over the whole super-block, given codes and integers. Knows nothing of inputs or layers.
"""

from dataclasses import dataclass, replace
from functools import cache

import torch
from torch import Tensor

from studio.quantization.ggml.blocks import BlockFormat, Blocks

RATIOS = tuple(1 - 0.5 * step / 19 for step in range(0, 20, 2))
"""Shares of a sub-block's range that the first grid spans."""
TURNS = 2
"""How often codes and numbers take turns, from each start."""
ROUNDS = 3
"""How often integers and the super-block's numbers take turns."""
TINY = 2.0**-24
"""Below it a scale is none: half the smallest fp16 number."""
HALVES = 256
"""Half steps on each side of zero within which uneven levels lie."""
FP16_MAX = 65504.0
PIECE = 1 << 18
"""Weights worked on at once: 1 MB of fp32, which fits a core's cache."""


def fit(
    weight: Tensor,
    form: BlockFormat,
    importance: Tensor | None = None,
    ratios: tuple[float, ...] = RATIOS,
    rounds: int = ROUNDS,
) -> Blocks:
    """Return ``weight`` [N, K] in blocks; ``importance`` [N, K] >= 0, None where all weights count the same.

    ``ratios`` are the starts, ``rounds`` how often two levels take turns. Raises ValueError for rows that are no whole
    number of blocks.
    """
    rows, width = weight.shape
    if width % form.block:
        raise ValueError(f"{form.name} takes rows of a multiple of {form.block}, not {width}")
    step = max(1, PIECE // width)
    pieces = []
    for row in range(0, rows, step):
        w = weight[row : row + step].float().contiguous()  # sums of a view would be taken in another order
        e = torch.ones_like(w) if importance is None else importance[row : row + step].float().contiguous()
        groups = (len(w), -1, form.sub_block)
        pieces.append(_Fit(form, w.reshape(groups), e.reshape(groups), ratios, rounds).blocks())
    return _joined(pieces)


def encode(weight: Tensor, form: BlockFormat, blocks: Blocks) -> Tensor:
    """Return the codes uint8 [N, K] nearest to ``weight`` [N, K] on the grid that ``blocks`` has."""
    rows, width = weight.shape
    grouped = weight.float().reshape(rows, -1, form.sub_block)
    offset = blocks.offset()
    places = None if offset is None else offset.unsqueeze(2)
    return nearest(form, grouped, blocks.scale().unsqueeze(2), places).reshape(rows, width)


def _joined(pieces: list[Blocks]) -> Blocks:
    def cat(name: str) -> Tensor | None:
        parts = [getattr(piece, name) for piece in pieces]
        return None if parts[0] is None else torch.cat(parts)

    codes, d = cat("codes"), cat("d")
    assert codes is not None  # every format has them
    assert d is not None
    return Blocks(codes, d, cat("dmin"), cat("scales"), cat("mins"))


def nearest(form: BlockFormat, weights: Tensor, scale: Tensor, offset: Tensor | None) -> Tensor:
    """Return the codes, uint8 [N, G, g], nearest to weights of these scales and offsets [N, G, 1]."""
    sound = scale.abs() >= TINY
    normal = (weights if offset is None else weights - offset) / torch.where(sound, scale, 1.0)
    normal = torch.where(sound, normal, 0.0)
    if form.is_uniform:
        return (normal - form.levels[0]).round_().clamp_(0, len(form.levels) - 1).to(torch.uint8)
    halves = normal.mul_(2).floor_().clamp_(-HALVES, HALVES - 1).to(torch.int32) + HALVES
    return _table(form.levels).to(weights.device)[halves]


@cache
def _table(levels: tuple[float, ...]) -> Tensor:
    """Return the code nearest to each half step: what lies midway between whole levels is a whole number of them."""
    places = torch.arange(-HALVES, HALVES, dtype=torch.float32, device="cpu") / 2
    known = torch.tensor(levels, dtype=torch.float32, device="cpu")
    return torch.bucketize(places, (known[1:] + known[:-1]) / 2, right=True).to(torch.uint8)


@dataclass(frozen=True)
class _Grid:
    """Scales and offsets of some sub-blocks [N, G, 1], and the weighted error they leave [N, G, 1]."""

    scale: Tensor
    offset: Tensor | None
    error: Tensor

    def best(self, other: "_Grid") -> "_Grid":
        """Return the better one of each sub-block."""
        is_better = other.error < self.error
        offset = None
        if self.offset is not None and other.offset is not None:
            offset = torch.where(is_better, other.offset, self.offset)
        return _Grid(
            torch.where(is_better, other.scale, self.scale), offset, torch.where(is_better, other.error, self.error)
        )


class _Fit:
    """One piece: weights and what they count, fp32 [N, G, g]."""

    def __init__(
        self, form: BlockFormat, weights: Tensor, counts: Tensor, ratios: tuple[float, ...], rounds: int
    ) -> None:
        self.form, self.w, self.e = form, weights, counts
        self.ratios, self.rounds = ratios, rounds
        self.ew = counts * weights
        self.eww = (self.ew * weights).sum(2, keepdim=True)

    def blocks(self) -> Blocks:
        """Return the piece in blocks."""
        form, rows = self.form, len(self.w)
        best = self._free()
        if form.scale_range is None:
            offset = None if best.offset is None else _halves(best.offset.squeeze(2))
            found = Blocks(torch.empty(0, dtype=torch.float32), _halves(best.scale.squeeze(2)), offset)
        else:
            found = self._two_levels(best)
        codes = self._codes(found)
        return replace(found, codes=codes.reshape(rows, -1))

    def _codes(self, found: Blocks) -> Tensor:
        offset = found.offset()
        return nearest(self.form, self.w, found.scale().unsqueeze(2), None if offset is None else offset.unsqueeze(2))

    # each sub-block by itself, in real numbers

    def _free(self) -> _Grid:
        """Return the best scale and offset of each sub-block."""
        best: _Grid | None = None
        for scale, offset in self._starts():
            grid = self._turned(scale, offset)
            best = grid if best is None else best.best(grid)
        assert best is not None  # there is always a start
        return best

    def _starts(self) -> list[tuple[Tensor, Tensor | None]]:
        form = self.form
        if form.has_offset:
            top = len(form.levels) - 1
            low, high = self.w.amin(2, keepdim=True), self.w.amax(2, keepdim=True)
            if form.min_range is not None:  # an offset is never above zero
                low = low.clamp(max=0)
            middle, span = (low + high) / 2, high - low
            return [(span * (ratio / top), middle - span * (ratio / 2)) for ratio in self.ratios]
        at = self.w.abs().argmax(2, keepdim=True)
        extreme = self.w.gather(
            2, at
        )  # with its sign: it takes the level furthest from zero, or the one at the other end
        ends = (form.levels[0], form.levels[-1])
        return [(extreme * (ratio / end), None) for end in ends for ratio in self.ratios]

    def _turned(self, scale: Tensor, offset: Tensor | None) -> _Grid:
        """Return what ``TURNS`` of coding and fitting make of a start, with the error of its last fit."""
        error = torch.full_like(scale, torch.inf)
        for _ in range(TURNS):
            v = self.form.values(nearest(self.form, self.w, scale, offset))
            scale, offset, error = self._fitted(v, scale, offset)
        return _Grid(scale, offset, error)

    def _fitted(self, v: Tensor, scale: Tensor, offset: Tensor | None) -> tuple[Tensor, Tensor | None, Tensor]:
        """Return the best scale and offset for levels ``v``, where there is one, and the error they leave."""
        ev = self.e * v
        xv, vv = (self.ew * v).sum(2, keepdim=True), (ev * v).sum(2, keepdim=True)
        alone = xv / vv
        is_sound = alone.abs() >= TINY  # which NaN is not
        alone = torch.where(is_sound, alone, scale)
        left = torch.where(is_sound, self.eww - alone * xv, self.eww)
        if offset is None:
            return alone, None, left
        one, v1, x1 = self.e.sum(2, keepdim=True), ev.sum(2, keepdim=True), self.ew.sum(2, keepdim=True)
        det = one * vv - v1 * v1
        s, o = (one * xv - x1 * v1) / det, (vv * x1 - v1 * xv) / det
        flat = x1 / one  # an offset alone: what weights that are all one number have
        is_sound, is_flat = (det > 1e-6 * one * vv) & (s >= TINY), one > 0
        if self.form.min_range is not None:
            is_sound, is_flat = is_sound & (o <= 0), is_flat & (flat <= 0)
        flat_left = torch.where(is_flat, self.eww - flat * x1, torch.inf)
        is_flat = ~is_sound & (flat_left < left)
        both = torch.where(is_sound, self.eww - s * xv - o * x1, left)
        return (
            torch.where(is_flat, 0.0, torch.where(is_sound, s, alone)),
            torch.where(is_flat, flat, torch.where(is_sound, o, 0.0)),
            torch.where(is_flat, flat_left, both),
        )

    # two levels

    def _two_levels(self, free: _Grid) -> Blocks:
        """Return the best integers and numbers of super-blocks, from scales and offsets in real numbers."""
        found = self._integers(free)
        error = self._error(found)
        for _ in range(self.rounds):
            other = self._refitted(self._searched(found))
            new = self._error(other)
            is_better = new < error
            found, error = _chosen(is_better, other, found), torch.where(is_better, new, error)
        return found

    def _integers(self, free: _Grid) -> Blocks:
        form = self.form
        assert form.scale_range is not None  # asked of formats of two levels only
        d, scales = _split(free.scale.squeeze(2), form.scale_range, form.block // form.sub_block)
        if form.min_range is None or free.offset is None:
            return Blocks(torch.empty(0, dtype=torch.float32), d, None, scales)
        dmin, mins = _split(-free.offset.squeeze(2), form.min_range, form.block // form.sub_block)
        return Blocks(torch.empty(0, dtype=torch.float32), d, dmin, scales, mins)

    def _searched(self, found: Blocks) -> Blocks:
        """Return the integers of least error among each one's neighbours, the super-blocks' numbers as they are."""
        form = self.form
        assert form.scale_range is not None
        assert found.scales is not None
        best, least = found, self._errors(found)
        for ds in (-1, 0, 1):
            for dm in (-1, 0, 1) if found.mins is not None else (0,):
                if ds == dm == 0:
                    continue
                scales = (found.scales + ds).clamp(*form.scale_range)
                mins = None
                if found.mins is not None and form.min_range is not None:
                    mins = (found.mins + dm).clamp(*form.min_range)
                other = replace(found, scales=scales, mins=mins)
                error = self._errors(other)
                is_better = error < least
                least = torch.where(is_better, error, least)
                assert best.scales is not None
                best = replace(
                    best,
                    scales=torch.where(is_better, scales, best.scales),
                    mins=None if mins is None or best.mins is None else torch.where(is_better, mins, best.mins),
                )
        return best

    def _refitted(self, found: Blocks) -> Blocks:
        """Return the super-blocks' numbers by least squares over all their weights, codes and integers as they are."""
        assert found.scales is not None
        rows, supers = found.d.shape
        a = self.form.values(self._codes(found)) * found.scales.float().unsqueeze(2)

        def summed(tensor: Tensor) -> Tensor:
            return tensor.reshape(rows, supers, -1).sum(2)

        aa, xa = summed(self.e * a * a), summed(self.ew * a)
        alone = xa / aa
        if found.mins is None or found.dmin is None:
            return replace(found, d=_sound(alone, found.d))
        b = -found.mins.float().unsqueeze(2).expand_as(a)
        bb, ab, xb = summed(self.e * b * b), summed(self.e * a * b), summed(self.ew * b)
        det = aa * bb - ab * ab
        d, dmin = (bb * xa - ab * xb) / det, (aa * xb - ab * xa) / det
        is_sound = (det > 1e-6 * aa * bb) & (dmin >= 0)
        return replace(
            found,
            d=_sound(torch.where(is_sound, d, found.d.float()), found.d),
            dmin=_sound(torch.where(is_sound, dmin, found.dmin.float()), found.dmin),
        )

    def _errors(self, found: Blocks) -> Tensor:
        """Return the weighted error of each sub-block [N, G]."""
        scale, offset = found.scale().unsqueeze(2), found.offset()
        dense = self.form.values(self._codes(found)) * scale
        if offset is not None:
            dense += offset.unsqueeze(2)
        return (self.e * dense.sub_(self.w).square_()).sum(2)

    def _error(self, found: Blocks) -> Tensor:
        """Return the weighted error of each super-block [N, S]."""
        errors = self._errors(found)
        return errors.reshape(len(errors), found.d.shape[1], -1).sum(2)


def _split(numbers: Tensor, span: tuple[int, int], count: int) -> tuple[Tensor, Tensor]:
    """Return fp16 [N, S] and integers [N, G] within ``span`` whose products are nearly ``numbers`` [N, G].

    Where the integers have a sign, the largest number takes the lowest, which is one further from zero.
    """
    blocks = numbers.reshape(len(numbers), -1, count)
    if span[0] < 0:
        extreme = blocks.gather(2, blocks.abs().argmax(2, keepdim=True)) / span[0]
    else:
        extreme = blocks.amax(2, keepdim=True) / span[1]
    d = _halves(extreme)
    wide = d.float()
    integers = torch.where(wide.abs() > 0, blocks / torch.where(wide.abs() > 0, wide, 1.0), 0.0)
    return d.squeeze(2), integers.round_().clamp_(*span).to(torch.int16).flatten(1)


def _halves(numbers: Tensor) -> Tensor:
    """Return numbers in fp16, the largest that there is for larger ones."""
    return numbers.nan_to_num(0.0).clamp(-FP16_MAX, FP16_MAX).half()


def _sound(numbers: Tensor, other: Tensor) -> Tensor:
    """Return numbers in fp16, or ``other`` where they are none."""
    halves = numbers.half()
    return torch.where(halves.isfinite(), halves, other)


def _chosen(is_better: Tensor, new: Blocks, old: Blocks) -> Blocks:
    """Return ``new`` in the super-blocks [N, S] where it is better, ``old`` in others."""

    def pick(name: str) -> Tensor | None:
        mine, theirs = getattr(new, name), getattr(old, name)
        if mine is None or theirs is None:
            return None
        mask = (
            is_better
            if mine.shape == is_better.shape
            else is_better.repeat_interleave(mine.shape[1] // is_better.shape[1], dim=1)
        )
        return torch.where(mask, mine, theirs)

    d = pick("d")
    assert d is not None
    return Blocks(torch.empty(0, dtype=torch.float32), d, pick("dmin"), pick("scales"), pick("mins"))
