"""The decision: where it runs, the verdict, the presets, the one button. Components alone; wires no events."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import gradio as gr

from studio.base.text import text
from studio.export import runners
from studio.planning import hosts, presets
from studio.ui.localized import Wording, Words, explained
from studio.ui.scripts import NEWEST, OPENED


@dataclass(frozen=True)
class DecisionPanel:
    host: gr.Dropdown
    own: gr.Row
    """The figures of a machine that is not in the menu."""
    memory: gr.Number
    bandwidth: gr.Number
    context: gr.Dropdown
    program: gr.Dropdown
    verdict: gr.HTML


@dataclass(frozen=True)
class PresetPanel:
    preset: gr.Radio
    make: gr.Button
    stop: gr.Button
    progress: gr.HTML
    int4: gr.HTML
    """What 4 bits are, for whoever asks."""


def where_panel(words: Words, model_box: Callable[[], gr.Dropdown]) -> tuple[gr.Dropdown, DecisionPanel]:
    """The model, whose box stands first in the row, where it is to run and in what; and the verdict."""
    with gr.Row(elem_classes="tight", elem_id="asked"):
        model = model_box()
        host = _menu(words, "host", named("host", (*hosts.HOSTS, hosts.THIS, hosts.OWN)), hosts.DEFAULT, 140)
        program = _menu(words, "program", program_choices, runners.DEFAULT, 120)
        context = _menu(words, "context", context_choices, hosts.DEFAULT_CONTEXT, 120)
    with gr.Row(elem_classes="tight", visible=False, elem_id="own-host") as own:
        memory = _figure(words, "memory", 16, 4096)
        bandwidth = _figure(words, "bandwidth", 50, 20000)
    verdict = gr.HTML(elem_id="verdict", js_on_load=NEWEST + OPENED)
    return model, DecisionPanel(host, own, memory, bandwidth, context, program, verdict)


def _menu(words: Words, name: str, choices: Callable[[str], Any], usual: str | int, width: int) -> gr.Dropdown:
    """Return a menu of what the model is to run on, in or with."""
    shown: dict[str, Wording] = {"label": f"decision.{name}", "choices": choices}
    return words.on(gr.Dropdown, shown, value=usual, filterable=False, elem_id=name, min_width=width)


def _figure(words: Words, name: str, usual: float, most: float) -> gr.Number:
    """Return a box for a figure of the visitor's own machine."""
    label = {"label": f"decision.{name}"}
    return words.on(gr.Number, dict(label), value=usual, minimum=1, maximum=most, elem_id=f"own-{name}", min_width=120)


def preset_panel(words: Words) -> PresetPanel:
    """The presets, and the one button."""
    with gr.Column(elem_id="presets"):
        words.on(gr.HTML, {"value": explained("preset.heading")})
        preset = words.on(
            gr.Radio,
            {"label": "preset.label", "choices": named("preset", (*presets.PRESETS, presets.CUSTOM))},
            value=presets.DEFAULT,
            elem_id="preset",
            container=False,
        )
        with gr.Row(elem_classes="tight"):
            make = words.on(gr.Button, {"value": "make.button"}, variant="primary", elem_id="make", scale=3)
            stop = words.on(gr.Button, {"value": "make.cancel"}, interactive=False, elem_id="stop-make", scale=1)
        progress = gr.HTML(elem_id="make-progress")
        int4 = gr.HTML(elem_id="int4", js_on_load=OPENED)
    return PresetPanel(preset, make, stop, progress, int4)


def named(table: str, names: tuple[str, ...]) -> Callable[[str], list[tuple[str, str]]]:
    """Return names with what they are called, as a function of the language."""
    return lambda language: [(text(f"{table}.{name}", language), name) for name in names]


def program_choices(language: str) -> list[tuple[str, str]]:
    """Return the programs that run models."""
    return [(text(program.title_key, language), name) for name, program in runners.known().items()]


def context_choices(language: str) -> list[tuple[str, int]]:
    """Return the contexts that can be asked for."""
    return [(text("decision.tokens", language, tokens=f"{count:,}"), count) for count in hosts.CONTEXTS]
