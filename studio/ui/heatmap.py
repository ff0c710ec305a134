"""The map of layers as HTML, pure: projection by block, one cell a weight, to be looked at and picked from.

Knows nothing of sessions or gradio. Experts held one by one share a cell, so that a model of ten thousand tensors is a
map of a few hundred cells.
"""

import math
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from html import escape

from studio.base.text import text
from studio.base.units import format_bytes
from studio.checkpoint.layers import EXPERT
from studio.checkpoint.stored_as import StoredAs
from studio.planning import weight_error
from studio.planning.layer_figure import LayerFigure
from studio.planning.plan import Assignment, Plan
from studio.planning.sampled_survey import Interval
from studio.quantization.scheme import Scheme
from studio.ui.palette import BITS_COLOURS, Ramp, gradient, ramp_of, shade, share_of

Errors = Mapping[str, float]
"""Layer -> error; NaN where there is none to measure; layers that are not in it are not measured yet."""
NONE_GUESSED: Mapping[str, Interval] = {}
DIGITS_UP_TO = 48
"""Blocks whose cells are wide enough for a number."""


@dataclass(frozen=True)
class Cell:
    """One place of the map: a weight, or the weights of several experts."""

    projection: str
    block: int
    members: tuple[Assignment, ...]

    @property
    def pattern(self) -> str:
        """What names its weights: a name, or a pattern with ``*`` for the expert's number."""
        first = self.members[0].layer.name
        if len(self.members) == 1:
            return first
        head, number, tail = first.partition(f".{self.block}.")
        return head + number + EXPERT.sub("*", f".{tail}")[1:]

    @cached_property
    def sorts(self) -> Counter[tuple[Scheme | None, tuple[int, ...]]]:
        """How many members have the same scheme and shape: hundreds of experts are of two or three sorts."""
        return Counter([(a.scheme, a.layer.shape) for a in self.members])

    @property
    def schemes(self) -> list[Scheme | None]:
        return list(dict.fromkeys(scheme for scheme, _ in self.sorts))

    @cached_property
    def bits(self) -> int:
        """The most bits of a member's codes, 16 where it is kept."""
        return max(16 if scheme is None else scheme.mode.bits for scheme in self.schemes)

    @property
    def nbytes(self) -> int:
        return sum(
            count * (2 * math.prod(shape) if scheme is None else scheme.nbytes((math.prod(shape[:-1]), shape[-1])))
            for (scheme, shape), count in self.sorts.items()
        )

    def error(self, errors: Errors, adds_up: bool = False) -> float | None:
        """Return the error, of several weights the root mean square over all numbers, or the sum where it ``adds_up``;
        None while one is not known."""
        found = [errors.get(a.layer.name) for a in self.members]
        if adds_up and None not in found:
            sound = [error for error in found if error is not None and error == error]
            return sum(sound) if sound else math.nan
        if len(found) == 1 or None in found:
            return None if None in found else found[0]
        return self._mean(errors)

    def interval(self, errors: Errors, guessed: Mapping[str, Interval]) -> Interval | None:
        """Return where the error of :meth:`error` lies, of several weights at most; None where all are measured."""
        if not guessed:
            return None
        names = [a.layer.name for a in self.members]
        if not any(name in guessed for name in names):
            return None
        low = {name: guessed[name].low if name in guessed else errors[name] for name in names}
        high = {name: guessed[name].high if name in guessed else errors[name] for name in names}
        return Interval(self._mean(errors), self._mean(low), self._mean(high))

    def _mean(self, errors: Errors) -> float:
        weights = [a.layer.numel for a in self.members]
        squares = sum(errors[a.layer.name] ** 2 * numel for a, numel in zip(self.members, weights, strict=True))
        return math.sqrt(squares / max(1, sum(weights)))


def scheme_name(scheme: Scheme | None, language: str) -> str:
    """Return what a tensor becomes, in words."""
    return text("map.kept", language) if scheme is None else scheme.name


NOTHING_CAME: Mapping[str, StoredAs] = {}


def cells(plan: Plan) -> tuple[list[str], list[int], dict[tuple[str, int], Cell]]:
    """Return the map's rows (projections), columns (blocks) and what stands where."""
    members: dict[tuple[str, int], list[Assignment]] = {}
    for a in plan.assignments:
        place = a.layer.place
        if place is not None:
            members.setdefault(place, []).append(a)
    rows = list(dict.fromkeys(row for row, _ in members))
    columns = sorted({block for _, block in members})
    return rows, columns, {place: Cell(*place, tuple(found)) for place, found in members.items()}


