"""An estimate is drawn as one, and never where a figure was measured."""

import re
from dataclasses import replace
from pathlib import Path

import pytest

from studio.base.errors import SchemeError
from studio.planning.choice import Choice
from studio.planning.plan import make_plan
from studio.planning.sampled_survey import Interval, SampledLayer
from studio.planning.survey_file import LayerSurvey, Survey
from studio.planning.weight_error import FIGURE
from studio.quantization.scheme import Mode, Scheme
from studio.session.opened_model import OpenedModel
from studio.session.session import Session
from studio.ui import map_text, present
from studio.ui.heatmap import about, cells, heatmap
from studio.ui.sampled_map import estimates, is_offered, needs_whole, offer
from tests.small import random, saved

UP, DOWN = "b.0.up.weight", "b.0.down.weight"
SAMPLED = SampledLayer({"int4_asym-g32": Interval(0.09, 0.08, 0.11), "int8_asym": Interval(0.01, 0.009, 0.02)}, 5.0, 16)


@pytest.fixture
def session(tmp_path: Path) -> Session:
    """A visitor whose model is on the Hub, and sampled in the plan's schemes."""
    weights = {UP: random(96, 64), DOWN: random(64, 128), "embed.weight": random(50, 64)}
    checkpoint = replace(saved(tmp_path / "model", weights), folder=None)
    visitor = Session(workspace=tmp_path / "workspace")
    visitor.planner.take(OpenedModel(checkpoint, sample_bytes=2_500_000))
    visitor.planner.choose(Choice(group_size=32))
    visitor.model.sampled = dict.fromkeys(weights, SAMPLED)
    return visitor


def drawn(session: Session) -> str:
    known = map_text.known_of(session, map_text.weight_errors(session))
    assert known is not None
    return heatmap(known.plan, FIGURE.on_map(known), "en", FIGURE.estimates(known))


def test_every_figure_of_a_sample_looks_like_an_estimate(session: Session) -> None:
    assert session.plan is not None
    assert drawn(session).count("guessed") == 2
    assert "~9.00% (95 %: 8.00% to 11.00%)" in drawn(session)
    strip = present.strip(session, None, "en")
    assert re.search(r'class="figure estimate"[^>]*data-figure="error"><dt>[^<]*</dt><dd>~\s6\.33%</dd>', strip)
    guessed = estimates(session, None)
    legend = map_text.map_legend(session.plan, FIGURE, {"embed.weight": 0.01}, "en", guessed)
    assert ", ~1.00%</button>" in legend
    assert "estimated from some rows" in legend
    assert map_text.layer_table(session.plan, None, "en", guessed).count("~") == 3
    assert map_text.layer_card(session, UP, "en").count("~") == 2


def test_a_measured_figure_takes_the_place_of_an_estimate(session: Session) -> None:
    session.model.known = Survey({UP: LayerSurvey({"int4_asym-g32": 0.1}, 1.0)})
    found = map_text.weight_errors(session)
    assert found == {UP: 0.1}
    assert estimates(session, found).keys() == {DOWN, "embed.weight"}
    assert drawn(session).count("guessed") == 1
    assert "error 10.00%" in drawn(session)
    assert map_text.layer_card(session, UP, "en").count("~") == 1, "of its other scheme"
    assert "~" in present.strip(session, found, "en")


def test_without_an_estimate_nothing_says_so(session: Session) -> None:
    session.model.sampled = {}
    assert estimates(session, None) == {}
    known = map_text.known_of(session)
    assert known is not None
    assert FIGURE.on_map(known) is None
    assert "guessed" not in drawn(session)
    assert "~" not in present.strip(session, None, "en")


def test_a_sample_is_offered_where_it_tells_something_new(session: Session) -> None:
    assert not is_offered(session, None)
    session.planner.choose(Choice(Mode.INT4_SYM, 32))
    assert is_offered(session, None)
    assert offer(session, "en").startswith("Estimate the map: read 2.5 MB of ")
    session.model.sampled = {}
    session.planner.choose(Choice(group_size=32))
    assert is_offered(session, None)
    assert session.checkpoint is not None
    session.model.checkpoint = replace(session.checkpoint, folder=Path("here"))
    assert not is_offered(session, None), "it is measured instead"
    assert not is_offered(Session(), None)


def test_modes_that_need_the_whole_layer_say_why_they_have_none(session: Session) -> None:
    assert needs_whole(session, "en") == ""
    session.planner.choose(Choice(Mode.NVFP4, backup=Mode.INT8_ASYM))
    assert "nvfp4" in needs_whole(session, "en")
    assert estimates(session, None).keys() == {"embed.weight"}
    assert not is_offered(session, None)


def test_experts_that_share_a_cell_share_an_interval(tmp_path: Path) -> None:
    names = [f"b.0.experts.{i}.up.weight" for i in range(2)]
    checkpoint = saved(tmp_path / "model", {name: random(32, 64) for name in names})
    plan = make_plan(checkpoint.layers, Choice(group_size=32))
    [cell] = cells(plan)[2].values()
    guessed = {names[0]: Interval(0.03, 0.0, 0.06)}
    assert cell.interval({names[0]: 0.03, names[1]: 0.04}, {}) is None
    found = cell.interval({names[0]: 0.03, names[1]: 0.04}, guessed)
    assert found is not None
    root = 2**0.5
    assert (found.error, found.low, found.high) == pytest.approx((0.05 / root, 0.04 / root, 0.0052**0.5 / root))
    assert about(found, "en") in heatmap(plan, {names[0]: 0.03, names[1]: 0.04}, "en", guessed)


def test_a_plan_from_a_sample_of_all_layers_is_an_estimate(session: Session) -> None:
    checkpoint = session.model.chosen
    choice = Choice(Mode.INT4_ASYM, 32, 0.6)
    by_order = OpenedModel(checkpoint).plan(choice)
    low, high = SampledLayer({}, 1.0, 1), SampledLayer({}, 9.0, 1)
    by_sample = OpenedModel(checkpoint, sampled={UP: high, DOWN: low, "embed.weight": low}).plan(choice)
    assert by_sample.scheme_of(UP) == Scheme(Mode.INT8_ASYM)
    assert by_sample.scheme_of(DOWN) == Scheme(Mode.INT4_ASYM, 32)
    assert not by_sample.is_exact
    assert by_order.assignments != by_sample.assignments
    assert OpenedModel(checkpoint, sampled={UP: high}).plan(choice) == by_order, "of some layers it ranks none"
    scores = {UP: 1.0, DOWN: 9.0, "embed.weight": 1.0}
    exact = OpenedModel(checkpoint, scores=scores, sampled={UP: high, DOWN: low, "embed.weight": low}).plan(choice)
    assert exact == make_plan(checkpoint.layers, choice, scores)
    assert exact.is_exact
    with pytest.raises(SchemeError):
        OpenedModel(checkpoint).plan(Choice(group_size=256))
