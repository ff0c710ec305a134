"""Session -> the words and pictures of the page, pure. Everything from outside is escaped here."""

import math
import shlex
from collections.abc import Mapping, Sequence
from html import escape
from typing import Literal, get_args

from studio.base.progress import Event
from studio.base.text import text
from studio.base.units import format_bytes, format_count
from studio.checkpoint.architecture import Kind, ratio_defining
from studio.checkpoint.open_model import BUILTIN, BUILTIN_PACKAGE
from studio.planning.plan import MAX_PATTERN, MISFITS, SENSITIVITIES, Pin, Plan
from studio.quantization.scheme import GROUP_SIZES, WHOLE_CHANNEL, Method, Mode, Scheme
from studio.session.session import Session
from studio.ui.heatmap import NONE_GUESSED, Errors, about, figure, mean, scheme_name, shape_name
from studio.ui.sampled_map import Estimates, estimates

MODES = (
    Mode.INT4_ASYM, Mode.INT4_SYM, Mode.NF4, Mode.INT5_SYM, Mode.INT8_ASYM, Mode.INT8_SYM, Mode.CB4_LEARNED, Mode.CB4,
    Mode.FP4, Mode.NVFP4, Mode.MXFP4, Mode.FP8_E4M3, Mode.MXFP8_E4M3, Mode.INT3_SYM, Mode.INT2_SYM,
)  # fmt: skip
"""In the order of the list: what most people want first."""
Colour = Literal["weight", "output", "damage", "bits"]
COLOURS: tuple[Colour, ...] = get_args(Colour)
"""What the map can show."""
MAX_TABLE_ROWS = 400
MAX_CHIPS = 40
MAX_NAMES = 2000


def notice(sentence: str, kind: str = "") -> str:
    """Return a sentence for the user; ``kind`` is ``"error"`` for what went wrong, announced at once."""
    role = "alert" if kind == "error" else "status"
    return f'<p class="notice {kind}" role="{role}">{escape(sentence)}</p>' if sentence else ""


def progress(event: Event, language: str) -> str:
    """Return a progress bar with the stage's name and what it works on."""
    label = text(f"stage.{event.stage}", language)
    turns = f" · {text('stage.turns', language)}" if event.is_shared else ""
    known = event.fraction is not None
    percent = round(100 * (event.fraction or 0))
    value = f'aria-valuenow="{percent}"' if known else ""
    return (
        f'<div class="progress {"" if known else "unknown"}" role="progressbar" aria-valuemin="0" aria-valuemax="100" '
        f'{value} aria-label="{escape(label)}"><div style="width:{percent if known else 30}%"></div></div>'
        f'<p class="notice"><span>{escape(label)}{f" {percent} %" if known else ""}{escape(turns)}</span> '
        f"<code>{escape(event.detail)}</code></p>"
    )


def model_facts(session: Session, language: str) -> str:
    """Return one line about the model, and what its original is."""
    checkpoint = session.checkpoint
    if checkpoint is None:
        return ""
    facts = text(
        "model.facts",
        language,
        weights=format_count(checkpoint.weights),
        architecture=escape(checkpoint.architecture),
        format=escape(checkpoint.source_format),
        source=format_bytes(checkpoint.source_bytes),
    )
    blocks = len({layer.block for layer in checkpoint.layers if layer.block is not None})
    facts += " · " + text("model.facts_blocks", language, blocks=blocks)
    notes = []
    if checkpoint.name == BUILTIN:
        notes.append(text("model.note_builtin", language, format=checkpoint.source_format, package=BUILTIN_PACKAGE))
    elif checkpoint.folder is None:
        notes.append(text("model.note_headers", language))
    if checkpoint.part:
        notes.append(text(f"model.note_part_{checkpoint.part}", language))
    if not checkpoint.can_chat:
        notes.append(text("model.note_cannot_chat", language))
    title = f"<b>{escape(checkpoint.title)}</b> · "
    return f'<p class="facts">{title}{facts}</p><p class="hint">{escape(" ".join(notes))}</p>'


