"""The decision, handler by handler: where it runs, presets, the one button, what a program reads, the address."""

import csv
import io
import json
from html import unescape
from pathlib import Path
from typing import Any
from urllib.parse import urlencode

import pytest

from studio.base.errors import Cancelled
from studio.base.text import LANGUAGES, text
from studio.base.units import format_bytes
from studio.checkpoint.tokenizer.guarded_tokenizer import well_formed
from studio.planning import hosts
from studio.planning.choice import Choice
from studio.planning.presets import CUSTOM, PRESETS
from studio.session import making
from studio.session.session import Session
from studio.ui import decision_handlers
from studio.ui.address import address, follow
from studio.ui.front_chart import front_chart, points
from studio.ui.page import Page
from studio.ui.runs_table import as_csv, as_json, as_markdown
from studio.ui.verdict import figure, verdict
from tests.packed_models import Gptq, packed_folder
from tests.page_visitor import Visitor, choose

pytestmark = pytest.mark.usefixtures("own_cache", "_few")
FAST = {"smallest": {"mode": "int4_sym", "group_size": 32}, "balanced": {"mode": "q8_0"}, "safest": {"mode": "q8_0"}}


class Clicked:
    """A click on a point of the chart or a run of the table."""

    def __init__(self, **data: str) -> None:
        self._data = data


@pytest.fixture
def deciding(page: Page, models: dict[str, str], tmp_path: Path) -> Visitor:
    """Somebody who opened the page without an address that says anything."""
    session = Session(paths=True, workspace=tmp_path / "workspace")
    session.measurements.predicted = session.decision.plans
    follow(session, {})
    visitor = Visitor(page, session)
    visitor.do("recall", {})
    visitor.do("open_model", models["first"])
    return visitor


def test_a_page_begins_with_the_balanced_preset_of_a_file_for_ollama(deciding: Visitor) -> None:
    session = deciding.session
    assert session.decision.preset == "balanced"
    assert session.choice.method.needs_inputs
    said = deciding.says(deciding.page.where.verdict)
    assert text("verdict.fits_yes", need="", memory="16 GB")[:5] in said
    assert "tiny" not in said
    assert ".gguf" in said
    assert session.plan is not None
    assert not session.plan.is_exact
    assert f"~\u2009{format_bytes(session.decision.target.size(session.plan))}" in said
    assert deciding.shown[deciding.page.plan.box]["visible"] is False
    assert text("export.reads", program="Ollama", file="", size="")[:20] in deciding.says(deciding.page.export.reads)
    assert deciding.shown[deciding.page.address]["value"]["model"] == session.checkpoint.name  # type: ignore[union-attr]


def test_a_machine_that_is_too_small_is_said_with_the_arithmetic(deciding: Visitor) -> None:
    deciding.do("settle", "own", 0.2, 10, 2048)
    said = deciding.says(deciding.page.where.verdict)
    assert "✗" in said
    assert text("verdict.fits_no", need="", memory="")[:12] in said
    assert deciding.shown[deciding.page.where.own]["visible"] is True
    deciding.do("settle", "gpu80", 1, 1, 2048)
    assert "✓" in deciding.says(deciding.page.where.verdict)
    assert deciding.session.decision.context == 2048
    deciding.do("settle", "this", 1, 1, 12345)
    assert deciding.session.decision.host.memory > 0
    assert deciding.session.decision.context == hosts.DEFAULT_CONTEXT


