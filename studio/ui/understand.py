"""What 4 bits are, on the visitor's own model: three sentences, a picture of weights that snap to steps, sizes. Pure.

The picture's weights are a dozen made-up ones, rounded as every weight is.
"""

from html import escape

import torch

from studio.base.text import text
from studio.base.units import format_bytes, format_count
from studio.quantization.rounding import dequantize, round_to_nearest
from studio.quantization.scheme import Mode, Scheme
from studio.session.session import Session

EXAMPLE = (-0.91, -0.66, -0.5, -0.33, -0.21, -0.06, 0.04, 0.13, 0.29, 0.45, 0.58, 0.78)
"""Weights."""
STEPS = 16
WIDE, HIGH, SIDE = 340, 74, 14
TOP, BOTTOM = 16, 56


def int4(session: Session, language: str) -> str:
    """Return the explanation, closed until somebody asks; before it, what is odd about this model's presets."""
    said = "".join(f"<p>{escape(text(key, language))}</p>" for key in ("understand.int4", "understand.bytes"))
    asked = escape(text("understand.int4_ask", language))
    return (
        f'{_on_a_grid(session, language)}<details class="learn" data-keep="int4"><summary>{asked}</summary>'
        f"{said}{snapping(language)}{_sizes(session, language)}</details>"
    )


def _on_a_grid(session: Session, language: str) -> str:
    """Return why a larger preset loses more than a smaller one, which it does where weights are on a grid already."""
    if session.model.grid is None:
        return ""
    known = [(each.nbytes, each.loss.kld, each.preset) for each in session.decision.options() if each.loss is not None]
    for nbytes, kld, preset in sorted(known):
        worse = [other for size, loss, other in known if size > nbytes and loss > kld]
        if worse:
            names = {"better": text(f"preset.{preset}", language), "worse": text(f"preset.{worse[0]}", language)}
            return f'<p class="notice">{escape(text("preset.on_a_grid", language, **names))}</p>'
    return ""


def snapping(language: str) -> str:
    """Return the picture: each weight above, the step that it takes below, and a line between the two."""
    weights = torch.tensor([EXAMPLE], dtype=torch.float32)
    rounded = round_to_nearest(weights, Scheme(Mode.INT4_SYM))
    step = float(rounded.scale.abs()[0, 0])
    levels = [step * code for code in range(-STEPS // 2, STEPS // 2)]
    if float(rounded.scale[0, 0]) < 0:
        levels = [-level for level in levels]
    taken = [float(value) for value in dequantize(rounded, Mode.INT4_SYM)[0]]
    low, high = min(*levels, *EXAMPLE), max(*levels, *EXAMPLE)

    def x(value: float) -> str:
        return f"{SIDE + (value - low) / (high - low) * (WIDE - 2 * SIDE):.1f}"

    ticks = "".join(f'<line class="step" x1="{x(v)}" x2="{x(v)}" y1="{BOTTOM - 7}" y2="{BOTTOM + 7}"/>' for v in levels)
    moves = "".join(
        f'<line class="move" x1="{x(weight)}" y1="{TOP}" x2="{x(value)}" y2="{BOTTOM}"/>'
        f'<circle class="weight" cx="{x(weight)}" cy="{TOP}" r="3.5"/>'
        f'<circle class="taken" cx="{x(value)}" cy="{BOTTOM}" r="4"/>'
        for weight, value in zip(EXAMPLE, taken, strict=True)
    )
    words = escape(text("understand.picture", language, weights=len(EXAMPLE), steps=STEPS))
    return (
        f'<figure class="snapping"><svg viewBox="0 0 {WIDE} {HIGH}" role="img" aria-label="{words}">'
        f'{ticks}{moves}</svg><figcaption class="hint">{words}</figcaption></figure>'
    )


def _sizes(session: Session, language: str) -> str:
    """Return what the model on show takes at 32, 16, 8 and 4 bits a weight, its scales aside."""
    checkpoint = session.checkpoint
    if checkpoint is None:
        return ""
    sizes = {f"bits{bits}": format_bytes(checkpoint.weights * bits // 8) for bits in (32, 16, 8, 4)}
    words = text("understand.sizes", language, weights=format_count(checkpoint.weights), **sizes)
    return f'<p class="facts">{escape(words)}</p>'
