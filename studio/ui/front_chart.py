"""Size against loss as a Plotly figure: presets, runs, the plan on show, the machine's limit. Pure."""

from dataclasses import dataclass
from html import escape

import plotly.graph_objects as go

from studio.base.text import text
from studio.planning.choice import Choice
from studio.session.decision import Loss, measured
from studio.session.session import Session
from studio.ui.chart_look import ACCENT, FLOOR, INK, WARM, framed
from studio.ui.verdict import figure, how_often

SYMBOLS = {"preset": "circle", "run": "square", "other": "diamond", "shown": "star"}


@dataclass(frozen=True)
class Point:
    """One plan on the chart."""

    kind: str
    choice: Choice | None
    """None of a file of others."""
    plan: str
    """What a click on it plans: ``"preset:balanced"``, ``"run:2"``; nothing for a file of others."""
    label: str
    nbytes: int
    loss: Loss


def points(session: Session, language: str) -> list[Point]:
    """Return every plan whose loss is known: the presets, what was made or judged, and the plan on show."""
    found = [
        Point(
            "preset",
            each.plan.choice,
            f"preset:{each.preset}",
            text(f"preset.{each.preset}", language),
            each.nbytes,
            each.loss,
        )
        for each in session.decision.options()
        if each.loss is not None
    ]
    model = session.checkpoint.name if session.checkpoint is not None else ""
    for run in session.decision.runs:
        if run.evaluation is not None and run.model == model:
            label = text("runs.number", language, number=run.number)
            found.append(Point("run", run.choice, f"run:{run.number}", label, run.nbytes, measured(run.evaluation)))
    for each in session.decision.runs.judged:
        if each.model == model:
            found.append(Point("other", None, "", each.name, each.nbytes, measured(each.evaluation)))
    plan, loss = session.plan, session.decision.loss()
    if plan is not None and loss is not None and not any(_is_shown(point, session) for point in found):
        found.append(
            Point("shown", plan.choice, "", text("front.shown", language), session.decision.nbytes(plan), loss)
        )
    return found


def front_chart(session: Session, language: str) -> go.Figure:
    """Return the chart; hollow points are predicted, solid ones measured, with two standard errors each way."""
    chart = go.Figure()
    found = points(session, language)
    for kind in SYMBOLS:
        for has_error in (False, True):
            alike = [p for p in found if p.kind == kind and (p.loss.standard_error is not None) == has_error]
            _trace(chart, alike, kind, session, language)
    _limit(chart, session, found, language)
    if not found:
        words = text("front.waiting" if session.model.has_figures else "front.later", language)
        chart.add_annotation(x=0.5, y=0.5, xref="paper", yref="paper", text=words, showarrow=False)
    framed(chart, 300, {"l": 56, "r": 12, "t": 8, "b": 44})
    chart.update_xaxes(title={"text": text("front.size", language)}, rangemode="normal")
    chart.update_yaxes(title={"text": text("front.loss", language)}, type="log", dtick=1)
    return chart


def _trace(chart: go.Figure, found: list[Point], kind: str, session: Session, language: str) -> None:
    if not found:
        return
    colours = [ACCENT if _is_shown(point, session) else WARM if kind in ("run", "other") else INK for point in found]
    symbols = [SYMBOLS[kind] + ("-open" if point.loss.source == "predicted" else "") for point in found]
    chart.add_trace(
        go.Scatter(
            x=[point.nbytes / 1e6 for point in found],
            y=[max(FLOOR, point.loss.kld) for point in found],
            error_y={
                "type": "data",
                "array": [2 * (point.loss.standard_error or 0) for point in found],
                "visible": found[0].loss.standard_error is not None,
                "color": INK,
                "thickness": 1.4,
                "width": 4,
            },
            mode="markers+text",
            text=[escape(point.label) for point in found],
            textposition="bottom center" if kind == "run" else "top center",
            textfont={"color": INK},
            marker={"size": 13, "symbol": symbols, "color": colours, "line": {"width": 2, "color": colours}},
            customdata=[point.plan for point in found],
            hovertext=[_words(point, language) for point in found],
            hoverinfo="text",
            cliponaxis=False,
        )
    )


def _is_shown(point: Point, session: Session) -> bool:
    """Return whether it is the plan on show."""
    return session.plan is not None and point.choice == session.plan.choice


def _words(point: Point, language: str) -> str:
    loss = point.loss
    often = text("verdict.lose", language, often=how_often(loss.differs, language))
    return f"<b>{escape(point.label)}</b><br>{point.nbytes / 1e6:.1f} MB<br>{figure(loss, language)}<br>{often}"


def _limit(chart: go.Figure, session: Session, found: list[Point], language: str) -> None:
    """Draw what just fits, where that is near the plans; else say where it is."""
    fit = session.decision.fit()
    if fit is None or not found:
        return
    limit, largest = fit.largest / 1e6, max(point.nbytes for point in found) / 1e6
    words = text("front.limit", language, host=text(f"host.{fit.host.name}", language))
    if limit <= 1.5 * largest:
        chart.add_vline(x=limit, line={"color": WARM, "dash": "dash", "width": 2})
        chart.add_annotation(
            x=limit, y=1, yref="paper", text=words, showarrow=False, font={"color": WARM}, xanchor="right"
        )
        return
    far = text(
        "front.limit_far", language, limit=f"{limit / 1000:,.1f} GB", host=text(f"host.{fit.host.name}", language)
    )
    chart.add_annotation(
        x=1,
        y=1.0,
        xref="paper",
        yref="paper",
        text=f"{far} →",
        showarrow=False,
        font={"color": INK, "size": 11},
        xanchor="right",
    )