def test_presets_follow_the_program_and_custom_opens_the_plan(deciding: Visitor) -> None:
    session, page = deciding.session, deciding.page
    for preset in PRESETS:
        deciding.do("take_preset", preset)
        assert session.decision.preset == preset
        assert session.decision.target.refusal(session.plan, session.checkpoint) is None  # type: ignore[arg-type]
    deciding.do("run_in", "studio")
    assert session.decision.preset == "safest"
    assert session.choice == Choice.of("int8_asym")
    deciding.do("take_preset", CUSTOM)
    assert deciding.shown[page.plan.box]["visible"] is True
    deciding.do("run_in", "ollama")  # a plan of one's own stays, and is said not to be read
    assert session.choice == Choice.of("int8_asym")
    assert deciding.shown[page.export.switch]["visible"] is True
    assert text("export.reads_not", program="Ollama") in deciding.says(page.export.reads)
    assert "✗" in deciding.says(page.where.verdict)
    deciding.do("switch_plan")
    assert deciding.shown[page.export.switch]["visible"] is False
    assert session.decision.preset == "balanced"
    deciding.do("undo")
    assert session.choice == Choice.of("int8_asym")
    assert session.decision.preset == CUSTOM
    deciding.do("run_in", "vllm")  # which has to load it: what it joins shares a scheme
    assert session.choice == Choice.of("int8_asym", share_fused=True)
    deciding.do("undo")
    deciding.do("run_in", "openvino")
    assert "LLMPipeline" in deciding.says(page.export.reads)
    deciding.do("run_in", "no such program")
    assert session.decision.program.name == "openvino"


def test_one_button_makes_asks_and_measures(deciding: Visitor) -> None:
    session, page = deciding.session, deciding.page
    deciding.do("take_preset", "smallest")
    deciding.do("queue_make")
    assert deciding.shown[page.presets.make]["interactive"] is False
    deciding.do("make")
    deciding.do("made")
    assert text("make.done") in deciding.says(page.presets.progress)
    assert deciding.shown[page.presets.make]["interactive"] is True
    assert len(session.samples.turns) == 3
    assert deciding.says(page.samples).count('class="sample"') == 3
    assert session.copy.drift is not None
    loss = session.decision.loss()
    assert loss is not None
    assert loss.source == "measured"
    said = deciding.says(page.where.verdict)
    assert figure(loss, "en") in said
    assert text("verdict.measured") in said
    [run] = session.decision.runs
    assert run.evaluation is not None
    assert run.tokens_per_second
    assert "gguf-iq4_xs, " in deciding.says(page.runs.table)
    [line] = csv.DictReader(io.StringIO(as_csv([run])))
    assert float(line["kld"]) == run.evaluation.kld.mean
    assert int(line["bytes"]) == run.nbytes == session.decision.target.size(run.plan)
    [facts] = json.loads(as_json([run]))
    assert Choice.of(**facts["choice"]) == run.choice
    assert facts["command"].startswith("python -m studio compress")
    assert as_markdown([run], "en").count("\n") == 3
    assert {point.kind for point in points(session, "en")} >= {"run"}
    before = session.copy.folder
    deciding.do("queue_make")
    deciding.do("make")  # made already: only asked again
    assert session.copy.folder == before
    assert len(session.decision.runs) == 1

    # A run is planned again by a click, and what is made is told apart from what is planned.
    deciding.do("take_preset", "safest")
    assert text("verdict.take_planned", program="", size="").rpartition(", ")[2] in deciding.says(page.where.verdict)
    deciding.do("load_plan", Clicked(run="run:1"))
    assert session.choice == run.choice
    for nothing in ("run:9", "preset:none", "", "run:x"):
        deciding.do("load_plan", Clicked(plan=nothing))
    deciding.do("load_plan", Clicked(plan="preset:safest"))
    assert session.decision.preset == "safest"

    # Downloaded and read back.
    deciding.do("load_plan", Clicked(run="run:1"))
    deciding.do("export")
    assert deciding.shown[page.export.file]["value"].endswith(".gguf")
    deciding.do("verify")
    assert "byte for byte" in deciding.says(page.export.verified)


def test_a_making_that_is_stopped_says_so_and_what_was_made_stays(
    deciding: Visitor, monkeypatch: pytest.MonkeyPatch
) -> None:
    session, page = deciding.session, deciding.page
    deciding.do("take_preset", "safest")
    deciding.do("queue_make")
    deciding.do("stop_make")
    deciding.do("make")
    assert session.copy.folder is None
    assert deciding.shown[page.presets.make]["interactive"] is True
    assert text("stage.cancelled") in deciding.says(page.presets.progress)

    def stopped(*_: object) -> object:
        raise Cancelled

    monkeypatch.setattr(session.samples, "ask", stopped)
    deciding.do("queue_make")
    deciding.do("make")
    assert session.copy.folder is not None
    assert text("stage.stopped") in deciding.says(page.presets.progress)


