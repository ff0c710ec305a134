"""Session -> the words and pictures of the page, pure. Everything from outside is escaped here."""

from collections.abc import Mapping, Sequence
from html import escape

from studio.architecture import Kind, Layer, ratio_defining
from studio.chat import Reply
from studio.plan import Plan
from studio.scheme import GROUP_SIZES, WHOLE_CHANNEL, Mode
from studio.session import Event, Session
from studio.source import BUILTIN, BUILTIN_PACKAGE
from studio.text import text
from studio.ui.charts import SIZE_COLOURS, scheme_name, shape_name
from studio.units import format_bytes, format_count

MODES = (Mode.INT4_ASYM, Mode.INT4_SYM, Mode.NF4, Mode.INT8_ASYM, Mode.INT8_SYM)
"""In the order of the list: what most people want first."""
MAX_TABLE_ROWS = 2000


def notice(sentence: str, kind: str = "") -> str:
    """Return a sentence for the user; ``kind`` is ``"error"`` for what went wrong, announced at once."""
    role = "alert" if kind == "error" else "status"
    return f'<p class="notice {kind}" role="{role}">{escape(sentence)}</p>' if sentence else ""


def progress(event: Event, language: str) -> str:
    """Return a progress bar with the stage's name and what it works on."""
    label = text(f"stage.{event.stage}", language)
    known = event.fraction is not None
    percent = round(100 * (event.fraction or 0))
    value = f'aria-valuenow="{percent}"' if known else ""
    return (
        f'<div class="progress {"" if known else "unknown"}" role="progressbar" aria-valuemin="0" aria-valuemax="100" '
        f'{value} aria-label="{escape(label)}"><div style="width:{percent if known else 30}%"></div></div>'
        f'<p class="notice"><span>{escape(label)}{f" {percent} %" if known else ""}</span> '
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
    note = ""
    if checkpoint.name == BUILTIN:
        note = text("model.note_builtin", language, format=checkpoint.source_format, package=BUILTIN_PACKAGE)
    elif checkpoint.folder is None:
        note = text("model.note_headers", language)
    title = f"<b>{escape(checkpoint.title)}</b> · "
    return f'<p class="facts">{title}{facts}</p><p class="hint">{escape(note)}</p>'


def strip(session: Session, language: str) -> str:
    """Return the figures of the plan; an estimate is hollow and has a "~"."""
    plan = session.plan
    if plan is None:
        return '<dl class="strip"></dl>'
    about, guess = ("", "") if plan.is_exact else ("~\u2009", " estimate")
    hint = "strip.compressed_hint" if plan.is_exact else "strip.estimate_hint"
    error, error_class = text("strip.error_unknown", language), " pending"
    if session.compressed is not None and session.is_current:
        error, error_class = f"{session.compressed.mean_error:.2%}", ""
    figures = [
        ("original", format_bytes(plan.original_bytes), "strip.original_hint", ""),
        ("compressed", about + format_bytes(plan.compressed_bytes), hint, guess),
        ("smaller", f"{about}{plan.original_bytes / plan.compressed_bytes:.2f}×", "strip.smaller_hint", guess),
        ("bits", f"{about}{plan.bits_per_weight:.3f}", "strip.bits_hint", guess),
        ("error", error, "strip.error_hint", error_class),
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


def errors_on_show(session: Session) -> Mapping[str, float] | None:
    """Return the errors to colour the map with: those of the compressed copy while it is that of the plan."""
    return session.compressed.relative_error if session.compressed is not None and session.is_current else None


def map_legend(plan: Plan, errors: Mapping[str, float] | None, language: str) -> str:
    """Return which error the map shows, what the numbers mean, and the weights outside the blocks."""
    title = text("map.by_scheme" if errors is None else "map.by_error", language)
    schemes = sorted(
        {(a.scheme is None, scheme_name(a, language)) for a in plan.assignments if a.layer.kind is Kind.LINEAR}
    )
    legend = text("map.legend", language, schemes=" · ".join(name for _, name in schemes))
    outside = [a for a in plan.assignments if a.layer.kind in (Kind.EMBEDDING, Kind.HEAD) or _is_stray(a.layer)]
    chips = "".join(
        f"<li><b>{escape(a.layer.projection)}</b> {escape(scheme_name(a, language))}, {format_bytes(a.nbytes)}"
        f"{f', {errors[a.layer.name]:.2%}' if errors and a.layer.name in errors else ''}</li>"
        for a in outside
    )
    return (
        f'<p class="map-title">{escape(title)}</p><p class="hint">{escape(legend)}</p>'
        f'<p class="hint">{escape(text("map.outside", language))}</p><ul class="chips">{chips}</ul>'
    )


def _is_stray(layer: Layer) -> bool:
    return layer.kind is Kind.LINEAR and layer.block is None


def layer_table(plan: Plan, errors: Mapping[str, float] | None, language: str) -> str:
    """Return every weight as a row: the map for people who would rather read, or cannot see it."""
    rows = [
        (
            a.layer.name,
            shape_name(a.layer.shape),
            scheme_name(a, language),
            f"{a.nbytes:,}",
            f"{errors[a.layer.name]:.3%}" if errors and a.layer.name in errors else "–",
        )
        for a in plan.assignments
        if a.layer.kind is not Kind.OTHER
    ]
    columns = [text(f"map.column_{name}", language) for name in ("layer", "shape", "scheme", "bytes", "error")]
    note = f'<p class="hint">{escape(text("map.rest", language))}</p>'
    if len(rows) > MAX_TABLE_ROWS:
        cut = text("map.table_cut", language, shown=MAX_TABLE_ROWS, all=len(rows))
        note += f'<p class="hint">{escape(cut)}</p>'
    return note + table(columns, rows[:MAX_TABLE_ROWS])


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


def size_legend(plan: Plan, language: str) -> str:
    """Return what each colour of the size chart is, with its bytes before and after."""
    original, compressed = plan.original_breakdown(), plan.breakdown()
    items = "".join(
        f'<li><i style="background:{colour}"></i>{escape(text(f"size.{place}", language))} '
        f"<span>{format_bytes(original[place])} → {format_bytes(compressed[place])}</span></li>"
        for place, colour in SIZE_COLOURS.items()
        if original[place] or compressed[place]
    )
    return f'<ul class="swatches">{items}</ul>'


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


def backup_choices(language: str) -> list[tuple[str, str]]:
    """Return the backup modes."""
    return [("int8_asym", "int8_asym"), ("int8_sym", "int8_sym"), (text("plan.backup_none", language), "none")]


def group_info(session: Session, fitting: Sequence[int], language: str) -> str:
    """Return the group size's explanation, with the sizes that do not fit this model and why."""
    if not session.choice.mode.is_grouped:
        return text("plan.group_size_8bit", language)
    words = text("plan.group_size_info", language)
    misfits = [str(size) for size in GROUP_SIZES if size not in fitting]
    if session.checkpoint is None or not misfits:
        return words
    widths = sorted({layer.matrix[1] for layer in ratio_defining(session.checkpoint.layers)})
    shown = ", ".join(str(width) for width in widths[:6])
    return f"{words} {text('plan.group_size_misfits', language, sizes=', '.join(misfits), widths=shown)}"


def stats(reply: Reply, memory: int | None, slow: bool, language: str) -> str:
    """Return what an answer cost: tokens a second, time to the first one, memory of the weights."""
    held = "–" if memory is None else format_bytes(memory)
    if reply.error is not None:
        return notice(reply.error.sentence(language), "error")
    if not reply.tokens:
        return f'<p class="stats">{escape(text("chat.stats_waiting", language, memory=held))}</p>'
    speed = f"{reply.tokens_per_second:.1f}" if reply.tokens > 1 else "–"
    words = [
        text("chat.stats", language, speed=speed, first=f"{reply.first_token_seconds:.2f}", memory=held),
        text("chat.stats_tokens", language, tokens=reply.tokens),
    ]
    if reply.ended == "length":
        words.append(text("chat.ended_length", language))
    line = f'<p class="stats">{escape(" · ".join(words))}</p>'
    return line + (f'<p class="hint">{escape(text("chat.slow", language))}</p>' if slow else "")


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
    options = f"--mode {choice.mode.value}"
    if choice.mode.is_grouped:
        backup = "none" if choice.backup is None else choice.backup.value
        options += f" --group-size {choice.group_size} --ratio {choice.ratio:g} --backup {backup}"
    return f"python -m studio compress {session.checkpoint.name} {options} --out DIR"