def strip(session: Session, found: Errors | None, language: str) -> str:
    """Return the figures of the plan, ``found`` being its weight errors; an estimate is hollow and has a "~"."""
    plan = session.plan
    if plan is None:
        return '<dl class="strip"></dl>'
    about, guess = ("", "") if plan.is_exact else ("~\u2009", " estimate")
    hint = "strip.compressed_hint" if plan.is_exact else "strip.estimate_hint"
    is_here = session.checkpoint is not None and session.checkpoint.folder is not None
    error, error_class = text(f"strip.error_{'measuring' if is_here else 'unknown'}", language), " pending"
    error_hint, guessed = "strip.error_hint", estimates(session, found)
    known = {**(found or {}), **{name: each.error for name, each in guessed.items()}}
    if known and len(known) == plan.compressed_layers:
        error, error_class = f"{mean(known.values()):.2%}", ""
        if guessed or is_as_nearest(session):
            error, error_class = f"~\u2009{error}", " estimate"
            error_hint = "strip.error_sampled_hint" if guessed else "strip.error_method_hint"
    figures = [
        ("original", format_bytes(plan.original_bytes), "strip.original_hint", ""),
        ("compressed", about + format_bytes(plan.compressed_bytes), hint, guess),
        ("smaller", f"{about}{plan.original_bytes / plan.compressed_bytes:.2f}×", "strip.smaller_hint", guess),
        ("bits", f"{about}{plan.bits_per_weight:.3f}", "strip.bits_hint", guess),
        ("error", error, error_hint, error_class),
    ]
    return (
        '<dl class="strip" aria-live="polite">'
        + "".join(
            f'<div class="figure{kind}" title="{escape(text(why, language))}" data-figure="{name}">'
            f"<dt>{escape(text(f'strip.{name}', language))}</dt><dd>{escape(value)}</dd></div>"
            for name, value, why, kind in figures
        )
        + "</dl>"
    )


def is_as_nearest(session: Session, colour: Colour = "weight") -> bool:
    """Return whether the figures on show are those of rounding to nearest, while the plan's method is another.

    Weight errors are until it is compressed, what is found with a text always is.
    """
    if session.choice.method is Method.NEAREST or session.choice.mode.bits >= 8:
        return False
    return colour != "weight" or session.compressed is None or not session.is_current


def weight_errors(session: Session) -> Mapping[str, float] | None:
    """Return the weight error of each layer in the plan's scheme as far as it is known, None before a survey begins.

    From the compressed copy while it is that of the plan, from the survey otherwise: the same numbers where each weight
    is rounded to nearest.
    """
    if session.plan is None:
        return None
    if session.compressed is not None and session.is_current:
        return session.compressed.relative_error
    if not session.known.layers:
        return None
    return session.errors


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
    figures = session.output_errors if colour == "output" else session.damages
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
    whole = session.predicted_drift
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
    known = session.known.layers.get(first.name)
    outputs = session.output_errors.get(first.name, {})
    lines_of = [session.damages.get(a.layer.name, {}) for a in taken]
    damages = {name: sum(line[name] for line in lines_of) for name in lines_of[0] if all(name in x for x in lines_of)}
    sampled = session.sampled.get(first.name)
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


def scheme_choices(language: str) -> list[tuple[str, str]]:
    """Return the schemes a layer can be pinned to."""
    schemes = dict.fromkeys(str(Scheme.of(mode, size)) for mode in MODES for size in GROUP_SIZES)
    return [(text("map.kept", language), "none"), *((name, name) for name in schemes)]


def layer_choices(session: Session) -> list[str]:
    """Return patterns for every kind of projection, then every layer's own name (the first of very many)."""
    plan = session.plan
    if plan is None:
        return []
    weights = [a.layer for a in plan.assignments if a.layer.is_weight]
    kinds = dict.fromkeys(f"*.{layer.projection}" for layer in weights if layer.block is not None)
    return [*list(kinds)[:MAX_CHIPS], *(layer.name for layer in weights[:MAX_NAMES])]


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


