"""What the page says and keeps, handler by handler, without a browser: true after every change of state."""

import asyncio
from collections.abc import Callable, Iterator
from dataclasses import replace
from html import unescape
from operator import attrgetter
from pathlib import Path
from typing import Any

import pytest
from gradio.blocks import Block

from studio.base.errors import UserError
from studio.base.progress import Progress
from studio.base.text import LANGUAGES, text
from studio.checkpoint.checkpoint import Checkpoint
from studio.evaluation import evaluate
from studio.evaluation.questions import Question
from studio.planning.choice import Choice
from studio.quantization.methods import Method
from studio.session.compressed_copy import CompressedCopy
from studio.session.measurements import Measurements
from studio.session.session import Session
from studio.session.texts import Texts
from studio.ui import panels, updates
from studio.ui.chat_handlers import ChatHandlers
from studio.ui.drift_handlers import DriftHandlers
from studio.ui.handlers import Handlers
from studio.ui.page import Page, build
from tests.conftest import SENTENCES, save_tiny_model

pytestmark = pytest.mark.usefixtures("own_cache", "_few")
SAMPLING = ("", 16, 8, 0.0, 1.0, 0, 1.0, 0)
LAYERS = ("model.layers.0.self_attn.q_proj.weight", "model.layers.1.mlp.up_proj.weight")


class Panic(BaseException):
    """As pyo3's: no Exception."""


@pytest.fixture(scope="module")
def page() -> Page:
    async def made() -> Page:
        return build(lambda _: None)[1]

    return asyncio.run(made())  # outside a loop Gradio opens several, and closes none


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    folder = tmp_path_factory.mktemp("models")
    save_tiny_model("llama", folder / "first")
    save_tiny_model("gpt2", folder / "second")
    return {path.name: str(path) for path in folder.iterdir()}


