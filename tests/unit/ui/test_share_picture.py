"""The picture to share: sound XML, whatever a model wrote; both maps on one scale; the first difference marked."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from xml.etree import ElementTree

import pytest

from studio.base.text import LANGUAGES
from studio.chat.answer import Reply
from studio.chat.answers import Answers
from studio.chat.conversation import Turn
from studio.chat.divergence import Divergence
from studio.checkpoint.checkpoint import of_folder
from studio.checkpoint.layers import Kind
from studio.planning.choice import Choice, Pin
from studio.quantization.scheme import Scheme
from studio.session.opened_model import OpenedModel
from studio.session.session import Session
from studio.ui.share_picture import LINK, share_picture

SVG = "{http://www.w3.org/2000/svg}"
HOSTILE = 'It is <script>alert("x")</script> & \x00\x1b\ud83d Paris'


@pytest.fixture
def session(tiny_model: Callable[[str], Path], tmp_path: Path) -> Session:
    session = Session(workspace=tmp_path)
    model = OpenedModel.of(of_folder(tiny_model("llama")))
    session.planner.take(model)
    names = [layer.name for layer in model.chosen.layers if layer.kind is Kind.LINEAR]
    model.figures = {"damage": {name: {"int4_sym-g32": 0.02, "int8_asym": 1e-6} for name in names}}
    pins = tuple(Pin(name, Scheme.parse("int8_asym")) for name in names[:2])
    session.planner.choose(replace(Choice.of("int4_sym", 32, 1.0), pins=pins))
    places = ((6, 9), (6, 12))
    parted = Divergence(2, ("a", "b"), places, ((0.6, 0.4), (0.3, 0.7)))
    replies = (Reply(HOSTILE, tokens=4, ended="stop"), Reply("It is not so.", tokens=4, ended="stop"))
    session.samples.turns = (Turn("Where?", Answers(replies, (None, None), parted, True)),)
    return session


@pytest.mark.parametrize("language", LANGUAGES)
def test_it_holds_both_maps_and_both_answers_in_every_language(session: Session, language: str) -> None:
    svg = share_picture(session, language)
    root = ElementTree.fromstring(svg)
    assert (root.get("width"), root.get("height")) == ("1200", "675")
    cells = [each.get("fill") for each in root.iter(f"{SVG}rect") if each.get("rx") == "1.5"]
    half = len(cells) // 2
    before, after = cells[:half], cells[half:]
    assert len(set(before)) == 1
    assert len(set(after)) == 2
    assert sum(a == b for a, b in zip(before, after, strict=True)) == half - 2
    marked = [each.text for each in root.iter(f"{SVG}tspan")]
    assert marked == [HOSTILE[6:9], "not so."[:6]]
    assert LINK in svg
    words = "".join(root.itertext())
    assert "<script>" in words
    assert "\x1b" not in words


def test_before_anything_is_made_it_says_what_will_stand_there(session: Session) -> None:
    session.samples.turns = ()
    ElementTree.fromstring(share_picture(session, "en"))
    assert "both answers stand here" in share_picture(session, "en")
    session.model.figures = {}
    ElementTree.fromstring(share_picture(session, "en"))
    assert share_picture(Session(workspace=session._workspace), "en") == ""
