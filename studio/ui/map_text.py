"""The words beside the map: its legend, a layer's card, the tables. Pure."""

import math
from collections.abc import Mapping
from html import escape
from typing import Literal, get_args

from studio.base.text import text
from studio.base.units import format_bytes
from studio.checkpoint.layers import Kind
from studio.planning.choice import MAX_PATTERN, Pin
from studio.planning.plan import Plan
from studio.quantization.methods import Method
from studio.quantization.scheme import Scheme
from studio.session.session import Session
from studio.ui.heatmap import NONE_GUESSED, Errors, about, figure, scheme_name, shape_name
from studio.ui.html import table
from studio.ui.sampled_map import Estimates, estimates

Colour = Literal["weight", "output", "damage", "bits"]
COLOURS: tuple[Colour, ...] = get_args(Colour)
"""What the map can show."""
MAX_TABLE_ROWS = 400
MAX_CHIPS = 40
MAX_NAMES = 2000


def is_as_nearest(session: Session, colour: Colour = "weight") -> bool:
    """Return whether the figures on show are those of rounding to nearest, while the plan's method is another.

    Weight errors are until it is compressed, what is found with a text always is.
    """
    if session.choice.method is Method.NEAREST or session.choice.mode.bits >= 8:
        return False
    return colour != "weight" or session.copy.compressed is None or not session.is_current


def weight_errors(session: Session) -> Mapping[str, float] | None:
    """Return the weight error of each layer in the plan's scheme as far as it is known, None before a survey begins.

    From the compressed copy while it is that of the plan, from the survey otherwise: the same numbers where each weight
    is rounded to nearest.
    """
    if session.plan is None:
        return None
    if session.copy.compressed is not None and session.is_current:
        return session.copy.compressed.relative_error
    if not session.model.known.layers:
        return None
    return session.planner.errors


def errors_on_show(session: Session, found: Errors | None, colour: Colour) -> Errors | None:
    """Return the errors that colour the map, ``found`` being the plan's weight errors.

    None where it is coloured by bits, or nothing is measured yet; a layer kept at 16 bits has none to lose. Damage is a
    share of all layers' sum, once that is known.
    """
    if session.plan is None or colour == "bits":
        return None
    kept = {a.layer.name: 0.0 for a in session.plan.assignments if a.scheme is None and a.layer.is_weight}
    if colour == "weight":
        guessed = estimates(session, found)
        if not guessed and (found is None or not kept):
            return found
        return {**kept, **{name: each.error for name, each in guessed.items()}, **(found or {})}
    figures = session.model.output_errors if colour == "output" else session.model.damages
    if not figures:
        return None
    measured = {
        a.layer.name: figures[a.layer.name].get(str(a.scheme)) if figures[a.layer.name] else math.nan
        for a in session.plan.assignments
        if a.layer.name in figures and a.scheme is not None
    }
    found = kept | {name: error for name, error in measured.items() if error is not None}
    if colour == "output":
        return found
    whole = session.planner.predicted_drift
    return None if whole is None else {name: damage / (whole or 1.0) for name, damage in found.items()}


def map_legend(
    plan: Plan,
    colour: Colour,
    errors: Mapping[str, float] | None,
    language: str,
    guessed: Estimates = NONE_GUESSED,
    as_nearest: bool = False,
    predicted: float | None = None,
    is_coming: bool = False,
) -> str:
    """Return which error the map shows, what the numbers mean, and the weights outside the blocks.

    ``predicted``: the KL divergence that the plan is predicted to cost, where it is known. ``is_coming``: whether what
    the map is to show can be measured here, now that it is asked for.
    """
    title = text(f"map.by_{'bits' if errors is None else colour}", language)
    if errors is None and colour in ("output", "damage"):
        title = text(f"map.{colour}_{'measuring' if is_coming else 'waits'}", language)
    if colour == "damage" and predicted is not None:
        title += text("map.predicted", language, kld=f"{predicted:.2g}")
    if guessed and errors is not None:
        title += text("map.sampled", language)
    if as_nearest:
        title += text("map.as_nearest" if colour == "weight" else "map.always_nearest", language)
    if not plan.is_exact:
        title += text("map.estimate", language)
    schemes = sorted(scheme.name for scheme in plan.linear_schemes if scheme is not None)
    schemes += [text("map.kept", language)] if None in plan.linear_schemes else []
    legend = text("map.legend", language, schemes=" · ".join(schemes))
    outside = [a for a in plan.assignments if a.layer.kind is not Kind.LINEAR or a.layer.block is None]
    outside = [a for a in outside if a.layer.is_weight]
    chips = "".join(
        f'<li><button type="button" class="chip" data-layer="{escape(a.layer.name)}">'
        f"<b>{escape(a.layer.projection)}</b> {escape(scheme_name(a.scheme, language))}, {format_bytes(a.nbytes)}"
        f"{figure(a.layer.name, errors, guessed, ', ')}</button></li>"
        for a in outside[:MAX_CHIPS]
    )
    if errors is not None and any(error != error for error in errors.values()):
        legend += " " + text("map.grey", language)
    return (
        f'<p class="map-title">{escape(title)}</p><p class="hint">{escape(legend)}</p>'
        f'<p class="hint">{escape(text("map.outside", language))}</p><ul class="chips">{chips}</ul>'
    )