def test_a_file_of_others_lands_on_the_chart_and_leaves_the_copy(deciding: Visitor, tmp_path: Path) -> None:
    session, page = deciding.session, deciding.page
    theirs = tmp_path / "<i>theirs"
    packed_folder(session.model.chosen.path, theirs, Gptq(act_order=True, symmetric=False))
    choose(deciding, Choice.of("int8_asym"))
    deciding.compress()
    before = session.copy.folder
    deciding.do("queue_judge")
    assert deciding.shown[page.front.halt]["interactive"] is True
    deciding.do("judge", str(theirs))
    assert text("front.judge_done") in deciding.says(page.front.notice)
    assert deciding.shown[page.front.judge]["interactive"] is True
    assert session.copy.folder == before is not None
    assert session.copy.drift is None
    [point] = [point for point in points(session, "en") if point.kind == "other"]
    assert point.loss.source == "measured"
    assert 0 < point.nbytes < session.model.chosen.weights * 2
    chart = deciding.shown[page.front.chart]["value"]
    assert "&lt;i&gt;theirs" in [label for trace in chart.data for label in trace.text]
    deciding.do("queue_judge")
    deciding.do("judge", str(theirs))
    assert len(session.decision.runs.judged) == 1


@pytest.mark.parametrize(("name", "words"), [("", "No file is named"), ("second", "“gpt2” model")])
def test_what_cannot_be_judged_is_said_beside_the_button(
    deciding: Visitor, models: dict[str, str], name: str, words: str
) -> None:
    front = deciding.page.front
    deciding.do("queue_judge")
    deciding.do("judge", models.get(name, ""))
    assert words in deciding.says(front.notice)
    assert "error" in deciding.says(front.notice)
    assert deciding.shown[front.judge]["interactive"] is True
    assert deciding.session.decision.runs.judged == []


def test_where_no_paths_are_taken_none_is_judged(deciding: Visitor, models: dict[str, str]) -> None:
    deciding.session._paths = False
    deciding.do("judge", models["first"])
    assert "is no model" in deciding.says(deciding.page.front.notice)


def test_judging_that_is_stopped_says_so(deciding: Visitor, models: dict[str, str]) -> None:
    deciding.do("queue_judge")
    deciding.do("stop_judge")
    deciding.do("judge", models["first"])
    assert text("stage.stopped") in deciding.says(deciding.page.front.notice)
    assert deciding.session.decision.runs.judged == []


def test_a_machines_memory_is_a_budget_of_the_page(deciding: Visitor) -> None:
    session, page = deciding.session, deciding.page
    room = "fits:400300000B@64"  # a quarter is the system's, 300 MB the program's: some 200 kB are left
    choose(deciding, Choice.of(budget=room, target="studio"))
    assert session.plan is not None
    assert session.plan.choice.budget is not None
    left = session.plan.choice.budget.left
    assert left is not None
    assert session.plan.compressed_bytes <= left < session.plan.original_bytes
    assert deciding.shown[page.address]["value"]["budget"] == room
    other = Session(paths=True)
    follow(other, deciding.shown[page.address]["value"])
    assert other.decision.asked == session.choice
    choose(deciding, Choice.of(budget="fits:0.1GB@64"))
    assert "at least" in deciding.says(page.plan.progress)
    choose(deciding, Choice.of(budget="fits:8GB@900000k"))
    assert "256" in deciding.says(page.plan.progress)
    assert session.choice.budget == Choice.of(budget=room).budget


def test_verify_without_a_file_is_one_sentence(deciding: Visitor) -> None:
    deciding.do("verify")
    assert text("error.nothing_to_verify") in deciding.says(deciding.page.export.progress)


