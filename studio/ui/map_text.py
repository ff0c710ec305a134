"""The words beside the map: its legend, a layer's card, the tables. Pure."""

from collections.abc import Mapping
from html import escape

from studio.base.text import text
from studio.base.units import format_bytes
from studio.checkpoint.layers import Kind
from studio.checkpoint.stored_as import StoredAs
from studio.planning import planned_bits, weight_error
from studio.planning.choice import MAX_PATTERN, Pin
from studio.planning.figures import FIGURES
from studio.planning.layer_figure import Known, LayerFigure
from studio.planning.plan import Plan
from studio.quantization.methods import Method
from studio.quantization.scheme import Scheme
from studio.session.session import Session
from studio.ui.heatmap import NONE_GUESSED, NOTHING_CAME, Errors, about, number, scheme_name, shape_name
from studio.ui.html import table
from studio.ui.sampled_map import Estimates

MAX_TABLE_ROWS = 400
MAX_CHIPS = 40
MAX_NAMES = 2000


def is_as_nearest(session: Session, figure: LayerFigure = weight_error.FIGURE) -> bool:
    """Return whether the numbers on show are those of rounding to nearest, while the plan's method is another.

    Weight errors are until it is compressed, what is found with a text always is.
    """
    if session.choice.method is Method.NEAREST or session.choice.mode.bits >= 8:
        return False
    return not figure.follows_method or session.copy.compressed is None or not session.is_copy_of_choice


def known_of(session: Session, found: Errors | None = None) -> Known | None:
    """Return what the session knows of its layers, ``found`` being the plan's weight errors; None without a plan."""
    model = session.model
    return None if session.plan is None else Known(session.plan, model.known, model.sampled, model.figures, found)


def came_of(session: Session) -> Mapping[str, StoredAs]:
    """Return how each tensor lies in the model's own files, where that is worth telling: it came quantized."""
    return NOTHING_CAME if session.checkpoint is None else session.checkpoint.came_quantized


def weight_errors(session: Session) -> Mapping[str, float] | None:
    """Return the weight error of each layer in the plan's scheme as far as it is known, None before a survey begins.

    From the compressed copy while it is that of the plan, from the survey otherwise: the same numbers where each weight
    is rounded to nearest.
    """
    if session.plan is None:
        return None
    if session.copy.compressed is not None and session.is_copy_of_choice:
        return session.copy.compressed.relative_error
    if not session.model.known.layers:
        return None
    return session.planner.errors


def map_legend(
    plan: Plan,
    figure: LayerFigure,
    errors: Mapping[str, float] | None,
    language: str,
    guessed: Estimates = NONE_GUESSED,
    as_nearest: bool = False,
    total: float | None = None,
    is_coming: bool = False,
) -> str:
    """Return which figure the map shows, what the numbers mean, and the weights outside the blocks.

    ``total``: what the layers' numbers add up to, where that is known. ``is_coming``: whether what the map is to show
    can be measured here, now that it is asked for.
    """
    on_show = figure if errors is not None else planned_bits.FIGURE
    title = text(f"figure.{on_show.name}.legend", language)
    if errors is None and figure.measure is not None:
        title = text(f"figure.{figure.name}.{'measuring' if is_coming else 'waits'}", language)
    if total is not None:
        title += text(f"figure.{figure.name}.total", language, total=f"{total:{figure.card_format}}")
    if guessed and errors is not None:
        title += text("map.sampled", language)
    if as_nearest:
        title += text("map.as_nearest" if figure.follows_method else "map.always_nearest", language)
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
        f"{number(a.layer.name, errors, guessed, figure.map_format, ', ')}</button></li>"
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
    known = known_of(session)
    columns = {} if known is None else _costs(known, [a.layer.name for a in taken], language)
    schemes = columns.get(weight_error.FIGURE.name)
    if not schemes:
        return f'<p class="facts">{escape(heading)}</p>'
    lines = sorted((Scheme.parse(name).nbytes(first.matrix), name) for name in schemes)
    rows = [
        (name, format_bytes(nbytes), *(column.get(name, "–") for column in columns.values())) for nbytes, name in lines
    ]
    names = [text(f"map.column_{name}", language) for name in ("scheme", "bytes")]
    names += [text(f"figure.{name}.column", language) for name in columns]
    return f'<p class="facts">{escape(heading)}</p>{table(names, rows)}'


def _costs(known: Known, layers: list[str], language: str) -> dict[str, dict[str, str]]:
    """Return, of each figure that a card has a column of, what each scheme costs, in words."""
    columns = {}
    for figure in FIGURES.values():
        guessed = figure.guessed(known, layers[0])
        words = {scheme: about(found, language) for scheme, found in guessed.items()}
        words |= {scheme: f"{cost:{figure.card_format}}" for scheme, cost in figure.costs(known, layers).items()}
        if words or figure.is_always_on_card:
            columns[figure.name] = words
    return columns


def layer_table(
    plan: Plan,
    errors: Mapping[str, float] | None,
    language: str,
    guessed: Estimates = NONE_GUESSED,
    came: Mapping[str, StoredAs] = NOTHING_CAME,
) -> str:
    """Return every weight as a row: the map for people who would rather read, or cannot see it.

    ``came``: how each lies in the model's own file, where that is worth telling.
    """
    weights = [a for a in plan.assignments if a.layer.is_weight]
    rows = [
        (
            a.layer.name,
            shape_name(a.layer.shape),
            scheme_name(a.scheme, language),
            f"{a.nbytes:,}",
            number(a.layer.name, errors, guessed, ".3%") or "–",
            *_came(a.layer.name, came),
        )
        for a in weights[:MAX_TABLE_ROWS]
    ]
    columns = [text(f"map.column_{name}", language) for name in ("layer", "shape", "scheme", "bytes")]
    columns.append(text(f"figure.{weight_error.FIGURE.name}.column", language))
    columns += [text("map.column_came", language)] if came else []
    note = f'<p class="hint">{escape(text("map.rest", language))}</p>'
    if len(weights) > MAX_TABLE_ROWS:
        cut = text("map.table_cut", language, shown=MAX_TABLE_ROWS, all=len(weights))
        note += f'<p class="hint">{escape(cut)}</p>'
    return note + table(columns, rows)


def _came(layer: str, came: Mapping[str, StoredAs]) -> list[str]:
    """Return the last cell of a layer's row, where there is such a column."""
    if layer not in came:
        return ["–"] if came else []
    return [f"{came[layer].type}, {came[layer].nbytes:,}"]


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
