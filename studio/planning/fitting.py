"""A choice made for one model, adapted to another. Knows nothing of sessions."""

from collections.abc import Sequence
from dataclasses import replace

from studio.base.errors import SchemeError
from studio.checkpoint.layers import Layer
from studio.planning.choice import Choice
from studio.planning.plan import group_sizes, make_plan


def fitting(choice: Choice, layers: Sequence[Layer], can_chat: bool = True) -> Choice:
    """Return ``choice`` as far as it can be carried out for the model of these layers.

    Without its pins, which were for layers of the one before; with a group size that fits (64 if it can be, else the
    largest up to 128), or else in the default mode; without a budget that this model cannot have.
    """
    sizes = group_sizes(layers)
    size = choice.group_size
    if size not in sizes and choice.group_size_fallback == "error":
        size = 64 if 64 in sizes else max((s for s in sizes if s <= 128), default=-1)
    found = replace(choice, pins=(), group_size=size)
    if not can_chat:  # damage cannot be predicted
        found = replace(found, budget=None, sensitivity="nncf")
    if found.budget is not None:
        try:
            make_plan(layers, found)
        except SchemeError:
            found = replace(found, budget=None)
    try:
        make_plan(layers, found)
    except SchemeError:  # a mode whose only group does not divide this model
        return Choice(group_size=-1)
    return found
