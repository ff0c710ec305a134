"""A whole front as a Plotly figure: plans, llama.cpp's mixes, files of others, with the floor. Pure; knows no page.

As on the page: hollow is predicted, solid is measured, with two standard errors each way.
"""

import shlex
from html import escape

import plotly.graph_objects as go

from studio.base.text import text
from studio.session.front import KINDS, Front, FrontPoint, Kind
from studio.ui.chart_look import ACCENT, FLOOR, INK, WARM, framed

LOOKS: dict[Kind, tuple[str, str]] = {"plan": ("circle", ACCENT), "mix": ("diamond", INK), "other": ("square", WARM)}
"""Symbol and colour of each kind."""


def front_picture(front: Front, language: str) -> go.Figure:
    """Return the figure; a point says how it is made when it is pointed at."""
    chart = go.Figure()
    plans = [point for point in front.points if point.kind == "plan"]
    line = {"color": ACCENT, "width": 1, "dash": "dot"}
    chart.add_trace(go.Scatter(x=_sizes(plans), y=_losses(plans), mode="lines", line=line, hoverinfo="skip"))
    for kind in KINDS:
        for is_measured in (False, True):
            alike = [p for p in front.points if p.kind == kind and (p.evaluation is not None) == is_measured]
            if alike:
                chart.add_trace(_trace(alike, kind, is_measured, front.model, language))
    if front.floor is not None:
        words = text("front.floor", language)
        chart.add_hline(y=max(FLOOR, front.floor.kld.mean), line={"color": INK, "dash": "dash"}, annotation_text=words)
    framed(chart, 560, {"l": 70, "r": 24, "t": 56, "b": 60}, size=14)
    chart.update_layout(title={"text": escape(front.model)}, showlegend=True, legend={"orientation": "h", "y": 1.08})
    chart.update_layout(paper_bgcolor="white", plot_bgcolor="white")
    chart.update_xaxes(title={"text": text("front.size", language)})
    chart.update_yaxes(title={"text": text("front.loss", language)}, type="log", dtick=1)
    chart.data[0].showlegend = False
    return chart


def _trace(points: list[FrontPoint], kind: Kind, is_measured: bool, model: str, language: str) -> go.Scatter:
    symbol, colour = LOOKS[kind]
    source = text("front.measured" if is_measured else "front.predicted", language)
    errors = [0.0 if p.evaluation is None else 2 * (p.evaluation.kld.standard_error or 0.0) for p in points]
    return go.Scatter(
        x=_sizes(points),
        y=_losses(points),
        name=f"{text(f'front.kind_{kind}', language)}, {source}",
        mode="markers+text" if kind != "plan" else "markers",
        text=[escape(point.name) for point in points],
        textposition="top center",
        error_y={"type": "data", "array": errors, "visible": is_measured, "color": colour},
        marker={
            "size": 11,
            "symbol": symbol + ("" if is_measured else "-open"),
            "color": colour,
            "line": {"width": 2, "color": colour},
        },
        hovertext=[_words(point, source) for point in points],
        hoverinfo="text",
    )


def _words(point: FrontPoint, source: str) -> str:
    command = shlex.join(("python", "-m", "studio", *point.command))
    sizes = f"{point.nbytes / 1e6:.1f} MB, {point.bits_per_weight:.2f} bpw"
    return f"<b>{escape(point.name)}</b><br>{sizes}<br>{point.kld:.4f} ({escape(source)})<br>{escape(command)}"


def _sizes(points: list[FrontPoint]) -> list[float]:
    return [point.nbytes / 1e6 for point in points]


def _losses(points: list[FrontPoint]) -> list[float]:
    return [max(FLOOR, point.kld) for point in points]
