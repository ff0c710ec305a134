"""What the page says, handler by handler, without a browser: true after every change of state."""

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from studio.base.errors import Cancelled, UserError
from studio.base.progress import Progress
from studio.base.text import text
from studio.checkpoint import hub, open_model
from studio.checkpoint.checkpoint import Checkpoint
from studio.checkpoint.license import License
from studio.planning.choice import Choice
from studio.quantization.methods import Method
from studio.session.session import Session
from studio.ui import updates
from studio.ui.page import Page
from tests.conftest import SENTENCES
from tests.page_visitor import LAYERS, SAMPLING, Picked, Visitor, choose

pytestmark = pytest.mark.usefixtures("own_cache", "_few")


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
    assert text(f"figure.{colour}.measuring") in visitor.says(title)
    visitor.do("measure")
    assert text(f"figure.{colour}.legend").split("‖")[0] in visitor.says(title)
    visitor.do("open_model", models["second"])
    checkpoint = visitor.session.checkpoint
    assert checkpoint is not None
    visitor.session.model.checkpoint = replace(checkpoint, folder=None)
    visitor.do("paint", colour)
    assert text(f"figure.{colour}.waits") in visitor.says(title)


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
    assert text("figure.weight.legend", "zh-Hans") in visitor.says(visitor.page.map.legend)
    assert text("strip.error", "zh-Hans") in visitor.says(visitor.page.sizes.strip)
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


def test_what_of_a_download_is_kept_is_said(visitor: Visitor, monkeypatch: pytest.MonkeyPatch) -> None:
    here = visitor.session.checkpoint
    assert here is not None
    visitor.session.model.checkpoint = replace(here, folder=None, large_files={"0" * 64: 4_000_000_000})

    def stopped(checkpoint: Checkpoint, login: str | None) -> Iterator[Progress]:
        yield Progress("download", 1, 2)
        monkeypatch.setattr(hub, "fetched_bytes", lambda *_: 3_000_000_000)
        raise Cancelled

    monkeypatch.setattr(open_model, "fetch", stopped)
    for begins, works, place in (
        ("queue_compress", "compress", visitor.page.plan.progress),
        ("queue_make", "make", visitor.page.presets.progress),
    ):
        monkeypatch.setattr(hub, "fetched_bytes", lambda *_: 0)
        visitor.do("speak")
        assert "3 GB" not in visitor.says(visitor.page.model.facts)
        visitor.do(begins)
        visitor.do(works)
        assert text("stage.cancelled_download") in visitor.says(place)
        if works == "make":
            visitor.do("made")
        assert text("model.note_partly", here="3 GB", total="4 GB") in visitor.says(visitor.page.model.facts)


def test_a_license_that_forbids_to_share_is_named(visitor: Visitor) -> None:
    here = visitor.session.checkpoint
    assert here is not None
    visitor.session.model.checkpoint = replace(here, license=License("cc-by-nd-4.0"))
    visitor.do("speak")
    assert "cc-by-nd-4.0" in visitor.says(visitor.page.model.facts)
    visitor.compress()
    assert "cc-by-nd-4.0" in visitor.says(visitor.page.export.summary)


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


def test_why_a_model_is_not_opened_stays_while_another_is_measured(visitor: Visitor) -> None:
    notice = visitor.page.model.notice
    measuring = visitor.steps("measure")
    next(measuring)
    visitor.shown[notice] = {"value": "as the browser has it"}
    for _ in visitor.steps("measure"):  # whose last answer may be under way while another model is refused
        assert visitor.says(notice) == "as the browser has it"
    visitor.do("open_model", "no/such")
    said = visitor.says(notice)
    assert "alert" in said
    for _ in measuring:
        assert visitor.says(notice) == said
    visitor.do("open_model", visitor.session.checkpoint.name if visitor.session.checkpoint else "")
    assert visitor.says(notice) == ""


def test_what_is_answered_while_another_language_is_chosen_is_said_in_that_one(
    visitor: Visitor, models: dict[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Answers are put in words for seconds on a busy machine, and may arrive after the page in the new language."""
    words = updates.dynamic

    def slow(page: Page, session: Session, language: str) -> updates.Updates:
        found = words(page, session, language)
        monkeypatch.setattr(updates, "dynamic", words)
        visitor.language = "zh-Hans"
        visitor.do("speak")
        return found

    monkeypatch.setattr(updates, "dynamic", slow)
    visitor.do("open_model", models["second"])
    for component in (visitor.page.where.verdict, visitor.page.model.facts):
        assert "gpt2" in visitor.says(visitor.page.model.facts)
        assert text("verdict.label_fits") not in visitor.says(component)
    assert text("verdict.label_fits", "zh-Hans") in visitor.says(visitor.page.where.verdict)
    assert visitor.shown[visitor.page.header.language]["value"] == "zh-Hans"