def table(columns: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """Return an HTML table, every word of it escaped."""
    head = "".join(f'<th scope="col">{escape(column)}</th>' for column in columns)
    body = "".join("<tr>" + "".join(f"<td>{escape(cell)}</td>" for cell in row) + "</tr>" for row in rows)
    return f'<div class="table"><table><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table></div>'


def mode_choices(language: str) -> list[tuple[str, str]]:
    """Return the modes with what each is in a few words."""
    return [(text(f"plan.mode_{mode.value}", language), mode.value) for mode in MODES]


def group_choices(fitting: Sequence[int], language: str) -> list[tuple[str, int]]:
    """Return the group sizes that fit."""
    return [(text("plan.group_size_whole", language) if g == WHOLE_CHANNEL else str(g), g) for g in fitting]


def backup_choices(language: str, mode: Mode = Mode.INT4_ASYM) -> list[tuple[str, str]]:
    """Return the backup modes: the 8-bit integers, and the 8-bit float that belongs to a float mode."""
    modes = dict.fromkeys((mode.default_backup, Mode.INT8_ASYM, Mode.INT8_SYM))
    return [*((backup.value, backup.value) for backup in modes), (text("plan.backup_none", language), "none")]


def misfit_choices(language: str) -> list[tuple[str, str]]:
    """Return NNCF's three behaviours for a group that does not divide."""
    return [(text(f"plan.misfit_{misfit}", language), misfit) for misfit in MISFITS]


def sensitivity_choices(language: str) -> list[tuple[str, str]]:
    """Return what the ratio can go by."""
    return [(text(f"plan.sensitivity_{sensitivity}", language), sensitivity) for sensitivity in SENSITIVITIES]


def colour_choices(language: str) -> list[tuple[str, str]]:
    """Return what the map can be coloured by."""
    return [(text(f"map.colour_{colour}", language), colour) for colour in COLOURS]


def group_info(session: Session, fitting: Sequence[int], language: str) -> str:
    """Return the group size's explanation, with the sizes that do not fit this model and why."""
    if not session.choice.mode.is_grouped:
        size = session.choice.primary.group_size
        return text("plan.group_size_8bit" if size < 0 else "plan.group_size_fixed", language, size=size)
    words = text("plan.group_size_info", language)
    misfits = [str(size) for size in GROUP_SIZES if size not in fitting]
    if session.checkpoint is None or not misfits:
        return words
    widths = sorted({layer.matrix[1] for layer in ratio_defining(session.checkpoint.layers)})
    shown = ", ".join(str(width) for width in widths[:6])
    return f"{words} {text('plan.group_size_misfits', language, sizes=', '.join(misfits), widths=shown)}"


def export_summary(session: Session, language: str) -> str:
    """Return what would be downloaded, and the command that makes it again."""
    if session.compressed is None or session.folder is None or session.checkpoint is None:
        return f'<p class="hint">{escape(text("export.nothing", language))}</p>'
    plan = session.compressed.plan
    words = text("export.summary", language, name=session.folder.name, size=f"{plan.compressed_bytes:,} B")
    how = text("export.command", language)
    code = f"<pre><code>{escape(command(session))}</code></pre>"
    return f'<p class="facts">{escape(words)}</p><p class="hint">{escape(how)}</p>{code}'


def command(session: Session) -> str:
    """Return the terminal's words for the compressed copy."""
    assert session.checkpoint is not None
    assert session.compressed is not None
    choice = session.compressed.plan.choice
    options = ["--mode", choice.mode.value]
    if choice.mode.is_grouped:
        options += ["--group-size", str(choice.group_size)]
    if choice.mode.is_mixable:
        backup = "none" if choice.backup is None else choice.backup.value
        options += ["--ratio", f"{choice.ratio:g}", "--backup", backup]
    options += ["--misfit", choice.misfit] if choice.misfit != "error" else []
    options += ["--all-layers"] if choice.all_layers else []
    options += ["--sensitivity", choice.sensitivity] if choice.is_mixed else []
    options += ["--method", choice.method.value] if choice.method is not Method.NEAREST else []
    if choice.method.needs_inputs and session.calibrated_on is not None:
        options += ["--calibrate", session.calibrated_on.name]
    options += [word for pin in choice.pins for word in ("--pin", str(pin))]
    return shlex.join(["python", "-m", "studio", "compress", session.checkpoint.name, *options, "--out", "DIR"])
