"""An answer of the page is Gradio's own, and makes nothing anew that it does not name."""

from collections.abc import Callable
from typing import Any

import gradio as gr
import pytest
from gradio.state_holder import SessionState

from studio.ui.frugal_blocks import FrugalBlocks


class Page:
    """Some components, an event that may change all of them, and one visitor."""

    def __init__(self, kind: type[gr.Blocks]) -> None:
        with kind() as self.blocks:
            self.button, self.box, self.line = gr.Button("Go"), gr.Textbox("typed"), gr.HTML("said")
            self.state, self.menu = gr.State(3), gr.Radio(["a", "b"])
            outputs = [self.button, self.box, self.line, self.state, self.menu]
            self.button.click(lambda: None, outputs=outputs)
        self.visitor = SessionState(self.blocks)

    async def answer(self, **news: Any) -> list[Any]:
        """Return what is sent when a handler answers so."""
        function = self.blocks.default_config.fns[0]
        predictions = {getattr(self, name): news for name, news in news.items()}
        sent: list[Any] = await self.blocks.postprocess_data(function, predictions, self.visitor)
        return sent


pytestmark = pytest.mark.anyio
Answer = dict[str, Any]
ANSWERS: dict[str, Callable[[], Answer]] = {
    "one": lambda: {"line": "other"},
    "one_property": lambda: {"button": gr.update(interactive=False)},
    "several": lambda: {"line": "other", "menu": gr.update(choices=["c"], value="c"), "box": gr.update(value=None)},
    "state": lambda: {"state": 4, "line": "x"},
    "skipped": lambda: {"line": gr.skip(), "box": "new", "button": gr.update(value="Stop")},
}


@pytest.fixture
def anyio_backend() -> str:
    """Within a running loop, for Gradio makes one where there is none and closes it nowhere."""
    return "asyncio"


@pytest.mark.parametrize("name", ANSWERS)
async def test_what_is_sent_is_what_gradio_sends(name: str) -> None:
    """But for HTML that is not named, to which Gradio sends the update itself as a property."""
    ours, theirs = Page(FrugalBlocks), Page(gr.Blocks)
    sent, expected = await ours.answer(**ANSWERS[name]()), await theirs.answer(**ANSWERS[name]())
    untouched = {"props": gr.skip(), **gr.skip()}
    assert sent == [gr.skip() if each == untouched else each for each in expected]
    assert ours.visitor[ours.state._id] == theirs.visitor[theirs.state._id]


async def test_what_is_not_named_stays_the_same_component() -> None:
    page = Page(FrugalBlocks)
    before = page.visitor[page.menu._id]
    await page.answer(button=gr.update(interactive=False))
    assert page.visitor[page.menu._id] is before
    assert page.visitor[page.button._id].interactive is False


async def test_an_answer_without_news_sends_none() -> None:
    assert await Page(FrugalBlocks).answer() == [gr.skip(), gr.skip(), gr.skip(), None, gr.skip()]


async def test_a_component_that_is_no_output_is_refused() -> None:
    page = Page(FrugalBlocks)
    page.menu = gr.Radio(["x"])
    with pytest.raises(ValueError, match="none of its outputs"):
        await page.answer(menu="x")
