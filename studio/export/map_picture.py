"""The map as a picture for a card: what each weight of each block became, by its bits.

Knows no errors: a card shows what is exact, and a weight's error is not what it costs.
"""

from collections.abc import Sequence
from io import BytesIO

from PIL import Image, ImageDraw, ImageFont

from studio.checkpoint.layers import Kind
from studio.planning.plan import Assignment, Plan

CELL, HIGH, LEFT, TOP, LEGEND = 18, 22, 170, 40, 46
"""Pixels at single size."""
MAX_BLOCKS = 256
"""Columns; a deeper model shows its first ones, and says so."""
MAX_ROWS = 40
SCALE = 2
"""Pixels of the picture for one here: screens are fine."""
PAPER, INK, FAINT = "#ffffff", "#1f2937", "#e5e7eb"
KEPT = "#1e3a8a"
SHADES = ("#fef3c7", "#fde68a", "#fcd34d", "#a7f3d0", "#6ee7b7", "#34d399", "#93c5fd", "#60a5fa", "#3b82f6")
"""Of few bits to many, told apart in grey, too."""


def bits_of(a: Assignment) -> float:
    """Return the bits of a weight's every number, scales and all; 16 of one that is kept."""
    return 8 * a.nbytes / a.layer.numel


def map_picture(plan: Plan, title: str) -> bytes:
    """Return a PNG of ``plan``: a column for each block, a row for each projection, the rest below."""
    inner = [a for a in plan.assignments if a.layer.block is not None and a.layer.kind is not Kind.OTHER]
    outer = [a for a in plan.assignments if a.layer.block is None and a.layer.kind is not Kind.OTHER]
    rows = list(dict.fromkeys(_part(a) for a in inner))[:MAX_ROWS]
    blocks = min(MAX_BLOCKS, 1 + max((a.layer.block or 0 for a in inner), default=0))
    kinds = sorted({_kind(a) for a in (*inner, *outer)}, key=lambda kind: kind[1])
    colours = dict(zip(kinds, _colours(len(kinds), bool(kinds) and kinds[-1][0] == KEPT_NAME), strict=True))
    wide = max(LEFT + CELL * blocks + 20, 640)
    high = TOP + HIGH * (len(rows) + len(outer[:MAX_ROWS])) + 2 * LEGEND + 20 * (len(kinds) // 4)
    picture = Image.new("RGB", (wide * SCALE, high * SCALE), PAPER)
    draw = ImageDraw.Draw(picture)

    def text(x: int, y: int, words: str, size: int = 13) -> None:
        draw.text((x * SCALE, y * SCALE), _plain(words), fill=INK, font=ImageFont.load_default(size * SCALE))

    def cell(x: int, y: int, width: int, colour: str) -> None:
        box = (x * SCALE, y * SCALE, (x + width) * SCALE - SCALE, (y + HIGH) * SCALE - SCALE)
        draw.rectangle(box, fill=colour, outline=FAINT)

    text(12, 10, title, 15)
    for index, row in enumerate(rows):
        text(12, TOP + HIGH * index + 3, row[:24])
    for a in inner:
        if a.layer.block is not None and a.layer.block < blocks and _part(a) in rows:
            cell(LEFT + CELL * a.layer.block, TOP + HIGH * rows.index(_part(a)), CELL, colours[_kind(a)])
    below = TOP + HIGH * len(rows)
    for index, a in enumerate(outer[:MAX_ROWS]):
        text(12, below + HIGH * index + 3, _short(a.layer.name)[:24])
        cell(LEFT, below + HIGH * index, 4 * CELL, colours[_kind(a)])
    below += HIGH * len(outer[:MAX_ROWS]) + 8
    text(LEFT, below, f"blocks 0 to {blocks - 1}, left to right; bits a weight, scales included:")
    for index, kind in enumerate(kinds):
        x, y = LEFT + 150 * (index % 4) - LEFT + 12, below + 22 + 24 * (index // 4)
        cell(x, y, CELL, colours[kind])
        text(x + CELL + 6, y + 3, f"{kind[0]} {kind[1]:.4g}")
    written = BytesIO()
    picture.save(written, "PNG", optimize=True)
    return written.getvalue()


KEPT_NAME = "16 bits"


def _kind(a: Assignment) -> tuple[str, float]:
    """Return what a weight is coloured by: its scheme's name, and its bits to four figures."""
    return (KEPT_NAME if a.scheme is None else str(a.scheme), float(f"{bits_of(a):.4g}"))


def _colours(count: int, has_kept: bool) -> Sequence[str]:
    """Return a colour for each of so many kinds, of rising bits; the last is that of kept weights, if there are any."""
    last = [KEPT] if has_kept else []
    shaded = count - len(last)
    places = [round(i * (len(SHADES) - 1) / max(shaded - 1, 1)) for i in range(shaded)]
    return [*(SHADES[place] for place in places), *last]


def _part(a: Assignment) -> str:
    """``model.layers.3.mlp.up_proj.weight`` -> ``up_proj``."""
    return _short(a.layer.name)


def _short(name: str) -> str:
    return name.removesuffix(".weight").rpartition(".")[2] or name


def _plain(words: str) -> str:
    """Return words as the built-in font has letters for."""
    return "".join(c if c.isascii() and c.isprintable() else "?" for c in words)[:120]
