"""Report -> figure, pure: the comparison of sizes. Knows nothing of sessions or gradio."""

from typing import Any

import plotly.graph_objects as go

from studio.plan import Plan
from studio.text import text
from studio.units import format_bytes

INK = "#8a8f98"
"""Text and lines: readable on white and on black alike."""
SIZE_COLOURS = {
    "blocks": "#0072b2",
    "embeddings": "#56b4e9",
    "head": "#009e73",
    "scales": "#e69f00",
    "zero_points": "#d55e00",
    "other": "#8a8f98",
}
"""Okabe and Ito's colours, told apart by everyone."""


def size_figure(plan: Plan, language: str) -> go.Figure:
    """Return original against compressed, each split into what its bytes hold."""
    original, compressed = plan.original_breakdown, plan.breakdown
    names = [text("size.compressed", language), text("size.original", language)]
    figure = go.Figure()
    for place, colour in SIZE_COLOURS.items():
        sizes = [compressed[place], original[place]]
        if not any(sizes):
            continue
        label = text(f"size.{place}", language)
        figure.add_bar(
            y=names,
            x=[size / 1e6 for size in sizes],
            orientation="h",
            name=label,
            marker_color=colour,
            customdata=[f"{label}: {size:,} B ({format_bytes(size)})" for size in sizes],
            hovertemplate="%{customdata}<extra></extra>",
        )
    figure.update_layout(
        **_layout(150), barmode="stack", bargap=0.3, showlegend=False, xaxis_title=text("size.axis", language)
    )
    figure.update_xaxes(gridcolor="rgba(138,143,152,0.25)", zeroline=False)
    figure.update_yaxes(showgrid=False, automargin=True)
    return figure


def _layout(height: int, bottom: int = 40) -> dict[str, Any]:
    return {
        "height": height,
        "margin": {"l": 8, "r": 8, "t": 8, "b": bottom},
        "paper_bgcolor": "rgba(0,0,0,0)",
        "plot_bgcolor": "rgba(0,0,0,0)",
        "font": {"color": INK, "size": 12, "family": "system-ui, sans-serif"},
        "dragmode": False,
    }
