"""Where each phase stands between bound by memory and bound by compute: a Plotly figure, and the same in words. Pure.

The roofline: operations a second over operations a byte read, beneath the slope of the memory's bandwidth and the level
of the processor's operations. Source: Williams, Waterman, Patterson, "Roofline", 2009.
"""

import math
from collections.abc import Sequence
from html import escape

import plotly.graph_objects as go

from studio.base.text import text
from studio.chat.roofline import Phase
from studio.runtime.machine import Machine
from studio.ui.chart_look import ACCENT, INK, WARM, framed

COLUMNS = ("original", "compressed")
COLOURS, SYMBOLS = (WARM, ACCENT), ("circle", "square")
"""By column; a prompt is hollow."""


def roofline(phases: Sequence[Phase], machine: Machine, language: str) -> go.Figure:
    """Return the figure of some phases, one at least."""
    ridge = machine.operations / machine.bandwidth
    low = math.floor(math.log10(min(ridge / 10, *(p.intensity / 2 for p in phases))))
    high = math.ceil(math.log10(max(ridge * 10, *(p.intensity * 2 for p in phases))))
    bottom = math.floor(math.log10(min(p.operations for p in phases) / 1.5))
    top = math.ceil(math.log10(max(machine.operations, *(p.operations for p in phases)) * 1.05))
    start = max(10.0**low, 10.0**bottom / machine.bandwidth)
    chart = go.Figure()
    roof = ([start, ridge, 10.0**high], [start * machine.bandwidth, machine.operations, machine.operations])
    chart.add_trace(go.Scatter(x=roof[0], y=roof[1], mode="lines", line={"color": INK, "width": 2}, hoverinfo="skip"))
    for phase in phases:
        chart.add_trace(_mark(phase, line(phase, machine, language)))
    for key, x, anchor, y in (("memory", 0.02, "left", 1.0), ("compute", 0.98, "right", 0.06)):
        words = text(f"speed.{key}", language)
        chart.add_annotation(x=x, y=y, xref="paper", yref="paper", text=words, showarrow=False, xanchor=anchor)
    framed(chart, 260, {"l": 56, "r": 12, "t": 12, "b": 44})
    logarithmic = {"type": "log", "dtick": 1, "exponentformat": "SI"}
    chart.update_xaxes(title={"text": text("speed.intensity", language)}, range=[low, high], **logarithmic)
    chart.update_yaxes(title={"text": text("speed.rate", language)}, range=[bottom, top], **logarithmic)
    return chart


def in_words(phases: Sequence[Phase], machine: Machine | None, language: str) -> str:
    """Return the same as HTML, a line a phase; of none, what brings some."""
    if not phases or machine is None:
        return f'<p class="hint">{escape(text("speed.waiting", language))}</p>'
    bandwidth, operations = f"{machine.bandwidth / 1e9:.0f}", f"{machine.operations / 1e9:,.0f}"
    measured = text("speed.measured", language, bandwidth=bandwidth, operations=operations)
    listed = "".join(
        f'<li><i class="{COLUMNS[phase.column]} {phase.name}"></i>{escape(line(phase, machine, language))}</li>'
        for phase in phases
    )
    title = escape(text("speed.picture", language))
    return f'<div class="roofline"><p>{title}</p><ul>{listed}</ul><p class="hint">{escape(measured)}</p></div>'


def _mark(phase: Phase, words: str) -> go.Scatter:
    symbol = SYMBOLS[phase.column] + ("-open" if phase.name == "prompt" else "")
    marker = {"size": 12, "symbol": symbol, "color": COLOURS[phase.column], "line": {"width": 2}}
    return go.Scatter(
        x=[phase.intensity], y=[phase.operations], mode="markers", marker=marker, hovertext=words, hoverinfo="text"
    )


def line(phase: Phase, machine: Machine, language: str) -> str:
    """Return where a phase stands in words."""
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
