"""The panels of the page: each builds its components and returns them as a frozen dataclass. Wires no events."""

from dataclasses import dataclass

import gradio as gr

from studio.base.text import DEFAULT, LANGUAGES, text
from studio.export.targets import DEFAULT as DEFAULT_TARGET
from studio.export.targets import TARGETS
from studio.ui.choices import (
    colour_choices,
    scheme_choices,
    target_choices,
)
from studio.ui.localized import Words, heading

PICK = """
element.addEventListener('click', (event) => {
  const cell = event.target.closest('[data-layer]');
  if (cell) trigger('click', {layer: cell.dataset.layer});
});
element.addEventListener('pointerover', (event) => {
  const cell = event.target.closest('.cell');
  if (cell) cell.title = cell.ariaLabel;
});
element.addEventListener('keydown', (event) => {
  const cell = event.target.closest('.cell');
  const step = {ArrowLeft: [0, -1], ArrowRight: [0, 1], ArrowUp: [-1, 0], ArrowDown: [1, 0]}[event.key];
  if (!cell || !step) return;
  event.preventDefault();
  let place = cell.closest('td');
  do {
    const row = place.parentElement;
    const line = step[0] ? row.parentElement.rows[row.sectionRowIndex + step[0]] : row;
    place = line && line.cells[place.cellIndex + step[1]];
  } while (place && !place.querySelector('.cell'));
  const next = place && place.querySelector('.cell');
  if (!next) return;
  cell.tabIndex = -1;
  next.tabIndex = 0;
  next.focus();
});
"""
"""A click on a layer says which; arrows move from cell to cell, so that the map is one stop of the Tab key. What a cell
says to those who hear the page, it says under the pointer too."""
NEWEST = """
let newest = props.value;
const turn = (html) => Number(/data-turn="(\\d+)"/.exec(html)?.[1] ?? 0);
watch('value', () => {
  if (turn(props.value) < turn(newest)) props.value = newest;
  else newest = props.value;
});
"""
"""A picture that was begun before the one on show came too late: what it shows is no longer so."""


@dataclass(frozen=True)
class Header:
    """Components above all panels."""

    language: gr.Radio
    theme: gr.Button


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
    return Header(language, theme)


@dataclass(frozen=True)
class ModelPanel:
    """Components that pick a model and say what it is."""

    name: gr.Dropdown
    facts: gr.HTML
    notice: gr.HTML
    strip: gr.HTML


def model_panel(words: Words) -> ModelPanel:
    """The model and the figures of its plan."""
    with gr.Column(elem_id="model"):
        with gr.Row(elem_classes="tight"):
            name = words.on(
                gr.Dropdown,
                {"label": "model.label", "info": "model.info"},
                allow_custom_value=True,
                filterable=True,
                elem_id="model-name",
                scale=3,
            )
            with gr.Column(scale=4, min_width=280):
                facts = gr.HTML(elem_id="model-facts")
                notice = gr.HTML(elem_id="model-notice")
        strip = gr.HTML(elem_id="strip", js_on_load=NEWEST)
    return ModelPanel(name, facts, notice, strip)


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
    table: gr.HTML


def map_panel(words: Words) -> MapPanel:
    """The map of layers, and the same as a table."""
    with gr.Column(elem_id="map"):
        words.on(gr.HTML, {"value": heading("map.heading")})
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
        with words.on(gr.Accordion, {"label": "map.table"}, open=False):
            table = gr.HTML(elem_id="layer-table", js_on_load=NEWEST)
    return MapPanel(colour, estimate, halt, legend, grid, pinning, layer, scheme, pin, unpin, notice, pins, card, table)


@dataclass(frozen=True)
class SizePanel:
    """Components that show what the bytes hold."""

    chart: gr.HTML
    distribution: gr.HTML


def size_panel(words: Words) -> SizePanel:
    """Original against compressed, by what the bytes hold."""
    with gr.Column(elem_id="size"):
        words.on(gr.HTML, {"value": heading("size.heading")})
        chart = gr.HTML(elem_id="size-chart", js_on_load=NEWEST)
        with words.on(gr.Accordion, {"label": "size.distribution"}, open=False):
            distribution = gr.HTML(elem_id="distribution", js_on_load=NEWEST)
    return SizePanel(chart, distribution)


@dataclass(frozen=True)
class ExportPanel:
    """Components of the file to take away."""

    summary: gr.HTML
    target: gr.Radio
    button: gr.Button
    progress: gr.HTML
    file: gr.DownloadButton


def export_panel(words: Words) -> ExportPanel:
    """What can be taken along."""
    with gr.Column(elem_id="export"):
        words.on(gr.HTML, {"value": heading("export.heading")})
        summary = gr.HTML(elem_id="export-summary")
        target = words.on(
            gr.Radio,
            {"label": "export.target", "choices": target_choices},
            value=DEFAULT_TARGET,
            visible=len(TARGETS) > 1,
            elem_id="target",
        )
        with gr.Row(elem_classes="tight"):
            button = words.on(
                gr.Button, {"value": "export.button"}, variant="primary", interactive=False, elem_id="export-button"
            )
            file = words.on(gr.DownloadButton, {"label": "export.file"}, visible=False, elem_id="export-file")
        progress = gr.HTML(elem_id="export-progress")
    return ExportPanel(summary, target, button, progress, file)