def pins(plan: Plan, language: str) -> str:
    """Return the pins in force, the first that takes a layer deciding."""
    if not plan.choice.pins:
        return f'<p class="hint">{escape(text("pin.none", language))}</p>'
    kept = text("map.kept", language)
    items = "".join(
        f"<li><code>{escape(pin.pattern)}</code> {escape(str(pin.scheme or kept))}</li>" for pin in plan.choice.pins
    )
    return f'<ul class="chips">{items}</ul>'


def layer_card(session: Session, pattern: str, language: str) -> str:
    """Return what the layers of ``pattern`` would cost in each scheme: bytes, weight error, output error, damage."""
    plan = session.plan
    if plan is None or not pattern or len(pattern) > MAX_PATTERN:
        return ""
    pin = Pin(pattern, None)
    taken = [a for a in plan.assignments if a.layer.is_weight and pin.takes(a.layer.name)]
    if not taken:
        return ""
    first = taken[0].layer
    now = ", ".join(dict.fromkeys(scheme_name(a.scheme, language) for a in taken))
    heading = text("pin.card", language, count=len(taken), shape=shape_name(first.shape), scheme=now)
    known = session.model.known.layers.get(first.name)
    outputs = session.model.output_errors.get(first.name, {})
    lines_of = [session.model.damages.get(a.layer.name, {}) for a in taken]
    damages = {name: sum(line[name] for line in lines_of) for name in lines_of[0] if all(name in x for x in lines_of)}
    sampled = session.model.sampled.get(first.name)
    errors = {name: about(found, language) for name, found in sampled.errors.items()} if sampled is not None else {}
    errors |= {name: f"{error:.2%}" for name, error in known.errors.items()} if known is not None else {}
    if not errors:
        return f'<p class="facts">{escape(heading)}</p>'
    lines = sorted((Scheme.parse(name).nbytes(first.matrix), name, error) for name, error in errors.items())
    rows: list[tuple[str, ...]] = [
        (name, format_bytes(nbytes), error, f"{outputs[name]:.2%}" if name in outputs else "–")
        for nbytes, name, error in lines
    ]
    columns = ["scheme", "bytes", "error", "output"]
    if damages:
        columns.append("damage")
        rows = [(*row, f"{damages[row[0]]:.2g}" if row[0] in damages else "–") for row in rows]
    names = [text(f"map.column_{name}", language) for name in columns]
    return f'<p class="facts">{escape(heading)}</p>{table(names, rows)}'


def layer_table(
    plan: Plan, errors: Mapping[str, float] | None, language: str, guessed: Estimates = NONE_GUESSED
) -> str:
    """Return every weight as a row: the map for people who would rather read, or cannot see it."""
    weights = [a for a in plan.assignments if a.layer.is_weight]
    rows = [
        (
            a.layer.name,
            shape_name(a.layer.shape),
            scheme_name(a.scheme, language),
            f"{a.nbytes:,}",
            figure(a.layer.name, errors, guessed, digits=3) or "–",
        )
        for a in weights[:MAX_TABLE_ROWS]
    ]
    columns = [text(f"map.column_{name}", language) for name in ("layer", "shape", "scheme", "bytes", "error")]
    note = f'<p class="hint">{escape(text("map.rest", language))}</p>'
    if len(weights) > MAX_TABLE_ROWS:
        cut = text("map.table_cut", language, shown=MAX_TABLE_ROWS, all=len(weights))
        note += f'<p class="hint">{escape(cut)}</p>'
    return note + table(columns, rows)


def distribution_table(plan: Plan, language: str) -> str:
    """Return NNCF's table: each mode's share of all weights and of the ratio-defining ones."""
    shares = plan.distribution()
    weights = sum(share.weights for share in shares)
    layers = sum(share.layers for share in shares)
    defining = sum(share.ratio_weights for share in shares)
    defining_layers = sum(share.ratio_layers for share in shares)
    rows = [
        (
            share.scheme,
            f"{share.weights / weights:.0%} ({share.layers} / {layers})",
            f"{share.ratio_weights / max(1, defining):.0%} ({share.ratio_layers} / {defining_layers})",
        )
        for share in shares
    ]
    return table([text(f"size.column_{name}", language) for name in ("mode", "all", "ratio")], rows)
