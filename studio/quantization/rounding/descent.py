"""Codes, scales and offsets, one after the other, each to what is best while all others stay as they are.

What GPTQ leaves is not yet the least of tr((Ŵ - W) H (Ŵ - W)^T): a column was rounded before those after it were. Here
the scale and offset of every group or sub-block, then every column's code, in turn takes the value of least error; none
ever makes it larger. Scales stay what the layout can hold: a 16-bit number, or its super-block's times a whole number.

H is damped more than where GPTQ begins: a descent learns a short text by heart where it can. Knows no layers.

Sources: coordinate descent on codes, QuantEase (Behdin et al. 2023); the closed form of a scale is that of weighted
least squares.
"""

from dataclasses import replace

import torch
from torch import Tensor

from studio.quantization.ggml.blocks import BlockFormat, Blocks
from studio.quantization.ggml.fit import nearest
from studio.quantization.rounding.affine import as_blocks, form_of, from_blocks
from studio.quantization.rounding.nearest import in_blocks
from studio.quantization.rounding.quantized_weight import QuantizedWeight
from studio.quantization.rounding.statistics import Statistics
from studio.quantization.scheme import Scheme

DAMP = 0.2
"""Added to the diagonal, in mean diagonals."""
TURNS = 2
"""How often scales and codes take turns."""
COLUMNS = 128
"""Whose gradients are made at once."""


def descend(weight: Tensor, scheme: Scheme, start: QuantizedWeight, statistics: Statistics) -> QuantizedWeight:
    """Return ``start``, blocks or offsets of ``weight`` [N, K], with scales and codes that leave less error."""
    if start.offset is not None:
        form, blocks = form_of(scheme, weight.shape[1]), as_blocks(start)
    elif start.blocks is not None:
        form, blocks = scheme.mode.block_format, start.blocks.with_codes(start.codes)
    else:
        raise ValueError(f"{scheme} has neither blocks nor offsets")
    hessian = statistics.hessian.clone()
    hessian.diagonal().add_(DAMP * float(hessian.diagonal().mean()))
    descent = _Descent(weight.float().T.contiguous(), form, blocks, hessian)
    order = statistics.power.argsort(descending=True, stable=True)
    for _ in range(TURNS):
        descent.scales()
        descent.codes(order)
    return in_blocks(descent.blocks()) if start.offset is None else from_blocks(descent.blocks())


class _Descent:
    """A weight transposed, [K, N], its blocks likewise, and what they leave."""

    def __init__(self, weight: Tensor, form: BlockFormat, blocks: Blocks, hessian: Tensor) -> None:
        self.form, self.hessian, self.start = form, hessian, blocks
        self.code = blocks.codes.T.contiguous()
        self.scale = blocks.scale().T.contiguous()
        offset = blocks.offset()
        self.offset = None if offset is None else offset.T.contiguous()
        self.error = torch.empty_like(weight)
        """Ŵ - W."""
        for group in range(len(self.scale)):
            columns = self._columns(group)
            self.error[columns] = self._values(group) * self.scale[group] - weight[columns]
            if self.offset is not None:
                self.error[columns] += self.offset[group]
        self.scale_integers = None if blocks.scales is None else blocks.scales.T.contiguous()
        self.min_integers = None if blocks.mins is None else blocks.mins.T.contiguous()

    def blocks(self) -> Blocks:
        """Return the blocks as they are now."""
        start = self.start
        codes = self.code.T.contiguous()
        if self.scale_integers is not None:
            mins = None if self.min_integers is None else self.min_integers.T.contiguous()
            return replace(start, codes=codes, scales=self.scale_integers.T.contiguous(), mins=mins)
        offset = None if self.offset is None else self.offset.T.half().contiguous()
        return Blocks(codes, self.scale.T.half().contiguous(), offset)

    def _columns(self, group: int) -> slice:
        return slice(group * self.form.sub_block, (group + 1) * self.form.sub_block)

    def _values(self, group: int) -> Tensor:
        return self.form.values(self.code[self._columns(group)])

    def scales(self) -> None:
        """Give every sub-block the scale, then the offset, of least error."""
        for group in range(len(self.scale)):
            columns = self._columns(group)
            values, inner = self._values(group), self.hessian[columns, columns]
            curvature = ((inner @ values) * values).sum(0)
            slope = (values * (self.hessian[columns] @ self.error)).sum(0)
            wanted = self.scale[group] - slope / torch.where(curvature > 0, curvature, torch.inf)
            held = self._held_scale(group, wanted)
            self.error[columns] += values * (held - self.scale[group])
            self.scale[group] = held
            if self.offset is not None:
                slope = (self.hessian[columns] @ self.error).sum(0)
                held = self._held_offset(group, self.offset[group] - slope / inner.sum())
                self.error[columns] += held - self.offset[group]
                self.offset[group] = held

    def _held_scale(self, group: int, wanted: Tensor) -> Tensor:
        """Return what the layout can hold next to a scale [N], the present one where it can hold none."""
        if self.scale_integers is None or self.form.scale_range is None:
            return _half(wanted, self.scale[group])
        self.scale_integers[group], held = _whole(wanted, self._unit(self.start.d, group), self.form.scale_range)
        return held

    def _held_offset(self, group: int, wanted: Tensor) -> Tensor:
        assert self.offset is not None  # or nobody asks
        if self.min_integers is None or self.form.min_range is None or self.start.dmin is None:
            return _half(wanted, self.offset[group])
        self.min_integers[group], held = _whole(-wanted, self._unit(self.start.dmin, group), self.form.min_range)
        return -held

    def _unit(self, numbers: Tensor, group: int) -> Tensor:
        """Return the 16-bit number [N] of a sub-block's super-block."""
        return numbers[:, group * numbers.shape[1] // len(self.scale)].float()

    def codes(self, order: Tensor) -> None:
        """Give every column, in ``order`` [K], the codes of least error."""
        group_of = order // self.form.sub_block
        for first in range(0, len(order), COLUMNS):
            columns = order[first : first + COLUMNS]
            inner = self.hessian[columns][:, columns]
            gradient = self.hessian[columns] @ self.error
            for j, (column, group) in enumerate(zip(columns.tolist(), group_of[first:].tolist(), strict=False)):
                scale = self.scale[group]
                offset = torch.zeros_like(scale) if self.offset is None else self.offset[group]
                before = self.form.values(self.code[column]) * scale + offset
                wanted = before - gradient[j] / inner[j, j]
                code = nearest(self.form, wanted, scale, offset)
                moved = self.form.values(code) * scale + offset - before
                self.code[column] = code
                self.error[column] += moved
                gradient[j + 1 :].addr_(inner[j + 1 :, j], moved)


def _half(wanted: Tensor, present: Tensor) -> Tensor:
    halves = wanted.half().float()
    return torch.where(halves.isfinite(), halves, present)


def _whole(wanted: Tensor, unit: Tensor, span: tuple[int, int]) -> tuple[Tensor, Tensor]:
    """Return the whole numbers int16 [N] within ``span`` whose products with ``unit`` [N] are nearest, and these."""
    some = torch.where(unit == 0, 1.0, unit)
    integers = torch.where(unit == 0, 0.0, wanted / some).round_().clamp_(*span)
    return integers.to(torch.int16), integers * unit
