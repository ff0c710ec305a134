"""The panel of the conversation: two columns, one message box. Wires no events."""

from dataclasses import dataclass

import gradio as gr

from studio.runtime.decoder import KV_BITS
from studio.ui.answers import kv_choices, pane_switch
from studio.ui.localized import Words, explained
from studio.ui.scripts import PANES


@dataclass(frozen=True)
class ChatPanel:
    """Components of the conversation."""

    original: gr.Chatbot
    original_stats: gr.HTML
    compressed: gr.Chatbot
    compressed_stats: gr.HTML
    prompt: gr.Textbox
    send: gr.Button
    stop: gr.Button
    regenerate: gr.Button
    edit: gr.Button
    clear: gr.Button
    notice: gr.HTML
    wide: gr.Button
    how_fast: gr.Accordion
    """Closed at first; what is in it is drawn once it opens."""
    speed: gr.HTML
    roofline: gr.Plot
    """There once somebody was answered and the machine was measured."""
    kv_bits: gr.Radio
    cache: gr.HTML
    system: gr.Textbox
    max_new_tokens: gr.Slider
    temperature: gr.Slider
    top_p: gr.Slider
    top_k: gr.Slider
    repetition_penalty: gr.Slider
    seed: gr.Number

    @property
    def lines(self) -> tuple[gr.HTML, gr.HTML]:
        """What stands beneath each column."""
        return self.original_stats, self.compressed_stats


def chat_panel(words: Words) -> ChatPanel:
    """Two columns, one message box."""
    with gr.Column(elem_id="chat"):
        words.on(gr.HTML, {"value": explained("chat.heading")})
        with gr.Row(elem_classes="tight", elem_id="chat-view"):
            words.on(gr.HTML, {"value": pane_switch}, elem_id="panes", js_on_load=PANES)
            wide = words.on(gr.Button, {"value": "chat.wide"}, elem_id="wide", size="sm", scale=0, min_width=0)
        with gr.Row(elem_classes="tight", elem_id="columns"):
            with gr.Column(min_width=150):
                original = words.on(
                    gr.Chatbot,
                    {"label": "chat.original"},
                    height=330,
                    elem_id="original",
                    render_markdown=False,
                    buttons=[],
                )
                original_stats = gr.HTML(elem_id="original-stats")
            with gr.Column(min_width=150):
                compressed = words.on(
                    gr.Chatbot,
                    {"label": "chat.compressed"},
                    height=330,
                    elem_id="compressed",
                    render_markdown=False,
                    buttons=[],  # its copy button would copy the escaped text
                )
                compressed_stats = gr.HTML(elem_id="compressed-stats")
        prompt = words.on(
            gr.Textbox,
            {"label": "chat.prompt", "info": "chat.prompt_info"},
            lines=1,
            max_lines=6,
            elem_id="prompt",  # of no greatest length: the browser would cut what is pasted without a word
        )
        with gr.Row(elem_classes="tight"):
            send = words.on(gr.Button, {"value": "chat.send"}, variant="primary", elem_id="send", min_width=90)
            stop = words.on(gr.Button, {"value": "chat.stop"}, interactive=False, elem_id="stop", min_width=90)
            regenerate = words.on(
                gr.Button, {"value": "chat.regenerate"}, interactive=False, elem_id="regenerate", min_width=90
            )
            edit = words.on(gr.Button, {"value": "chat.edit"}, interactive=False, elem_id="edit", min_width=90)
            clear = words.on(gr.Button, {"value": "chat.clear"}, elem_id="clear", min_width=90)
        notice = gr.HTML(elem_id="chat-notice")
        with words.on(gr.Accordion, {"label": "chat.speed"}, open=False) as how_fast:
            speed = gr.HTML(elem_id="speed")
            roofline = gr.Plot(elem_id="roofline", show_label=False, container=False, visible=False)
        with words.on(gr.Accordion, {"label": "chat.settings"}, open=False):
            system = words.on(
                gr.Textbox, {"label": "chat.system", "info": "chat.system_info"}, lines=2, elem_id="system"
            )
            with gr.Row(elem_classes="tight"):
                longest = _slider(words, "max_new_tokens", 1, 4096, 1, 256)
                temperature = _slider(words, "temperature", 0, 2, 0.05, 0)
                top_p = _slider(words, "top_p", 0.05, 1, 0.05, 1)
                top_k = _slider(words, "top_k", 0, 200, 1, 0)
                penalty = _slider(words, "repetition_penalty", 1, 2, 0.05, 1)
                seed = words.on(
                    gr.Number,
                    {"label": "chat.seed", "info": "chat.seed_info"},
                    value=0,
                    precision=0,
                    minimum=0,
                    maximum=2**31,
                    min_width=160,
                )
            kv_bits = words.on(
                gr.Radio,
                {"label": "chat.kv_bits", "info": "chat.kv_bits_info", "choices": kv_choices},
                value=KV_BITS[0],
                elem_id="kv-bits",
            )
            cache = gr.HTML(elem_id="kv-cache")
    return ChatPanel(
        original, original_stats, compressed, compressed_stats, prompt, send, stop, regenerate, edit, clear, notice,
        wide, how_fast, speed, roofline, kv_bits, cache, system, longest, temperature, top_p, top_k, penalty, seed,
    )  # fmt: skip


def _slider(words: Words, name: str, low: float, high: float, step: float, value: float) -> gr.Slider:
    keys = {"label": f"chat.{name}", "info": f"chat.{name}_info"}
    return words.on(
        gr.Slider, dict(keys), minimum=low, maximum=high, step=step, value=value, min_width=160, elem_id=name
    )
