"""A small picture of where each phase stands between bound by memory and bound by compute. Pure: numbers -> SVG."""

import math
from collections.abc import Sequence
from html import escape

from studio.base.text import text
from studio.chat.roofline import Phase
from studio.runtime.machine import Machine

WIDE, HIGH = 340, 190
LEFT, RIGHT, TOP, BOTTOM = 40, 16, 12, 34
COLUMNS = ("original", "compressed")


def roofline(phases: Sequence[Phase], machine: Machine, language: str) -> str:
    """Return the picture and the same in words, a line a phase."""
    if not phases:
        return f'<p class="hint">{escape(text("speed.waiting", language))}</p>'
    ridge = machine.operations / machine.bandwidth
    low = math.floor(math.log10(min(ridge / 10, *(p.intensity / 2 for p in phases))))
    high = math.ceil(math.log10(max(ridge * 10, *(p.intensity * 2 for p in phases))))
    top = math.ceil(math.log10(max(machine.operations, *(p.operations for p in phases)) * 1.05))
    bottom = math.floor(math.log10(min(p.operations for p in phases) / 1.5))

    def x(intensity: float) -> float:
        return LEFT + (math.log10(intensity) - low) / (high - low) * (WIDE - LEFT - RIGHT)

    def y(operations: float) -> float:
        return HIGH - BOTTOM - (math.log10(operations) - bottom) / (top - bottom) * (HIGH - TOP - BOTTOM)

    start = max(10.0**low, 10.0**bottom / machine.bandwidth)
    roof = f"{x(start):.1f},{y(start * machine.bandwidth):.1f} {x(ridge):.1f},{y(machine.operations):.1f}"
    roof += f" {WIDE - RIGHT},{y(machine.operations):.1f}"
    ticks = "".join(
        f'<line x1="{x(10.0**e):.1f}" x2="{x(10.0**e):.1f}" y1="{TOP}" y2="{HIGH - BOTTOM}"/>'
        f'<text x="{x(10.0**e):.1f}" y="{HIGH - BOTTOM + 12}" text-anchor="middle">{_power(e)}</text>'
        for e in range(low, high + 1)
    )
    ticks += "".join(
        f'<line x1="{LEFT}" x2="{WIDE - RIGHT}" y1="{y(10.0**e):.1f}" y2="{y(10.0**e):.1f}"/>'
        f'<text x="{LEFT - 4}" y="{y(10.0**e) + 3:.1f}" text-anchor="end">{_rate(10.0**e)}</text>'
        for e in range(bottom, top + 1)
    )
    lines = [_line(phase, machine, language) for phase in phases]
    marks = "".join(_mark(p, x(p.intensity), y(p.operations), line) for p, line in zip(phases, lines, strict=True))
    axes = (
        f'<text x="{(LEFT + WIDE - RIGHT) / 2}" y="{HIGH - 6}" text-anchor="middle">'
        f"{escape(text('speed.intensity', language))}</text>"
    )
    regions = (
        f'<text x="{LEFT + 6}" y="{TOP + 10}">{escape(text("speed.memory", language))}</text>'
        f'<text x="{WIDE - RIGHT - 4}" y="{HIGH - BOTTOM - 6}" text-anchor="end">'
        f"{escape(text('speed.compute', language))}</text>"
    )
    title = text("speed.picture", language)
    measured = text(
        "speed.measured",
        language,
        bandwidth=f"{machine.bandwidth / 1e9:.0f}",
        operations=f"{machine.operations / 1e9:,.0f}",
    )
    listed = "".join(
        f'<li><i class="{COLUMNS[p.column]} {p.name}"></i>{escape(line)}</li>'
        for p, line in zip(phases, lines, strict=True)
    )
    return (
        f'<figure class="roofline"><svg viewBox="0 0 {WIDE} {HIGH}" role="img" aria-label="{escape(title)}">'
        f'<g class="grid">{ticks}</g><polyline class="roof" points="{roof}"/>{axes}{regions}{marks}</svg>'
        f'<figcaption><ul>{listed}</ul><p class="hint">{escape(measured)}</p></figcaption></figure>'
    )


def _mark(phase: Phase, x: float, y: float, line: str) -> str:
    """A circle is the original, a square the compressed model; a prompt is hollow."""
    kind = f'class="{COLUMNS[phase.column]} {phase.name}"'
    title = f"<title>{escape(line)}</title>"
    if phase.column == 0:
        return f'<circle {kind} cx="{x:.1f}" cy="{y:.1f}" r="5">{title}</circle>'
    return f'<rect {kind} x="{x - 4.5:.1f}" y="{y - 4.5:.1f}" width="9" height="9">{title}</rect>'


def _line(phase: Phase, machine: Machine, language: str) -> str:
    bound = "memory" if phase.is_bound_by_memory(machine) else "compute"
    return text(
        "speed.line",
        language,
        column=text(f"chat.{COLUMNS[phase.column]}", language),
        phase=text(f"speed.{phase.name}", language),
        rate=f"{phase.operations / 1e9:,.0f}",
        share=f"{phase.share:.0%}",
        bound=text(f"speed.by_{bound}", language),
    )


def _power(exponent: int) -> str:
    return f"{10.0**exponent:g}" if exponent < 4 else f"{10.0 ** (exponent - 3):g}k"


def _rate(operations: float) -> str:
    """Operations a second: ``100G``."""
    for unit, size in (("T", 1e12), ("G", 1e9), ("M", 1e6)):
        if operations >= size:
            return f"{operations / size:g}{unit}"
    return f"{operations:g}"