@pytest.mark.parametrize("language", LANGUAGES)
def test_everything_is_said_in_every_language(deciding: Visitor, language: str) -> None:
    before = verdict(deciding.session, "en"), deciding.says(deciding.page.export.reads)
    deciding.language = language
    deciding.do("speak")
    after = verdict(deciding.session, language), deciding.says(deciding.page.export.reads)
    assert (after[0] == before[0]) == (after[1] == before[1]) == (language == "en")
    assert unescape(after[0]) in deciding.says(deciding.page.where.verdict)
    assert front_chart(deciding.session, language).layout.xaxis.title.text == text("front.size", language)


@pytest.mark.parametrize(
    "choice",
    [
        Choice.of("int4_asym", 32, 0.5, method="best"),
        Choice.of("nf4", pins=["model.layers.0.*=int8_asym", "*.1.*=none"], all_layers=True),
        Choice.of("q4_0", mix="q4_k_m"),
        Choice(),
    ],
    ids=["mixed", "pinned", "mix", "default"],
)
def test_an_address_leads_back_to_its_plan(deciding: Visitor, models: dict[str, str], choice: Choice) -> None:
    deciding.do("take_preset", CUSTOM)
    deciding.session.planner.choose(choice)
    deciding.do("settle", "phone", 1, 1, 4096)
    said = address(deciding.session)
    assert len(urlencode(said)) < 600
    other = Session(paths=True)
    follow(other, said)
    for _ in other.open(models["first"]):
        pass
    assert other.choice == choice
    assert other.decision.host.name == "phone"
    assert other.decision.context == 4096
    other.close()


def test_an_address_that_is_wrong_is_left_aside(models: dict[str, str]) -> None:
    session = Session(paths=True)
    follow(
        session,
        {"mode": "int99", "host": "<script>", "context": "x", "program": "rm", "preset": "all", "x": "y" * 9999},
    )
    for _ in session.open(models["first"]):
        pass
    assert session.choice == Choice(group_size=session.choice.group_size)
    assert session.decision.preset == CUSTOM
    session.close()


def test_a_browser_that_comes_back_finds_its_runs_and_its_machine(deciding: Visitor, page: Page) -> None:
    deciding.do("settle", "own", 12, 90, 4096)
    deciding.do("take_preset", "safest")
    deciding.do("queue_make")
    deciding.do("make")
    kept = deciding.shown[page.kept]["value"]
    assert set(map(type, kept.values())) <= {str, int, float, type(None)}
    back = Visitor(page, Session(paths=True))
    back.do("recall", kept)
    assert [run.number for run in back.session.decision.runs] == [1]
    assert "q8_0" in back.says(page.runs.table)
    assert back.session.decision.host == deciding.session.decision.host
    assert back.session.decision.context == 4096
    wrong = {"key": 5, "host": {}, "memory": "much", "context": [], "language": "klingon"}
    given: tuple[Any, ...] = (None, [], "x", wrong)
    for strange in given:
        stranger = Visitor(page, Session(paths=True))
        stranger.do("recall", strange)
        assert len(stranger.session.decision.runs) == 0


def test_what_a_model_answers_in_markup_stays_words(deciding: Visitor, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(decision_handlers, "prompts", lambda *_: ["<img src=x onerror=alert(1)>"])
    deciding.do("take_preset", "safest")
    deciding.do("queue_make")
    deciding.do("make")
    shown = str(deciding.shown[deciding.page.samples]["value"])
    assert "<img" not in shown
    assert "&lt;img src=x" in shown
    assert well_formed(shown) == shown


def test_a_plan_of_ones_own_is_a_point_of_the_chart(deciding: Visitor) -> None:
    choose(deciding, Choice.of("int4_asym", 32))
    deciding.do("measure")
    assert not deciding.session.is_unmeasured
    labels = [label for label, _ in deciding.shown[deciding.page.presets.preset]["choices"]]
    assert [label.count("\n") for label in labels] == [2, 2, 2, 1]  # name, size and loss; custom has none
    kinds = [point.kind for point in points(deciding.session, "en")]
    assert kinds.count("shown") == 1
    assert kinds.count("preset") == len(PRESETS)
    assert making.JOBS == ("compress", "chat", "drift")
