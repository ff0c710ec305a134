"""Which text a model reads: built in, its own words, a file, a data set of the Hub. The components; wires no events."""

from collections.abc import Callable, Sequence

import gradio as gr

from studio.base.text import text
from studio.ui.localized import Words

CALIBRATION = ("builtin", "generated", "file", "dataset")
EVALUATION = ("builtin", "file", "dataset")
"""The kinds of text that there are for each."""


def text_choice(words: Words, kinds: Sequence[str], name: str) -> tuple[gr.Radio, gr.File, gr.Textbox]:
    """Return the choice of a kind, and the boxes for a file and for a data set's name, which show with their kind."""
    kind = words.on(
        gr.Radio,
        {"label": f"reads.{name}", "choices": kind_choices(kinds)},
        value=kinds[0],
        elem_id=f"{name}-kind",
    )
    file = words.on(gr.File, {"label": "reads.own_file"}, height=90, visible=False, elem_id=name)
    dataset = words.on(
        gr.Textbox,
        {"label": "reads.dataset_label", "info": "reads.dataset_info"},
        placeholder="owner/name/file.jsonl",
        max_lines=1,
        max_length=300,
        submit_btn=True,
        visible=False,
        elem_id=f"{name}-dataset",
    )
    return kind, file, dataset


def kind_choices(kinds: Sequence[str]) -> Callable[[str], list[tuple[str, str]]]:
    """Return the kinds with their names, as a function of the language."""
    return lambda language: [(text(f"reads.{kind}", language), kind) for kind in kinds]
