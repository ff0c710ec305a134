"""Report -> figure, pure: the map of layers and the comparison of sizes. Knows nothing of sessions or gradio."""

from collections.abc import Mapping, Sequence
from html import escape
from typing import Any

import plotly.graph_objects as go

from studio.architecture import Kind
from studio.plan import Assignment, Plan
from studio.text import text
from studio.units import format_bytes

INK = "#8a8f98"
"""Text and lines: readable on white and on black alike."""
ERROR_COLOURS = [[0.0, "#e6eef7"], [0.45, "#9dbfe0"], [0.75, "#eaa45f"], [1.0, "#a83a1e"]]
"""From blue to red through orange, which people who are colour-blind tell apart."""
BITS_COLOURS = [
    [0.0, "#7cc0b5"],
    [0.5, "#7cc0b5"],
    [0.5, "#3d7ea6"],
    [0.75, "#3d7ea6"],
    [0.75, "#5b5f66"],
    [1.0, "#5b5f66"],
]
"""4, 8 and 16 bits, for a colour axis from 0 to 16."""
SIZE_COLOURS = {
    "blocks": "#0072b2",
    "embeddings": "#56b4e9",
    "head": "#009e73",
    "scales": "#e69f00",
    "zero_points": "#d55e00",
    "other": "#8a8f98",
}
"""Okabe and Ito's colours, told apart by everyone."""
ROW_HEIGHT = 24
MAX_MAP_HEIGHT = 640
DIGITS_UP_TO = 48
"""Blocks whose cells are wide enough for a number."""


def bits_of(a: Assignment) -> int:
    """Return the bits of a weight's codes, 16 where it is kept."""
    return 16 if a.scheme is None else a.scheme.mode.bits


def scheme_name(a: Assignment, language: str) -> str:
    """Return what a tensor becomes, in words."""
    return text("map.kept", language) if a.scheme is None else str(a.scheme)


def grid(plan: Plan) -> tuple[list[str], list[int], dict[tuple[str, int], Assignment]]:
    """Return the map's rows (projections), columns (blocks) and the weight in each cell."""
    cells = {
        (a.layer.projection, a.layer.block): a
        for a in plan.assignments
        if a.layer.kind is Kind.LINEAR and a.layer.block is not None
    }
    rows = list(dict.fromkeys(projection for projection, _ in cells))
    columns = sorted({block for _, block in cells})
    return rows, columns, cells


def map_figure(plan: Plan, errors: Mapping[str, float] | None, language: str) -> go.Figure:
    """Return the map: projection by block, each cell with its bits, coloured by weight error or, before, by bits."""
    rows, columns, cells = grid(plan)
    z: list[list[float | None]] = []
    digits: list[list[str]] = []
    hover: list[list[str]] = []
    for row in rows:
        line = [cells.get((row, column)) for column in columns]
        z.append([None if a is None else _value(a, errors) for a in line])
        digits.append(["" if a is None else str(bits_of(a)) for a in line])
        hover.append(["" if a is None else _hover(a, errors, language) for a in line])
    heat = go.Heatmap(
        z=z,
        x=columns,
        y=[escape(label) for label in short_names(rows)],
        text=digits,
        texttemplate="%{text}" if len(columns) <= DIGITS_UP_TO else None,
        textfont={"size": 10},
        customdata=hover,
        hovertemplate="%{customdata}<extra></extra>",
        xgap=1,
        ygap=1,
        zmin=0,
        hoverongaps=False,
    )
    if errors is None:
        heat.update(colorscale=BITS_COLOURS, zmax=16, showscale=False)
    else:
        heat.update(
            colorscale=ERROR_COLOURS,
            zmax=max(errors.values(), default=1) or 1,
            colorbar={
                "tickformat": ".0%",
                "thickness": 8,
                "outlinewidth": 0,
                "orientation": "h",
                "y": -0.42,
                "ypad": 0,
            },
        )
    figure = go.Figure(heat)
    height = min(MAX_MAP_HEIGHT, 100 + ROW_HEIGHT * len(rows))
    figure.update_layout(**_layout(height, bottom=74), xaxis_title=text("map.block", language))
    figure.update_xaxes(showgrid=False, zeroline=False, ticks="", dtick=5 if len(columns) > 12 else 1)
    figure.update_yaxes(autorange="reversed", showgrid=False, zeroline=False, ticks="", automargin=True)
    return figure


def size_figure(plan: Plan, language: str) -> go.Figure:
    """Return original against compressed, each split into what its bytes hold."""
    original, compressed = plan.original_breakdown(), plan.breakdown()
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


def _value(a: Assignment, errors: Mapping[str, float] | None) -> float:
    return bits_of(a) if errors is None else errors.get(a.layer.name, 0.0)


def _hover(a: Assignment, errors: Mapping[str, float] | None, language: str) -> str:
    words = text(
        "map.hover",
        language,
        projection=escape(a.layer.projection),
        block=a.layer.block,
        scheme=scheme_name(a, language),
        shape=shape_name(a.layer.shape),
        bytes=format_bytes(a.nbytes),
    )
    if errors is None or a.layer.name not in errors:
        return words
    return words + text("map.hover_error", language, error=f"{errors[a.layer.name]:.2%}")


def short_names(projections: Sequence[str]) -> list[str]:
    """Return the last parts of ``self_attn.q_proj`` and its like, or the whole names where two would look the same."""
    short = [name.rpartition(".")[2] for name in projections]
    return short if len(set(short)) == len(short) else list(projections)


def shape_name(shape: Sequence[int]) -> str:
    """Return ``(1536, 576)`` as ``1536 × 576``."""
    return " × ".join(str(size) for size in shape)
