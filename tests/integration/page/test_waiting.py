"""What the page says while it waits, and which buttons come back whatever happens."""

from collections.abc import Callable, Iterator
from operator import attrgetter

import pytest

from studio.base.errors import UserError
from studio.base.progress import Progress
from studio.base.text import text
from studio.planning.choice import Choice
from studio.session.compressed_copy import CompressedCopy
from studio.session.measurements import Measurements
from studio.session.session import Session
from studio.session.texts import Texts
from tests.page_visitor import SAMPLING, Visitor, choose

pytestmark = pytest.mark.usefixtures("own_cache", "_few")

OWNERS = {"archive": CompressedCopy, "sample": Measurements, "calibrate_on": Texts, "evaluate_on": Texts}
"""The part of a session that does a job, where it is not the session."""


class Panic(BaseException):
    """As pyo3's: no Exception."""


@pytest.mark.parametrize(
    ("name", "job", "place"),
    [
        ("measure", "measure", "model.measuring"),
        ("compress", "compress", "plan.progress"),
        ("take_text", "evaluate_on", "drift.progress"),
        ("fetch_text", "evaluate_on", "drift.progress"),
        ("take_calibration", "calibrate_on", "plan.progress"),
        ("fetch_calibration", "calibrate_on", "plan.progress"),
    ],
)
def test_something_is_said_before_a_job_says_anything(
    visitor: Visitor, monkeypatch: pytest.MonkeyPatch, name: str, job: str, place: str
) -> None:
    """The first process that computes is seconds in coming."""
    component = attrgetter(place)(visitor.page)
    said: list[str] = []

    def heard(*_: object) -> Iterator[Progress]:
        said.append(visitor.says(component))
        yield from ()

    monkeypatch.setattr(OWNERS.get(job, Session), job, heard if name == job else lambda *_: list(heard()))
    visitor.shown[component] = {"value": ""}
    visitor.do(name, *(() if name == job else ("a/b",)))
    assert "notice" in said[0]


def ends(error: BaseException) -> Callable[..., Iterator[Progress]]:
    """Return a job that ends so."""

    def job(*_: object) -> Iterator[Progress]:
        yield Progress("load")
        raise error

    return job


@pytest.mark.parametrize("error", [Panic("in Rust"), RuntimeError("a bug"), UserError("choose_a_model")], ids=repr)
def test_every_button_comes_back_whatever_happens(
    visitor: Visitor, monkeypatch: pytest.MonkeyPatch, error: BaseException
) -> None:
    page = visitor.page
    visitor.compress()
    visitor.talk("Hello")
    for job in ("compress", "chat", "archive", "measure_drift", "sample", "measure"):
        monkeypatch.setattr(OWNERS.get(job, Session), job, ends(error))
    choose(visitor, Choice(group_size=32))
    sentence = error.sentence() if isinstance(error, UserError) else text("error.unexpected")

    visitor.compress()
    assert sentence in visitor.says(page.plan.progress)
    visitor.talk("Hello again")
    assert sentence in visitor.says(page.chat.notice)
    visitor.do("queue_talk")
    visitor.do("regenerate", "", *SAMPLING)
    visitor.do("export")
    assert sentence in visitor.says(page.export.progress)
    visitor.do("queue_drift")
    visitor.do("measure_drift")
    assert sentence in visitor.says(page.drift.progress)
    visitor.shown[page.map.estimate]["interactive"] = False
    visitor.do("estimate")
    assert sentence in visitor.says(page.model.measuring)
    visitor.do("measure")
    assert sentence in visitor.says(page.model.measuring)

    on = (page.plan.compress, page.chat.send, page.chat.regenerate, page.chat.edit, page.export.button)
    for button in (*on, page.drift.measure, page.map.estimate):
        assert visitor.shown[button]["interactive"], button.elem_id
    for button in (page.plan.cancel, page.chat.stop):
        assert not visitor.shown[button]["interactive"], button.elem_id
    for button in (page.drift.stop, page.map.halt):
        assert not visitor.shown[button]["visible"], button.elem_id
    assert visitor.shown[page.chat.prompt]["value"] == "Hello again"


@pytest.mark.parametrize("end", [KeyboardInterrupt, SystemExit, GeneratorExit])
def test_what_ends_the_server_is_no_error_of_a_handler(
    visitor: Visitor, monkeypatch: pytest.MonkeyPatch, end: type[BaseException]
) -> None:
    monkeypatch.setattr(Session, "compress", ends(end()))
    with pytest.raises(end):
        visitor.do("compress")
