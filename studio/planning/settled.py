"""A choice that meets a model: what a machine's memory leaves for its weights. Knows no plans.

The same arithmetic says on the page whether a plan fits (``hosts.Fit``).
"""

from dataclasses import replace
from typing import TYPE_CHECKING

from studio.base.errors import SchemeError
from studio.checkpoint.checkpoint import Checkpoint
from studio.planning.choice import Choice
from studio.planning.fitting import fitting
from studio.planning.hosts import DEFAULT_CONTEXT, Fit, cache_per_token

if TYPE_CHECKING:
    from studio.chat.roofline import Figures


def settled(choice: Choice, checkpoint: Checkpoint) -> Choice:
    """Return the choice with the bytes that its budget leaves for this model's weights, where it names a machine.

    Raises SchemeError for a context longer than the model's, or one of which nobody can say what it takes.
    """
    room = None if choice.budget is None else choice.budget.room
    if choice.budget is None or room is None:
        return choice
    longest = longest_context(checkpoint)
    if room.tokens is not None and longest is not None and room.tokens > longest:
        raise SchemeError("budget_context", budget=str(choice.budget), tokens=f"{room.tokens:,}", most=f"{longest:,}")
    tokens = min(DEFAULT_CONTEXT if room.tokens is None else room.tokens, longest or 10**9)
    cache = cache_bytes(checkpoint, tokens, room.kv_bits)
    if cache is None:
        raise SchemeError("budget_unknown_context", budget=str(choice.budget), model=checkpoint.title)
    left = Fit(room.host, weights=0, cache=cache, read=0).largest
    return replace(choice, budget=replace(choice.budget, left=left))


def as_far_as_possible(choice: Choice, checkpoint: Checkpoint) -> Choice:
    """Return as much of a choice that was another model's as this one can have."""
    try:
        known = settled(choice, checkpoint)
    except SchemeError:
        known = replace(choice, budget=None)
    return fitting(known, checkpoint.layers, checkpoint.can_chat)


def longest_context(checkpoint: Checkpoint) -> int | None:
    """Return the tokens that a model takes at most, None where its config is not here."""
    known = _figures(checkpoint)
    return None if known is None else known.context


def cache_bytes(checkpoint: Checkpoint, tokens: int, bits: int = 16) -> int | None:
    """Return what keys and values of so many tokens take, at 16, 8 or 4 bits; None where nothing tells.

    Without the model's config they are read off its layers: fewer bits have a grid of two fp16 for every 32 numbers,
    one bit each.
    """
    known = _figures(checkpoint)
    if known is not None and known.cache is not None:
        return known.cache.nbytes(tokens, bits)
    each = cache_per_token(checkpoint.layers)
    return None if each is None else -(-tokens * each * (bits + (bits < 16)) // 16)


def _figures(checkpoint: Checkpoint) -> "Figures | None":
    from studio.chat.roofline import figures_of  # brings torch, which headers do not need

    return figures_of(checkpoint)
