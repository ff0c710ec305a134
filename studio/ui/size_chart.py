"""Plan -> the chart of sizes as HTML, pure. Knows nothing of sessions or gradio."""

from collections.abc import Sequence
from html import escape
from itertools import chain, repeat

from studio.base.text import text
from studio.base.units import format_bytes
from studio.checkpoint.stored_as import OfType
from studio.planning.plan import Plan

SIZE_COLOURS = {
    "blocks": "#0072b2",
    "embeddings": "#56b4e9",
    "head": "#009e73",
    "scales": "#e69f00",
    "zero_points": "#d55e00",
    "other": "#8a8f98",
}
"""Okabe and Ito's colours, told apart by everyone."""
CAME_COLOURS = ("#cc79a7", "#f0e442", "#56b4e9", "#009e73", "#8a8f98")
"""Of the types that a source's tensors have, in the order of their bytes."""


def size_chart(plan: Plan, language: str, came: Sequence[OfType] = ()) -> str:
    """Return original above compressed, two bars of one scale, each split into what its bytes hold, and the legend.

    ``came``: the types that the source's tensors have, of one that came quantized: a bar of its own, between the two.
    """
    original, compressed = plan.original_breakdown, plan.breakdown
    longest = max(plan.original_bytes, plan.compressed_bytes, sum(each.nbytes for each in came), 1)
    about = "" if plan.is_exact else "~\u2009"
    bars = _bar("original", original, longest, "", language)
    bars += _came(came, longest, language) if came else ""
    bars += _bar("compressed", compressed, longest, about, language)
    items = "".join(
        f'<li><i style="background:{colour}"></i>{escape(_name(place, language))} '
        f"<span>{format_bytes(original[place])} → {about}{format_bytes(compressed[place])}</span></li>"
        for place, colour in SIZE_COLOURS.items()
        if original[place] or compressed[place]
    )
    label = escape(text("size.label", language))
    return f'<div class="bars" role="group" aria-label="{label}">{bars}</div><ul class="swatches">{items}</ul>'


def _bar(model: str, sizes: dict[str, int], longest: int, about: str, language: str) -> str:
    """Return one model's bar, ``longest`` bytes being the whole width; ``about`` marks an estimate."""
    total = sum(sizes.values())
    name, size = text(f"size.{model}", language), about + format_bytes(total)
    held = {place: f"{_name(place, language)}: {about}{nbytes:,} B" for place, nbytes in sizes.items() if nbytes}
    parts = "".join(
        f'<i data-part="{place}" style="width:{100 * sizes[place] / longest:.3f}%;background:{SIZE_COLOURS[place]}" '
        f'title="{escape(words)}"></i>'
        for place, words in held.items()
    )
    words = escape(f"{name}, {size}. {'; '.join(held.values())}")
    return (
        f'<div class="bar{" estimate" if about else ""}" data-model="{model}" role="img" aria-label="{words}">'
        f"<span>{escape(name)}</span><div>{parts}</div><b>{escape(size)}</b></div>"
    )


def _came(types: Sequence[OfType], longest: int, language: str) -> str:
    """Return the bar of the file as it came, split by its types."""
    name, size = text("size.came", language), format_bytes(sum(each.nbytes for each in types))
    colours = chain(CAME_COLOURS, repeat(CAME_COLOURS[-1]))
    held = [f"{each.type}: {each.nbytes:,} B, {each.bits:.2f}" for each in types]
    parts = "".join(
        f'<i data-part="{escape(each.type)}" title="{escape(words)}" '
        f'style="width:{100 * each.nbytes / longest:.3f}%;background:{colour}"></i>'
        for each, words, colour in zip(types, held, colours, strict=False)
    )
    words = escape(f"{name}, {size}. {'; '.join(held)}")
    return (
        f'<div class="bar" data-model="came" role="img" aria-label="{words}">'
        f"<span>{escape(name)}</span><div>{parts}</div><b>{escape(size)}</b></div>"
    )


def _name(place: str, language: str) -> str:
    return text(f"size.{place}", language)
