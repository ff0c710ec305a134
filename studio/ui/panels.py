"""The panels of the page: each builds its components and returns them as a frozen dataclass. Wires no events."""

from dataclasses import dataclass

import gradio as gr

from studio.base.text import DEFAULT, LANGUAGES, text
from studio.ui.choices import colour_choices, scheme_choices
from studio.ui.decision_panel import DecisionPanel, where_panel
from studio.ui.localized import Words, explained
from studio.ui.scripts import NEWEST, PICK


@dataclass(frozen=True)
class Header:
    """Components above all panels."""

    language: gr.Radio
    theme: gr.Button
    projector: gr.Button


def header(words: Words) -> Header:
    """Title, language and theme."""
    with gr.Row(elem_id="header"):
        words.on(
            gr.HTML,
            {"value": lambda lang: f"<h1>{text('page.title', lang)}</h1><p>{text('page.tagline', lang)}</p>"},
            elem_id="title",
        )
        language = words.on(
            gr.Radio,
            {"label": "page.language"},
            choices=[(name, tag) for tag, name in LANGUAGES.items()],
            value=DEFAULT,
            elem_id="language",
            container=False,
        )
        theme = words.on(gr.Button, {"value": "page.theme"}, elem_id="theme", size="sm", min_width=0)
        projector = words.on(gr.Button, {"value": "page.projector"}, elem_id="projector", size="sm", min_width=0)
    return Header(language, theme, projector)


@dataclass(frozen=True)
class ModelPanel:
    """Components that pick a model and say what it is."""

    name: gr.Dropdown
    facts: gr.HTML
    notice: gr.HTML
    """Of opening alone: a measurement goes on beside it, and what either says must not wipe out the other's words."""
    measuring: gr.HTML


def model_panel(words: Words) -> tuple[ModelPanel, DecisionPanel]:
    """The model, where it is to run, and the verdict."""

    def box() -> gr.Dropdown:
        return words.on(
            gr.Dropdown,
            {"label": "model.label"},
            allow_custom_value=True,
            filterable=True,
            elem_id="model-name",
            scale=2,
            min_width=240,
        )

    with gr.Column(elem_id="model"):
        name, where = where_panel(words, box)
    with gr.Column(elem_id="about"):
        notice = gr.HTML(elem_id="model-notice")
        measuring = gr.HTML(elem_id="measuring")
        facts = gr.HTML(elem_id="model-facts")
    return ModelPanel(name, facts, notice, measuring), where


@dataclass(frozen=True)
class MapPanel:
    """Components of the map, of pins and of the table."""

    colour: gr.Radio
    estimate: gr.Button
    halt: gr.Button
    legend: gr.HTML
    grid: gr.HTML
    pinning: gr.Accordion
    layer: gr.Dropdown
    scheme: gr.Dropdown
    pin: gr.Button
    unpin: gr.Button
    notice: gr.HTML
    pins: gr.HTML
    card: gr.HTML
    levels: gr.Plot
    levels_hint: gr.HTML
    table: gr.HTML


def map_panel(words: Words) -> MapPanel:
    """The map of layers, and the same as a table."""
    with gr.Column(elem_id="map"):
        words.on(gr.HTML, {"value": explained("map.heading")})
        colour = words.on(
            gr.Radio,
            {"label": "map.colour", "info": "map.colour_info", "choices": colour_choices},
            value="weight",
            elem_id="colour",
        )
        with gr.Row(elem_classes="tight"):
            estimate = gr.Button("", visible=False, elem_id="estimate", size="sm", scale=3)
            halt = words.on(
                gr.Button, {"value": "map.estimate_stop"}, visible=False, elem_id="halt", size="sm", scale=1
            )
        legend = gr.HTML(elem_id="map-legend", js_on_load=PICK + NEWEST)
        grid = gr.HTML(elem_id="map-grid", js_on_load=PICK + NEWEST)
        with words.on(gr.Accordion, {"label": "pin.heading"}, open=False, elem_id="pinning") as pinning:
            with gr.Row(elem_classes="tight"):
                layer = words.on(
                    gr.Dropdown,
                    {"label": "pin.layer", "info": "pin.layer_info"},
                    allow_custom_value=True,
                    filterable=True,
                    elem_id="pin-layer",
                    scale=3,
                    min_width=240,
                )
                scheme = words.on(
                    gr.Dropdown,
                    {"label": "pin.scheme", "info": "pin.scheme_info", "choices": scheme_choices},
                    value="int8_asym",
                    filterable=True,
                    elem_id="pin-scheme",
                    scale=2,
                    min_width=180,
                )
            with gr.Row(elem_classes="tight"):
                pin = words.on(gr.Button, {"value": "pin.pin"}, elem_id="pin", min_width=90)
                unpin = words.on(gr.Button, {"value": "pin.unpin"}, interactive=False, elem_id="unpin", min_width=90)
            notice = gr.HTML(elem_id="pin-notice")
            pins = gr.HTML(elem_id="pins", js_on_load=NEWEST)
            card = gr.HTML(elem_id="layer-card", js_on_load=NEWEST)
            levels_hint = gr.HTML(elem_id="levels-hint")
            levels = gr.Plot(elem_id="levels", elem_classes="chart", show_label=False, container=False, visible=False)
        with words.on(gr.Accordion, {"label": "map.table"}, open=False):
            table = gr.HTML(elem_id="layer-table", js_on_load=NEWEST)
    return MapPanel(
        colour,
        estimate,
        halt,
        legend,
        grid,
        pinning,
        layer,
        scheme,
        pin,
        unpin,
        notice,
        pins,
        card,
        levels,
        levels_hint,
        table,
    )


@dataclass(frozen=True)
class SizePanel:
    """Components that show what the bytes hold."""

    strip: gr.HTML
    chart: gr.HTML
    distribution: gr.HTML


def size_panel(words: Words) -> SizePanel:
    """Original against compressed, by what the bytes hold."""
    with gr.Column(elem_id="size"):
        words.on(gr.HTML, {"value": explained("size.heading")})
        strip = gr.HTML(elem_id="strip", js_on_load=NEWEST)
        chart = gr.HTML(elem_id="size-chart", js_on_load=NEWEST)
        with words.on(gr.Accordion, {"label": "size.distribution"}, open=False):
            distribution = gr.HTML(elem_id="distribution", js_on_load=NEWEST)
    return SizePanel(strip, chart, distribution)
