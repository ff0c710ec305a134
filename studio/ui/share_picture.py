"""The picture that people share, 1200 × 675, as SVG: the map before and after, the sizes, both answers. Pure.

The browser makes a PNG of it, with its own fonts for every language, in the theme and under the address of the page.
"""

from dataclasses import replace
from html import escape

from studio.base.text import text
from studio.base.units import format_bytes
from studio.chat.conversation import Turn
from studio.planning import predicted_damage
from studio.planning.layer_figure import Known
from studio.planning.plan import Plan
from studio.quantization.methods import Method
from studio.session.session import Session
from studio.ui.heatmap import cells
from studio.ui.palette import BITS_COLOURS, ramp_of, shade, share_of
from studio.ui.svg_text import Line, plain, wrapped
from studio.ui.verdict import figure, how_often

WIDE, HIGH, EDGE = 1200, 675, 40
LINK = "{{link}}"
"""Where the browser writes the page's address."""
STYLE = (
    "text{font-family:system-ui,-apple-system,'Segoe UI',Roboto,'Noto Sans','Noto Sans CJK SC','PingFang SC',"
    "'Microsoft YaHei',sans-serif}"
    ".light .paper{fill:#fff}.light .ink{fill:#1a2433}.light .faint{fill:#55606f}.light .track{fill:#e6eaf0}"
    ".dark .paper{fill:#161d2a}.dark .ink{fill:#eef2f8}.dark .faint{fill:#a4aebd}.dark .track{fill:#333d4d}"
    ".light .accent{fill:#1f5fbf}.dark .accent{fill:#8ab8ff}.mark{fill:#ffd75e}.marked{fill:#14202e}"
)


def share_picture(session: Session, language: str) -> str:
    """Return the picture of the plan on show; an empty string before there is one."""
    plan, checkpoint = session.plan, session.checkpoint
    if plan is None or checkpoint is None:
        return ""
    parts = [
        f'<rect class="paper" width="{WIDE}" height="{HIGH}"/>',
        _words(EDGE, 64, plain(checkpoint.title)[:48], 34, "ink", bold=True),
        _words(EDGE, 98, _headline(session, plan, language), 21, "accent"),
        _maps(session, plan, language),
        _sizes(plan, language),
        _words(EDGE, 612, _source(session, language), 16, "faint"),
        _answers(session, language),
        _words(EDGE, HIGH - 22, LINK, 15, "faint"),
    ]
    label = escape(text("share.label", language))
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" class="light" width="{WIDE}" height="{HIGH}" '
        f'viewBox="0 0 {WIDE} {HIGH}" role="img" aria-label="{label}"><style>{STYLE}</style>{"".join(parts)}</svg>'
    )


def _words(x: float, y: float, words: str, size: int, kind: str, bold: bool = False, end: bool = False) -> str:
    weight, anchor = ' font-weight="700"' if bold else "", ' text-anchor="end"' if end else ""
    return f'<text class="{kind}" x="{x}" y="{y}" font-size="{size}"{weight}{anchor}>{escape(words)}</text>'


def _headline(session: Session, plan: Plan, language: str) -> str:
    """Return how much smaller it is, and what is lost, in words."""
    smaller = text("share.smaller", language, times=f"{plan.original_bytes / max(1, plan.compressed_bytes):.1f}")
    loss = session.decision.loss()
    if loss is None:
        return smaller
    return f"{smaller} · {text('verdict.lose', language, often=how_often(loss.differs, language))}"


def _source(session: Session, language: str) -> str:
    """Return the loss as a figure, with where it is known from; nothing while it is not known."""
    loss = session.decision.loss()
    return "" if loss is None else figure(loss, language)


def _maps(session: Session, plan: Plan, language: str) -> str:
    """Return the damage of every layer alike above that of the plan, on the one scale of damage; bits before."""
    alike = session.model.plan(
        replace(session.choice, ratio=1.0, budget=None, mix="none", pins=(), method=Method.NEAREST)
    )
    before = text("share.before", language, scheme=str(alike.choice.label))
    after = text("share.after", language, scheme=str(plan.choice.label))
    return _map(session, alike, before, 132, language) + _map(session, plan, after, 318, language)


