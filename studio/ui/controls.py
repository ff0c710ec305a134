"""The control of each option of a choice: of what kind it is, and what its value says. Wires no events."""

from collections.abc import Callable, Mapping
from functools import partial
from typing import Any

import gradio as gr

from studio.base.text import DEFAULT
from studio.planning.choice import MIN_RATIO, OPTIONS
from studio.quantization.scheme import GROUP_SIZES
from studio.ui.choices import backup_choices, group_choices, mode_choices, word_choices
from studio.ui.localized import Wording, Words
from studio.ui.method_choices import method_choices

Controls = dict[str, Any]
"""Components by the name of the field that each sets."""
CONTROLLED = tuple(name for name, option in OPTIONS.items() if not option.is_repeated)
"""The fields that have a control; what is a list is made on the map."""
TYPED = ("mode", "budget")
"""The fields whose control is read when it is left, not at every key."""
MAX_BUDGET = 40
"""Characters."""
_Make = Callable[[Words, dict[str, Wording], dict[str, Any]], Any]


def control(words: Words, name: str) -> Any:
    """Return a new control for the field ``name``: a box to tick, the words there are, or what it has of its own."""
    option = OPTIONS[name]
    keys: dict[str, Wording] = {"label": f"plan.{option.key}", "info": f"plan.{option.key}_info"}
    settings = {"value": option.default_word, "elem_id": option.slug, "min_width": 240}
    if name in _OWN:
        return _OWN[name](words, keys, settings)
    if isinstance(option.default_word, bool):
        return words.on(gr.Checkbox, keys, **settings)
    return words.on(gr.Radio, keys | {"choices": partial(word_choices, option)}, **settings)


def picked(values: Mapping[str, Any]) -> dict[str, Any]:
    """Return what the controls say, by the names of their fields; where nothing is picked, nothing is said."""
    words = {name: value for name, value in values.items() if value is not None}
    return {name: round(word, 4) if isinstance(word, float) else word for name, word in words.items()}  # 0.1 + 0.2


def _mode(words: Words, keys: dict[str, Wording], settings: dict[str, Any]) -> Any:
    return words.on(gr.Dropdown, keys | {"choices": mode_choices}, filterable=False, **settings)


def _group_size(words: Words, keys: dict[str, Wording], settings: dict[str, Any]) -> Any:
    return words.on(gr.Radio, keys, choices=group_choices(GROUP_SIZES, DEFAULT), **settings)


def _ratio(words: Words, keys: dict[str, Wording], settings: dict[str, Any]) -> Any:
    return words.on(gr.Slider, keys, minimum=MIN_RATIO, maximum=1, step=0.05, **settings)


def _backup(words: Words, keys: dict[str, Wording], settings: dict[str, Any]) -> Any:
    return words.on(gr.Radio, keys | {"choices": backup_choices}, **settings)


def _budget(words: Words, keys: dict[str, Wording], settings: dict[str, Any]) -> Any:
    return words.on(gr.Textbox, keys, **settings, max_length=MAX_BUDGET)


def _method(words: Words, _: dict[str, Wording], settings: dict[str, Any]) -> Any:
    keys: dict[str, Wording] = {"label": "method.label", "choices": method_choices}  # what it does is said of the model
    return words.on(gr.Dropdown, keys, filterable=False, **settings)


_OWN: dict[str, _Make] = {
    "mode": _mode,
    "group_size": _group_size,
    "ratio": _ratio,
    "backup": _backup,
    "budget": _budget,
    "method": _method,
}
"""Controls that offer something else than their option's words."""