def heatmap(
    plan: Plan,
    errors: Errors | None,
    language: str,
    guessed: Mapping[str, Interval] = NONE_GUESSED,
    figure: LayerFigure = weight_error.FIGURE,
    came: Mapping[str, StoredAs] = NOTHING_CAME,
) -> str:
    """Return the map: every cell with its bits, coloured by its ``figure`` or, without ``errors``, by bits.

    A cell kept at 8 bits or more beside ones of fewer has an outline, a pinned one a corner; one that is not measured
    yet is hatched, and one whose error is only ``guessed`` is hollow. ``came`` says of each layer how its file has it.
    """
    rows, columns, places = cells(plan)
    if not rows:
        return ""
    found = {place: cell.error(errors, figure.adds_up) for place, cell in places.items()} if errors is not None else {}
    top = max((error for error in found.values() if error is not None and error == error), default=0.0) or 1.0
    ramp = ramp_of(figure.name)
    few = min(cell.bits for cell in places.values())
    heads = "".join(f"<th>{block if block % _step(columns) == 0 else ''}</th>" for block in columns)
    lines = []
    for row, label in zip(rows, short_names(rows), strict=True):
        line = [f'<th scope="row" title="{escape(row)}">{escape(label)}</th>']
        for block in columns:
            cell = places.get((row, block))
            if cell is None:
                line.append("<td></td>")
                continue
            error = found.get((row, block))
            colour, light = _colour(cell, error, ramp if errors is not None else None, top, figure.bounds)
            interval = cell.interval(errors, guessed) if errors is not None and error is not None else None
            classes = "".join((
                " guessed" if interval is not None else "",
                " open" if errors is not None and error is None else "",
                " never" if error is not None and error != error else "",
                " kept" if cell.bits > few and plan.is_exact else "",
                " pinned" if cell.members[0].layer.name in plan.pinned else "",
                " light" if light and interval is None else "",
            ))  # fmt: skip
            digits = cell.bits if len(columns) <= DIGITS_UP_TO else ""
            words = escape(_words(cell, error, interval, language, figure, came))
            style = f"background:{colour}" if interval is None else f"border-color:{colour}"
            line.append(
                f'<td><button type="button" tabindex="-1" class="cell{classes}" style="{style}" '
                f'data-layer="{escape(cell.pattern)}" aria-label="{words}">{digits}</button></td>'
            )
        lines.append(f"<tr>{''.join(line)}</tr>")
    caption = escape(text("map.block", language))
    body = "".join(lines).replace('tabindex="-1"', 'tabindex="0"', 1)  # one stop of the Tab key; arrows move inside
    table = f'<table class="heat"><thead><tr><th>{caption}</th>{heads}</tr></thead><tbody>{body}</tbody></table>'
    return f'<div class="heat-scroll">{table}</div>{_scale(ramp, top, figure) if errors is not None else ""}'


def short_names(projections: Sequence[str]) -> list[str]:
    """Return the last parts of ``self_attn.q_proj`` and its like, or the whole names where two would look the same."""
    short = [name.rpartition(".")[2] for name in projections]
    return short if len(set(short)) == len(short) else list(projections)


def shape_name(shape: Sequence[int]) -> str:
    """Return ``(1536, 576)`` as ``1536 × 576``."""
    return " × ".join(str(size) for size in shape)


def mean(errors: Iterable[float]) -> float:
    """Return the mean of some errors, 0 of none."""
    numbers = list(errors)
    return sum(numbers) / max(1, len(numbers))


def about(found: Interval, language: str) -> str:
    """Return an estimate in words: ``"~9.39% (95 %: 9.10% to 9.68%)"``."""
    return text("map.about", language, error=f"{found.error:.2%}", low=f"{found.low:.2%}", high=f"{found.high:.2%}")


def number(name: str, errors: Errors | None, guessed: Mapping[str, Interval], spec: str, before: str = "") -> str:
    """Return a layer's number with what stands before it, an estimate with a "~"; nothing where it is not known."""
    if name in guessed:
        return f"{before}~{guessed[name].error:{spec}}"
    return f"{before}{errors[name]:{spec}}" if errors and name in errors else ""


def _words(
    cell: Cell,
    error: float | None,
    interval: Interval | None,
    language: str,
    figure: LayerFigure,
    came: Mapping[str, StoredAs],
) -> str:
    shape = cell.members[0].layer.shape
    count = len(cell.members)
    # The digits in sight are part of what is heard, so that who speaks to the page can say what they see (WCAG 2.5.3).
    schemes = [text("map.bits", language, bits=cell.bits), *(scheme_name(each, language) for each in cell.schemes)]
    words = text(
        "map.hover",
        language,
        projection=cell.projection,
        block=cell.block,
        scheme=", ".join(dict.fromkeys(schemes)),
        shape=(f"{count} × " if count > 1 else "") + shape_name(shape),
        bytes=format_bytes(cell.nbytes),
    )
    types = dict.fromkeys(came[a.layer.name].type for a in cell.members if a.layer.name in came)
    if types:
        words += text("map.hover_came", language, type=", ".join(types))
    if error is None:
        return words
    if error != error:
        return words + text("map.hover_experts" if len(shape) == 3 else "map.hover_never", language)
    shown = f"{error:{figure.map_format}}" if interval is None else about(interval, language)
    return words + text(f"figure.{figure.name}.hover", language, value=shown)


def _colour(
    cell: Cell, error: float | None, ramp: Ramp | None, top: float, bounds: tuple[float, float] | None
) -> tuple[str, bool]:
    """Return the cell's colour and whether its digits must be light to be read on it; by bits without a ``ramp``."""
    if ramp is None:
        return BITS_COLOURS[cell.bits], cell.bits >= 8
    if error is None or error != error:
        return "transparent", False
    return shade(ramp, share_of(error, top, bounds))


def _scale(ramp: Ramp, top: float, figure: LayerFigure) -> str:
    """Return the bar that says which colour is which number."""
    numbers = [top * part for part in (0, 0.5, 1)]
    if figure.bounds is not None:
        low, high = figure.bounds
        decades = round(math.log10(high / low))
        numbers = [low * 10**decade for decade in range(decades + 1)]
    ticks = "".join(f"<span>{number:{figure.tick_format}}</span>" for number in numbers)
    return f'<div class="heat-scale"><i style="background:{gradient(ramp)}"></i><div>{ticks}</div></div>'


def _step(columns: Sequence[int]) -> int:
    """Return of how many blocks one is numbered."""
    return next((step for step in (1, 5, 10, 20, 50, 100) if len(columns) / step <= 16), 1000)
