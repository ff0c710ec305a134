"""A layer's weights and the levels that they snap to, as a Plotly figure. Pure; knows nothing of how it was counted."""

from collections.abc import Sequence
from html import escape

import plotly.graph_objects as go
from plotly.subplots import make_subplots

from studio.base.text import text
from studio.planning.weight_levels import OneGroup, WeightLevels
from studio.session.looked_at import LookedAt
from studio.ui.chart_look import ACCENT, GRID, INK, WARM, framed
from studio.ui.heatmap import scheme_name

MARGIN = {"l": 44, "r": 10, "t": 36, "b": 40}


def levels_hint(looked_at: LookedAt | None, language: str) -> str:
    """Return the heading of the figure and what it shows, in words; nothing of no layer."""
    if looked_at is None:
        return ""
    label, info = text("levels.label", language), text("levels.info", language)
    return f'<h3>{escape(label)}</h3><p class="hint">{escape(info)}</p>'


def weight_chart(looked_at: LookedAt, language: str) -> go.Figure:
    """Return the histogram with a line at each level; above it one group's weights, each with where it snaps to."""
    found, scheme = looked_at.levels, scheme_name(looked_at.assignment.scheme, language)
    has_group = found.group is not None
    titles = [text("levels.group", language, count=len(found.group.weights))] if found.group is not None else []
    titles.append(_title(found, scheme, language))
    heights = [0.36, 0.64] if has_group else None
    chart = make_subplots(rows=len(titles), cols=1, row_heights=heights, vertical_spacing=0.24, subplot_titles=titles)
    if found.group is not None:
        _group(chart, found.group, language)
    _histogram(chart, found, len(titles), language)
    chart.update_annotations(font={"size": 12, "color": INK})
    return framed(chart, 420 if has_group else 260, MARGIN, 11).update_layout(bargap=0.04)


def _title(found: WeightLevels, scheme: str, language: str) -> str:
    """Return the histogram's title: of how many weights, and how many levels."""
    levels = len(found.levels)
    key = "levels.title" if levels else "levels.title_plain"
    return text(key, language, scheme=scheme, count=f"{found.sampled:,}", whole=f"{found.whole:,}", levels=levels)


def _group(chart: go.Figure, group: OneGroup, language: str) -> None:
    """Draw each weight of a group above, its level below, and the way between them."""
    ways = [
        part for a, b in zip(group.weights, group.snapped, strict=True) for part in ((a, 1.0), (b, 0.0), (None, None))
    ]
    _add(chart, [x for x, _ in ways], [y for _, y in ways], mode="lines", line={"color": GRID, "width": 1})
    before, after = text("levels.before", language), text("levels.after", language)
    for numbers, height, colour, name in ((group.weights, 1, INK, before), (group.snapped, 0, ACCENT, after)):
        words = [f"{name}: {number:.4f}" for number in numbers]
        marker = {"color": colour, "size": 6, "symbol": "line-ns-open" if height else "circle", "line": {"width": 1.5}}
        _add(chart, numbers, [height] * len(numbers), mode="markers", marker=marker, text=words, hoverinfo="text")
    for level in group.levels:
        chart.add_shape(
            type="line", x0=level, x1=level, y0=-0.35, y1=0.2, line={"color": WARM, "width": 1.2}, row=1, col=1
        )
    chart.update_yaxes(range=[-0.4, 1.3], tickvals=[0, 1], ticktext=[after, before], row=1, col=1)


def _add(chart: go.Figure, x: Sequence[float | None], y: Sequence[float | None], **how: object) -> None:
    chart.add_trace(go.Scatter(x=list(x), y=list(y), **how), row=1, col=1)


def _histogram(chart: go.Figure, found: WeightLevels, row: int, language: str) -> None:
    middles = [(a + b) / 2 for a, b in zip(found.edges[:-1], found.edges[1:], strict=True)]
    width = found.edges[1] - found.edges[0]
    bars = go.Bar(x=middles, y=list(found.counts), width=width, marker={"color": ACCENT, "opacity": 0.55})
    bars.update(hovertemplate="%{y:,}<extra></extra>")
    chart.add_trace(bars, row=row, col=1)
    for level, share in zip(found.levels, found.taken, strict=True):
        chart.add_vline(x=level, line={"color": WARM, "width": 1.2}, row=row, col=1)
        words = text("levels.taken", language, share=f"{share:.1%}")
        mark = go.Scatter(x=[level], y=[max(found.counts)], mode="markers", marker={"color": WARM, "size": 7})
        mark.update(hovertext=words, hoverinfo="text")
        chart.add_trace(mark, row=row, col=1)
    chart.update_xaxes(
        title={"text": text("levels.axis" if found.levels else "levels.axis_plain", language)}, row=row, col=1
    )
    chart.update_yaxes(showticklabels=False, row=row, col=1)
