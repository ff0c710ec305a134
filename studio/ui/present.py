"""Session -> the words and pictures of the page, pure. Everything from outside is escaped here."""

import shlex
from html import escape

from studio.base.text import text
from studio.base.units import format_bytes, format_count
from studio.checkpoint import hub
from studio.checkpoint.checkpoint import Checkpoint
from studio.checkpoint.open_model import BUILTIN, BUILTIN_PACKAGE
from studio.session.session import Session
from studio.ui.heatmap import Errors, mean
from studio.ui.map_text import is_as_nearest
from studio.ui.sampled_map import estimates

MAX_TYPES = 5
"""Of a source's types that are told; the rest have next to no bytes."""


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
    if checkpoint.came_quantized:
        types = checkpoint.came_as[:MAX_TYPES]
        shown = ", ".join(text("model.came_type", language, type=escape(t.type), bits=f"{t.bits:.2f}") for t in types)
        facts += " · " + text("model.facts_came", language, types=shown)
    notes = []
    if checkpoint.name == BUILTIN:
        notes.append(text("model.note_builtin", language, format=checkpoint.source_format, package=BUILTIN_PACKAGE))
    elif checkpoint.folder is None:
        notes.append(text("model.note_headers", language))
        here = hub.fetched_bytes(checkpoint.name, checkpoint.large_files)
        if here:
            total = format_bytes(sum(checkpoint.large_files.values()))
            notes.append(text("model.note_partly", language, here=format_bytes(here), total=total))
    if checkpoint.name == BUILTIN and hub.seems_silent():
        notes.insert(0, text("model.info_offline", language))
    if session.model.grid is not None:
        notes.append(text("model.note_grid", language, scheme=session.model.grid))
    if checkpoint.part:
        notes.append(text(f"model.note_part_{checkpoint.part}", language))
    if checkpoint.left_out is not None:
        notes.append(checkpoint.left_out.sentence(language))
    if not checkpoint.can_chat:
        notes.append(text("model.note_cannot_chat", language))
    notes += _license_note(checkpoint, language)
    title = f"<b>{escape(checkpoint.title)}</b> · "
    return f'<p class="facts">{title}{facts}</p> <p class="hint">{escape(" ".join(notes))}</p>'


def _license_note(checkpoint: Checkpoint, language: str) -> list[str]:
    """Return what is said of a license that forbids to share what is made of the model."""
    found = checkpoint.license
    if not found.forbids_derivatives:
        return []
    return [text("model.note_no_derivatives", language, license=found.name or found.id)]


def prompt_info(session: Session, language: str) -> str:
    """Return what stands beside the box of a message; of the built-in model also which language it knows."""
    said = text("chat.prompt_info", language)
    is_builtin = session.checkpoint is not None and session.checkpoint.name == BUILTIN
    return f"{said} {text('chat.builtin', language)}" if is_builtin else said


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


def export_summary(session: Session, language: str) -> str:
    """Return what would be downloaded, and the command that makes it again."""
    if session.copy.compressed is None or session.copy.folder is None or session.checkpoint is None:
        return f'<p class="hint">{escape(text("export.nothing", language))}</p>'
    plan = session.copy.compressed.plan
    words = text("export.summary", language, name=session.copy.folder.name, size=f"{plan.compressed_bytes:,} B")
    how = text("export.command", language)
    code = f"<pre><code>{escape(command(session))}</code></pre>"
    notes = "".join(f'<p class="hint">{escape(note)}</p>' for note in _license_note(session.checkpoint, language))
    return f'<p class="facts">{escape(words)}</p>{notes}<p class="hint">{escape(how)}</p>{code}'


def command(session: Session) -> str:
    """Return the terminal's words for the compressed copy."""
    assert session.checkpoint is not None
    assert session.copy.compressed is not None
    choice = session.copy.compressed.plan.choice
    options = choice.arguments(repeated=False)
    if choice.method.needs_inputs and session.copy.calibrated_on is not None:
        options += ["--calibrate", session.copy.calibrated_on.name]
    options += choice.arguments(repeated=True)
    return shlex.join(["python", "-m", "studio", "compress", session.checkpoint.name, *options, "--out", "DIR"])
