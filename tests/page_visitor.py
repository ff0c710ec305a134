"""A visitor of the page without a browser: a session, and what each component shows."""

from collections.abc import Iterator
from html import unescape
from typing import Any

from gradio.blocks import Block

from studio.planning.choice import Choice
from studio.session.session import Session
from studio.ui.chat_handlers import ChatHandlers
from studio.ui.decision_handlers import DecisionHandlers
from studio.ui.drift_handlers import DriftHandlers
from studio.ui.handlers import Handlers
from studio.ui.page import Page
from studio.ui.push_handlers import PushHandlers

SAMPLING = ("", 16, 8, 0.0, 1.0, 0, 1.0, 0)


LAYERS = ("model.layers.0.self_attn.q_proj.weight", "model.layers.1.mlp.up_proj.weight")


class Visitor:
    """A session, and what its browser shows of each component."""

    def __init__(self, page: Page, session: Session) -> None:
        self.page, self.session, self.language = page, session, "en"
        self.shown: dict[Block, dict[str, Any]] = {}
        self._handlers = [
            kind(page) for kind in (Handlers, ChatHandlers, DriftHandlers, DecisionHandlers, PushHandlers)
        ]

    def do(self, name: str, *inputs: Any, **named: Any) -> None:
        """Run an event to its end."""
        for _ in self.steps(name, *inputs, **named):
            pass

    def steps(self, name: str, *inputs: Any, **named: Any) -> Iterator[None]:
        """Run an event; yield whenever the browser has got an update."""
        [handler] = [getattr(each, name) for each in self._handlers if hasattr(each, name)]
        for changes in handler(self.session, self.language, *inputs, **named):
            for component, change in changes.items():
                properties = change if isinstance(change, dict) else {"value": change}
                self.shown.setdefault(component, {}).update(properties)
            yield

    def says(self, component: Block) -> str:
        """Return what a component of HTML shows."""
        return unescape(str(self.shown.get(component, {}).get("value", "")))

    def compress(self) -> None:
        self.do("queue_compress")
        self.do("compress")

    def talk(self, prompt: str) -> None:
        """Send what stands in the box."""
        self.shown.setdefault(self.page.chat.prompt, {})["value"] = prompt
        for name, inputs in (("queue_talk", ()), ("talk", (prompt, *SAMPLING)), ("empty", (prompt,))):
            self.do(name, *inputs)


def choose(visitor: Visitor, choice: Choice) -> None:
    visitor.do("choose", **{name: choice.words()[name] for name in visitor.page.plan.controls})


class Picked:
    """A click on a layer of the map."""

    def __init__(self, layer: str) -> None:
        self._data = {"layer": layer}


def turn(picture: str) -> int:
    return int(picture.split('data-turn="')[1].split('"')[0])
