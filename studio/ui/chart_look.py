"""How every Plotly figure of the page looks: its colours, which hold in light and dark, and its frame. Knows no figure.

A figure has no menu and no zoom: it is looked at, and on a phone a finger scrolls the page, not the picture.
"""

from typing import Any

import plotly.graph_objects as go

INK, ACCENT, WARM, GRID = "#6b7686", "#2f6fd0", "#c2571a", "rgba(128,140,160,0.25)"
"""Words and lines, the compressed model, what to mind, the lines behind: each has contrast on both grounds."""
FLOOR = 1e-4
"""Nats; a loss of less is drawn as this where losses are."""
NOTHING = "rgba(0,0,0,0)"
AXIS: dict[str, Any] = {
    "gridcolor": GRID, "zeroline": False, "linecolor": GRID, "tickfont": {"color": INK}, "fixedrange": True,
}  # fmt: skip


def framed(chart: go.Figure, height: int, margin: dict[str, int], size: int = 12) -> go.Figure:
    """Return the figure on the page's own ground, ``height`` pixels high, with words of ``size`` pixels."""
    chart.update_layout(
        height=height,
        margin=margin,
        paper_bgcolor=NOTHING,
        plot_bgcolor=NOTHING,
        font={"color": INK, "size": size},
        showlegend=False,
        hoverlabel={"align": "left"},
        dragmode=False,
    )
    chart.update_xaxes(**AXIS)
    chart.update_yaxes(**AXIS)
    return chart