@pytest.fixture
def _few(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(evaluate, "WINDOWS", 2)
    monkeypatch.setattr(evaluate, "questions", lambda: (Question("The capital of France is", ("Paris", "Rome"), 0),))


OWNERS = {"archive": CompressedCopy, "sample": Measurements, "calibrate_on": Texts, "evaluate_on": Texts}
"""The part of a session that does a job, where it is not the session."""


class Visitor:
    """A session, and what its browser shows of each component."""

    def __init__(self, page: Page, session: Session) -> None:
        self.page, self.session, self.language = page, session, "en"
        self.shown: dict[Block, dict[str, Any]] = {}
        self._handlers = [kind(page) for kind in (Handlers, ChatHandlers, DriftHandlers)]

    def do(self, name: str, *inputs: Any) -> None:
        """Run an event to its end."""
        for _ in self.steps(name, *inputs):
            pass

    def steps(self, name: str, *inputs: Any) -> Iterator[None]:
        """Run an event; yield whenever the browser has got an update."""
        [handler] = [getattr(each, name) for each in self._handlers if hasattr(each, name)]
        for changes in handler(self.session, self.language, *inputs):
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


@pytest.fixture
def visitor(page: Page, models: dict[str, str], tmp_path: Path) -> Iterator[Visitor]:
    """Somebody whose model is open."""
    session = Session(paths=True, workspace=tmp_path / "workspace")
    found = Visitor(page, session)
    found.do("open_model", models["first"])
    yield found
    session.close()


def choose(visitor: Visitor, choice: Choice) -> None:
    visitor.do(
        "choose",
        choice.mode.value,
        choice.group_size,
        choice.ratio,
        updates.backup_name(choice.backup),
        choice.group_size_fallback,
        choice.all_layers,
        choice.sensitivity,
        choice.method.value,
    )


# texts


def test_an_empty_column_says_what_it_waits_for(visitor: Visitor, models: dict[str, str]) -> None:
    column = visitor.page.chat.compressed
    nothing, ready = text("chat.nothing_compressed"), text("chat.ready")
    assert visitor.shown[column]["placeholder"] == nothing
    visitor.compress()
    assert visitor.shown[column]["placeholder"] == ready
    visitor.language = "zh-Hant"
    visitor.do("speak")
    assert visitor.shown[column]["placeholder"] == text("chat.ready", "zh-Hant")
    visitor.do("open_model", models["second"])
    assert visitor.shown[column]["placeholder"] == text("chat.nothing_compressed", "zh-Hant")


@pytest.mark.parametrize("colour", ["output", "damage"])
def test_what_is_being_measured_is_not_said_to_wait_for_files(
    visitor: Visitor, models: dict[str, str], colour: str
) -> None:
    title = visitor.page.map.legend
    visitor.do("paint", colour)
    assert text(f"map.{colour}_measuring") in visitor.says(title)
    visitor.do("measure")
    assert text(f"map.by_{colour}").split("‖")[0] in visitor.says(title)
    visitor.do("open_model", models["second"])
    checkpoint = visitor.session.checkpoint
    assert checkpoint is not None
    visitor.session.model.checkpoint = replace(checkpoint, folder=None)
    visitor.do("paint", colour)
    assert text(f"map.{colour}_waits") in visitor.says(title)


def test_what_only_a_copy_tells_is_not_promised_beside_it(visitor: Visitor) -> None:
    visitor.do("measure")
    choose(visitor, Choice(method=Method.HALF_QUADRATIC))
    assert text("map.as_nearest") in visitor.says(visitor.page.map.legend)
    visitor.compress()
    assert text("map.as_nearest") not in visitor.says(visitor.page.map.legend)
    visitor.do("paint", "damage")
    visitor.do("measure")
    assert text("map.as_nearest") not in visitor.says(visitor.page.map.legend)
    assert text("map.always_nearest") in visitor.says(visitor.page.map.legend)


def test_another_text_to_calibrate_on_makes_the_copy_stale(visitor: Visitor, tmp_path: Path) -> None:
    choose(visitor, Choice(method=Method.LEAST_SQUARES))
    visitor.compress()
    assert "good" in visitor.says(visitor.page.plan.progress)
    file = tmp_path / "mine.txt"
    file.write_text(" ".join(SENTENCES * 60))
    visitor.do("take_calibration", str(file))
    assert text("plan.stale") in visitor.says(visitor.page.plan.progress)
    visitor.compress()
    visitor.do("take_calibration", None)
    assert text("plan.stale") in visitor.says(visitor.page.plan.progress)
    visitor.do("take_calibration", str(file))  # the same text as the copy's
    assert visitor.says(visitor.page.plan.progress) == ""
    file.write_bytes(b"\xff\x00")
    visitor.do("take_calibration", str(file))
    assert text("error.text_binary", file="mine.txt") in visitor.says(visitor.page.plan.progress)


def test_a_job_goes_on_in_the_language_that_was_chosen_meanwhile(visitor: Visitor) -> None:
    visitor.do("pick", Picked(LAYERS[0]))
    steps = visitor.steps("measure")
    next(steps)
    visitor.language = "zh-Hans"
    visitor.do("speak")
    for _ in steps:
        pass
    assert text("map.by_weight", "zh-Hans") in visitor.says(visitor.page.map.legend)
    assert text("strip.error", "zh-Hans") in visitor.says(visitor.page.model.strip)
    assert text("map.column_bytes", "zh-Hans") in visitor.says(visitor.page.map.card)


def test_what_was_said_of_the_copy_before_goes_with_it(visitor: Visitor) -> None:
    visitor.do("talk", "", *SAMPLING)
    assert text("error.empty_prompt") in visitor.says(visitor.page.chat.notice)
    visitor.shown[visitor.page.drift.progress] = {"value": text("drift.stopped")}
    visitor.compress()
    assert visitor.says(visitor.page.chat.notice) == ""
    assert visitor.says(visitor.page.drift.progress) == ""


@pytest.mark.parametrize(
    ("method", "key"), [(Method.NEAREST, "stage.cancelled"), (Method.GPTQ, "stage.cancelled_calibrated")]
)
def test_only_what_goes_on_from_there_is_said_to(visitor: Visitor, method: Method, key: str) -> None:
    choose(visitor, Choice(method=method))
    visitor.do("queue_compress")
    visitor.do("cancel")
    visitor.do("compress")
    assert text(key) in visitor.says(visitor.page.plan.progress)
    visitor.do("queue_talk")
    visitor.do("stop")
    visitor.do("talk", "Hello", *SAMPLING)
    assert text("stage.stopped") in visitor.says(visitor.page.chat.notice)


def test_files_that_came_before_an_error_are_known_to_be_here(
    visitor: Visitor, monkeypatch: pytest.MonkeyPatch
) -> None:
    here = visitor.session.checkpoint
    assert here is not None
    visitor.session.model.checkpoint = replace(here, folder=None)
    visitor.do("speak")
    assert text("model.note_headers") in visitor.says(visitor.page.model.facts)

    def fetched_then_full(session: Session) -> Iterator[Progress]:
        yield Progress("download", 1, 1)
        session.model.checkpoint = here
        raise UserError("export_disk_full", path="there")

    monkeypatch.setattr(Session, "compress", fetched_then_full)
    visitor.do("compress")
    assert text("model.note_headers") not in visitor.says(visitor.page.model.facts)
    assert text("error.export_disk_full", path="there") in visitor.says(visitor.page.plan.progress)


# what is kept


def test_drift_that_still_holds_is_kept(visitor: Visitor, models: dict[str, str], tmp_path: Path) -> None:
    headline = visitor.page.drift.headline
    (tmp_path / "mine.txt").write_text(" ".join(SENTENCES * 60))
    visitor.do("take_text", str(tmp_path / "mine.txt"))
    visitor.compress()
    visitor.do("measure_drift")
    measured, said = visitor.session.copy.drift, visitor.says(headline)
    assert measured is not None
    assert measured.is_whole
    visitor.talk("Hello")

    visitor.compress()  # the plan that it is of
    assert text("plan.unchanged") in visitor.says(visitor.page.plan.progress)
    visitor.do("open_model", models["first"])
    choose(visitor, Choice(group_size=32))
    choose(visitor, Choice())
    assert visitor.says(visitor.page.plan.progress) == ""
    assert (visitor.session.copy.drift, visitor.says(headline)) == (measured, said)
    assert len(visitor.session.conversation.turns) == 1

    choose(visitor, Choice(group_size=32))
    visitor.compress()
    assert visitor.session.copy.drift is None
    assert "KLD 0" not in visitor.says(headline)
    choose(visitor, Choice())
    visitor.compress()
    assert (visitor.session.copy.drift, visitor.says(headline)) == (measured, said)


def test_a_model_that_is_merely_left_changes_nothing(visitor: Visitor, models: dict[str, str]) -> None:
    """Gradio says that a name was put in when the box is only left."""
    visitor.compress()
    visitor.do("pick", Picked(LAYERS[0]))
    before = {component: dict(shown) for component, shown in visitor.shown.items()}
    visitor.do("open_model", models["first"])
    changed = {component for component, shown in visitor.shown.items() if shown != before[component]}
    assert changed <= {visitor.page.model.notice, visitor.page.missing}


@pytest.mark.parametrize("is_compressed", [False, True], ids=["alone", "both"])
def test_a_message_that_is_refused_stays_in_the_box(visitor: Visitor, is_compressed: bool) -> None:
    if is_compressed:
        visitor.compress()
    prompt, columns = visitor.page.chat.prompt, (visitor.page.chat.original, visitor.page.chat.compressed)
    visitor.talk("Hello")
    assert visitor.shown[prompt]["value"] == ""
    before = [visitor.shown[column]["value"] for column in columns]
    for refused, said in (("Paris " * 300, "256"), ("x" * 100_001, "100,001"), (" \n", text("error.empty_prompt"))):
        visitor.talk(refused)
        assert visitor.shown[prompt]["value"] == refused
        assert [visitor.shown[column]["value"] for column in columns] == before
        assert said in visitor.says(visitor.page.chat.notice) + visitor.says(visitor.page.chat.original_stats)
        assert visitor.shown[visitor.page.chat.send]["interactive"]
    assert len(visitor.session.conversation.turns) == 1
    visitor.talk("Hello")
    assert visitor.shown[prompt]["value"] == ""


def test_what_is_typed_while_both_answer_stays(visitor: Visitor) -> None:
    visitor.do("talk", "Hello", *SAMPLING)
    visitor.shown[visitor.page.chat.prompt] = {"value": "And then"}
    visitor.do("empty", "And then")
    assert visitor.shown[visitor.page.chat.prompt]["value"] == "And then"


def test_a_last_message_that_cannot_be_replaced_is_still_to_be(visitor: Visitor) -> None:
    visitor.talk("Hello")
    visitor.do("edit")
    visitor.talk("Paris " * 300)
    assert visitor.session.conversation.is_editing
    assert text("chat.editing") in visitor.says(visitor.page.chat.notice)
    visitor.talk("Hello again")
    assert [turn.prompt for turn in visitor.session.conversation.turns] == ["Hello again"]
    assert visitor.says(visitor.page.chat.notice) == ""


def test_what_is_typed_wrongly_can_be_corrected(visitor: Visitor) -> None:
    named = visitor.page.model.name, visitor.page.map.layer, visitor.page.plan.dataset, visitor.page.drift.dataset
    for component in named:
        visitor.shown[component] = {"value": "no/such"}
    visitor.do("open_model", "no/such")
    visitor.do("pin", "no/such", "int8_asym")
    visitor.do("fetch_calibration", "no/such")
    visitor.do("fetch_text", "no/such")
    places = visitor.page.model.notice, visitor.page.map.notice, visitor.page.plan.progress, visitor.page.drift.progress
    assert all("alert" in visitor.says(place) for place in places)
    assert all(visitor.shown[component]["value"] == "no/such" for component in named)


def test_half_a_character_is_shown_as_none(visitor: Visitor) -> None:
    """It has no UTF-8, in which Gradio sends everything: the page would hear nothing any more."""
    half = "\ud800/x*"
    visitor.talk(half)
    visitor.do("pick", Picked(half))
    for name, inputs in (("open_model", ()), ("describe", ()), ("pin", ("none",)), ("fetch_text", ())):
        visitor.do(name, half, *inputs)
    visitor.do("edit")
    repr(visitor.session.conversation.turns).encode()
    shown = [*map(str, visitor.shown.values())]
    assert any("\ufffd" in each for each in shown)
    assert not any("\\ud800" in each or "\ud800" in each for each in shown)


# waiting


@pytest.mark.parametrize(
    ("name", "job", "place"),
    [
        ("measure", "measure", "model.notice"),
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


# errors


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
    assert sentence in visitor.says(page.model.notice)
    visitor.do("measure")
    assert sentence in visitor.says(page.model.notice)

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


# pictures


class Picked:
    """A click on a layer of the map."""

    def __init__(self, layer: str) -> None:
        self._data = {"layer": layer}


def turn(picture: str) -> int:
    return int(picture.split('data-turn="')[1].split('"')[0])


def test_a_picture_begun_later_is_the_newer_one_whichever_comes_first(visitor: Visitor) -> None:
    """The browser keeps the newest: a measurement's answer may come after that to the colour picked meanwhile."""
    page = visitor.page
    steps = visitor.steps("measure")
    next(steps)
    late = visitor.says(page.map.grid), visitor.says(page.map.legend)
    visitor.do("paint", "bits")
    choose(visitor, Choice(group_size=32))
    newest = visitor.says(page.map.grid), visitor.says(page.map.legend)
    assert all(turn(before) < turn(now) for before, now in zip(late, newest, strict=True))
    for _ in steps:
        pass
    assert text("map.by_bits") in visitor.says(page.map.legend)
    watching = (page.model.strip, page.map.grid, page.map.legend, page.map.table, page.map.pins, page.map.card)
    for picture in (*watching, page.sizes.chart, page.sizes.distribution):
        assert panels.NEWEST in (picture.js_on_load or "")
        assert turn(visitor.says(picture)) > 0


def test_a_measurement_that_ends_shows_the_layer_that_is_looked_at_by_then(visitor: Visitor) -> None:
    visitor.do("pick", Picked(LAYERS[0]))
    steps = visitor.steps("measure")
    next(steps)
    visitor.do("describe", LAYERS[1])
    for _ in steps:
        pass
    assert "128 × 64" in visitor.says(visitor.page.map.card)


def test_a_measurement_switches_no_button(visitor: Visitor) -> None:
    choose(visitor, Choice(group_size=32))
    for button in (visitor.page.plan.undo, visitor.page.map.unpin):
        visitor.shown[button] = {"interactive": "untouched"}
    visitor.do("measure")
    for button in (visitor.page.plan.undo, visitor.page.map.unpin):
        assert visitor.shown[button] == {"interactive": "untouched"}


@pytest.mark.parametrize("language", LANGUAGES)
def test_all_that_depends_on_state_is_said_in_the_language_chosen(visitor: Visitor, language: str) -> None:
    visitor.do("measure")
    visitor.compress()
    visitor.do("pick", Picked(LAYERS[0]))
    visitor.do("pin", "", "int8_asym")
    choose(visitor, Choice(group_size=32))
    visitor.do("speak")
    before = {component: visitor.says(component) for component in visitor.shown}
    visitor.language = language
    visitor.do("speak")
    page = visitor.page
    assert text("plan.stale", language) in visitor.says(page.plan.progress)
    assert visitor.says(page.map.notice) == ""
    for component in (page.map.card, page.map.legend, page.model.strip, page.drift.headline, page.export.summary):
        assert language == "en" or visitor.says(component) != before[component]
    assert isinstance(visitor.session.checkpoint, Checkpoint)
