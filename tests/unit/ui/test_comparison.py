"""Two runs compared: in one sentence that says no more than the windows can tell, and by maps of one scale."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from studio.base.text import LANGUAGES
from studio.checkpoint.checkpoint import of_folder
from studio.checkpoint.layers import Kind
from studio.evaluation.figures import Evaluation, WindowMean
from studio.planning.choice import Choice
from studio.planning.plan import make_plan
from studio.session.opened_model import OpenedModel
from studio.session.runs import Run
from studio.session.session import Session
from studio.ui.comparison import comparison, difference
from studio.ui.runs_table import runs_table

NOTHING = WindowMean(0.0, None)


def evaluation(*windows: float) -> Evaluation:
    mean = WindowMean(sum(windows) / len(windows), 0.01)
    return Evaluation(NOTHING, NOTHING, mean, 0.0, 0.0, NOTHING, 512, 2, 2, kld_of_windows=windows)


@pytest.fixture
def session(tiny_model: Callable[[str], Path], tmp_path: Path) -> Session:
    session = Session(workspace=tmp_path)
    model = OpenedModel.of(of_folder(tiny_model("llama")))
    session.planner.take(model)
    layers = model.chosen.layers
    names = [layer.name for layer in layers if layer.kind is Kind.LINEAR]
    model.figures = {"damage": {name: {"int4_asym-g32": 0.03, "nf4-g32": 0.001} for name in names}}
    found = {"int4_asym": evaluation(0.5, 0.3, 0.4), "nf4": evaluation(0.1, 0.12, 0.09)}
    for mode, each in found.items():
        plan = make_plan(layers, Choice.of(mode, 32, 1.0))
        session.decision.runs.keep(Run(0, mode, model.chosen.name, plan, "studio", 1000, 1.0, None, each))
    return session


@pytest.mark.parametrize("language", LANGUAGES)
def test_the_better_one_is_named_with_what_it_gains_on_the_same_windows(session: Session, language: str) -> None:
    runs = session.decision.runs
    assert "tick" in comparison(session, "en").lower()
    runs.tick(1)
    runs.tick(2)
    html = comparison(session, language)
    assert "0.2967 ± " in html
    assert html.count('class="heat"') == 2
    assert html.count("0.0001") >= 2  # both maps have the ends of one scale, though one has nothing above 0.001
    table = runs_table(session, language)
    assert table.count(" checked") == 2


def test_no_more_is_said_than_the_windows_can_tell(session: Session) -> None:
    first, second = session.decision.runs
    alike = replace(second, evaluation=evaluation(0.5, 0.29, 0.42))
    assert "the same" in difference(first, alike, "en")
    assert "not measured on the same text" in difference(first, replace(second, measured_on="mine.txt"), "en")
    assert "not measured on the same text" in difference(first, replace(second, evaluation=None), "en")