def _map(session: Session, plan: Plan, title: str, top: int, language: str) -> str:
    rows, columns, places = cells(plan)
    damage = predicted_damage.FIGURE
    model = session.model
    known = damage.on_map(Known(plan, model.known, model.sampled, model.figures))
    total = None if known is None else damage.total(Known(plan, model.known, model.sampled, model.figures))
    said = title if total is None else f"{title}: {text('share.nats', language, nats=f'{total:.2g}')}"
    parts = [_words(EDGE, top + 14, said, 15, "ink")]
    wide, high = 560 / max(1, len(columns)), 140 / max(1, len(rows))
    for (row, block), cell in places.items():
        number = None if known is None else cell.error(known, damage.adds_up)
        if known is None:
            colour = BITS_COLOURS[cell.bits]
        elif number is None or number != number:
            colour = "#8a8f98"
        else:
            colour = shade(ramp_of(damage.name), share_of(number, 1.0, damage.bounds))[0]
        x, y = EDGE + wide * columns.index(block), top + 24 + high * rows.index(row)
        size = f'width="{max(0.5, wide - 1):.2f}" height="{max(0.5, high - 1):.2f}"'
        parts.append(f'<rect x="{x:.2f}" y="{y:.2f}" {size} rx="1.5" fill="{colour}"/>')
    return "".join(parts)


def _sizes(plan: Plan, language: str) -> str:
    """Return a bar for the original above one for the plan."""
    parts, longest = [], max(plan.original_bytes, 1)
    about = "" if plan.is_exact else "~"
    for index, (name, nbytes) in enumerate((("original", plan.original_bytes), ("compressed", plan.compressed_bytes))):
        y = 506 + 44 * index
        wide = 560 * nbytes / longest
        mark = about if name == "compressed" else ""
        parts += [
            _words(EDGE, y, text(f"size.{name}", language), 15, "faint"),
            _words(600, y, f"{mark}{format_bytes(nbytes)}", 16, "ink", bold=True, end=True),
            f'<rect class="track" x="{EDGE}" y="{y + 7}" width="560" height="16" rx="4"/>',
            f'<rect class="accent" x="{EDGE}" y="{y + 7}" width="{wide:.1f}" height="16" rx="4"/>',
        ]
    return "".join(parts)


def _answers(session: Session, language: str) -> str:
    """Return both answers to the first question whose answers part, the first token that differs marked."""
    turns = [turn for turn in session.samples.turns or session.conversation.turns if len(turn.answers.replies) == 2]
    turn = next((turn for turn in turns if turn.answers.divergence is not None), turns[0] if turns else None)
    if turn is None:
        return _block(640, 146, [Line(text("share.no_answers", language), 0)], None, 18)
    parts = [_block(640, 146, wrapped(plain(turn.prompt), 27.0, 2), None, 20, bold=True)]
    for column, top in ((0, 226), (1, 426)):
        name = text(("chat.original", "chat.compressed")[column], language)
        parts += [_words(640, top, name, 15, "faint"), _answer(turn, column, top + 28)]
    return "".join(parts)


def _answer(turn: Turn, column: int, top: int) -> str:
    divergence = turn.answers.divergence
    place = None if divergence is None else divergence.places[column]
    return _block(640, top, wrapped(plain(turn.answers.replies[column].text), 29.0, 6), place, 18)


def _block(x: int, y: int, lines: list[Line], mark: tuple[int, int] | None, size: int, bold: bool = False) -> str:
    """Return lines of text, of which the characters from ``mark[0]`` to ``mark[1]`` stand on a mark."""
    weight = ' font-weight="700"' if bold else ""
    parts = []
    for index, line in enumerate(lines):
        pieces = line.cut(mark)
        spans = "".join(
            f'<tspan class="accent" font-weight="700" text-decoration="underline">{escape(piece)}</tspan>'
            if is_marked
            else escape(piece)
            for piece, is_marked in pieces
        )
        at = f'x="{x}" y="{y + round(1.5 * size) * index}"'
        parts.append(f'<text class="ink" xml:space="preserve" {at} font-size="{size}"{weight}>{spans}</text>')
    return "".join(parts)
