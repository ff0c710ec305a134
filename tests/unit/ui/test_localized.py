"""Which component shows which text: a change of language relabels all of them, and leaves all else."""

import asyncio

import gradio as gr
import pytest

from studio.base.text import LANGUAGES, text
from studio.ui.localized import Words, explained, heading


def shown(words: Words) -> tuple[gr.Button, gr.HTML]:
    """Return two components with texts."""

    async def made() -> tuple[gr.Button, gr.HTML]:
        with gr.Blocks():
            button = words.on(gr.Button, {"value": "chat.settings"}, elem_id="settings")
            return button, words.on(gr.HTML, {"value": str.upper})

    return asyncio.run(made())  # outside a loop Gradio opens several, and closes none


@pytest.mark.parametrize("language", LANGUAGES)
def test_every_component_follows_the_language(language: str) -> None:
    words = Words()
    button, html = shown(words)
    updates = words.updates(language)
    assert words.components == [button, html]
    assert updates[button]["value"] == text("chat.settings", language)
    assert updates[html]["value"] == language.upper()
    assert "elem_id" not in updates[button]
    assert button.value == text("chat.settings")


def test_a_heading_is_its_text_in_every_language() -> None:
    said = heading("chat.settings")
    assert [said(language) for language in LANGUAGES] == [
        f"<h2>{text('chat.settings', each)}</h2>" for each in LANGUAGES
    ]


@pytest.mark.parametrize("language", LANGUAGES)
def test_a_panel_says_what_it_is_in_a_sentence_and_more_behind_a_mark(language: str) -> None:
    html = explained("map.heading")(language)
    heading_, _, more = html.partition("<details")
    assert f"<h2>{text('map.heading', language)}</h2>" in heading_
    assert f'aria-label="{text("page.what", language)} {text("map.heading", language)}"' in more
    assert text("understand.map_more", language) in more.partition("</details>")[0]
    assert text("understand.map", language) in more.partition("</details>")[2]
