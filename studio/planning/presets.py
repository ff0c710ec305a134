"""Choices that most people want, by name: what each is in words of a choice. Knows no models and no programs.

A program that loads files of its own layout names its own words for them (``export/target.py``).
"""

from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import replace
from typing import Any

from studio.base.errors import SchemeError
from studio.checkpoint.layers import Layer
from studio.planning.choice import Choice
from studio.planning.fitting import fitting
from studio.planning.plan import make_plan
from studio.quantization.methods import Method

Words = Mapping[str, Any]
"""Of a choice, by field."""
PRESETS = ("smallest", "balanced", "safest")
DEFAULT = "balanced"
CUSTOM = "custom"
"""No preset: whatever the visitor chooses."""
IN_GROUPS: Mapping[str, Words] = {
    "smallest": {"mode": "int4_asym", "group_size": 64, "method": "best"},
    "balanced": {"mode": "int4_asym", "group_size": 64, "ratio": 0.8, "sensitivity": "damage", "method": "best"},
    "safest": {"mode": "int8_asym"},
}
"""For programs that read weights in groups, as NNCF writes them: layers that rounding costs most keep 8 bits."""


def preset_choice(words: Words, layers: Sequence[Layer], can_chat: bool = True) -> Choice:
    """Return a preset's choice, as far as it can be carried out for the model of these layers.

    A model that writes no text has none to be calibrated by: it is rounded to nearest.
    """
    said = Choice.of(**words)
    choice = fitting(said, layers, can_chat)
    pinned = replace(choice, pins=said.pins)  # they are for whatever model it is, unlike a visitor's
    with suppress(SchemeError):  # a group of theirs that does not divide this model
        make_plan(layers, pinned)
        choice = pinned
    return choice if can_chat else replace(choice, method=Method.NEAREST)
