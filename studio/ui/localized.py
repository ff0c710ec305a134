"""Which component shows which text, so that a change of language can relabel the whole page at once. Knows no text."""

from collections.abc import Callable
from html import escape
from typing import Any, TypeVar

import gradio as gr
from gradio.blocks import Block

from studio.base.text import DEFAULT, text

Shown = TypeVar("Shown", bound=Block)
Wording = str | Callable[[str], Any]
"""A key of the catalogue, or a function of the language for what is more than one text (a list of choices)."""


class Words:
    """The texts of a page's components."""

    def __init__(self) -> None:
        self._worded: list[tuple[Block, dict[str, Wording]]] = []

    def on(self, kind: Callable[..., Shown], keys: dict[str, Wording], **settings: Any) -> Shown:
        """Return a new component of ``kind`` whose properties in ``keys`` follow the language."""
        component = kind(**{name: _said(wording, DEFAULT) for name, wording in keys.items()}, **settings)
        self._worded.append((component, keys))
        return component

    def updates(self, language: str) -> dict[Block, Any]:
        """Return what to change on every component for ``language``."""
        return {
            component: gr.update(**{name: _said(wording, language) for name, wording in keys.items()})
            for component, keys in self._worded
        }

    @property
    def components(self) -> list[Block]:
        return [component for component, _ in self._worded]


def _said(wording: Wording, language: str) -> Any:
    return text(wording, language) if isinstance(wording, str) else wording(language)


def heading(key: str) -> Callable[[str], str]:
    """Return a section heading's HTML as a function of the language."""
    return lambda language: f"<h2>{text(key, language)}</h2>"


def explained(key: str) -> Callable[[str], str]:
    """Return a panel's heading with what it is, as a function of the language: a sentence, and more behind a mark."""
    panel = key.partition(".")[0]

    def shown(language: str) -> str:
        title, ask = text(key, language), escape(text("page.what", language))
        first, more = (escape(text(f"understand.{panel}{end}", language)) for end in ("", "_more"))
        return (
            f'<div class="heading"><h2>{title}</h2><details class="what" name="what">'
            f'<summary aria-label="{ask} {escape(title)}">?</summary><p>{more}</p></details></div>'
            f'<p class="hint">{first}</p>'
        )

    return shown
