"""The map: what a cell of many weights says of them, and why one is grey."""

import math
import re

import pytest

from studio.base.text import LANGUAGES, text
from studio.base.units import format_bytes
from studio.checkpoint.layers import Kind, Layer
from studio.checkpoint.stored_as import StoredAs
from studio.planning.choice import Choice, Pin
from studio.planning.figures import FIGURES
from studio.planning.plan import Plan, make_plan
from studio.quantization.scheme import Mode, Scheme
from studio.ui.heatmap import Cell, cells, heatmap
from studio.ui.map_text import layer_table

EXPERTS = 5
CHOICE = Choice(Mode.INT4_ASYM, 32, 0.5)


def a_mixture(blocks: int = 2) -> list[Layer]:
    """Return the layers of a model with experts held one by one, of which one is smaller, and others in one tensor."""
    layers = []
    for block in range(blocks):
        shapes: dict[str, tuple[int, ...]] = {"q_proj.weight": (64, 64), "experts": (3, 32, 64)}
        shapes |= {f"mlp.experts.{i}.up.weight": (64 if i else 32, 64) for i in range(EXPERTS)}
        layers += [Layer(f"model.layers.{block}.{name}", (name,), Kind.LINEAR, shape) for name, shape in shapes.items()]
    return layers


def plan_of(choice: Choice = CHOICE) -> Plan:
    layers = a_mixture()
    return make_plan(layers, choice, {layer.name: float(i % 4) for i, layer in enumerate(layers)})


def cell_of(plan: Plan, projection: str) -> Cell:
    return cells(plan)[2][projection, 1]


def words(html: str) -> dict[str, str]:
    """Return what each cell says, by what a click on it names."""
    return dict(re.findall(r'data-layer="([^"]*)" aria-label="([^"]*)"', html))


def test_experts_held_one_by_one_share_a_cell() -> None:
    rows, columns, places = cells(plan_of())
    assert rows == ["q_proj", "experts", "mlp.experts.*.up"]
    assert columns == [0, 1]
    assert {len(places[rows[2], block].members) for block in columns} == {EXPERTS}
    assert places[rows[2], 1].pattern == "model.layers.1.mlp.experts.*.up.weight"
    assert places[rows[0], 1].pattern == "model.layers.1.q_proj.weight"


@pytest.mark.parametrize("choice", [CHOICE, Choice(Mode.NF4, 64, 0.3, None), Choice(Mode.INT8_SYM)], ids=str)
def test_a_cell_adds_up_its_members(choice: Choice) -> None:
    for cell in cells(plan_of(choice))[2].values():
        assert cell.nbytes == sum(a.nbytes for a in cell.members)
        assert cell.bits == max(16 if a.scheme is None else a.scheme.mode.bits for a in cell.members)
        assert cell.schemes == list(dict.fromkeys(a.scheme for a in cell.members))


def test_the_error_of_several_is_that_of_all_their_numbers() -> None:
    cell = cell_of(plan_of(), "mlp.experts.*.up")
    errors = {a.layer.name: 0.1 * (i + 1) for i, a in enumerate(cell.members)}
    squares = [errors[a.layer.name] ** 2 * a.layer.numel for a in cell.members]
    whole = math.sqrt(sum(squares) / sum(a.layer.numel for a in cell.members))
    assert cell.error(errors) == pytest.approx(whole)
    assert cell.error(dict(list(errors.items())[1:])) is None
    assert cell_of(plan_of(), "q_proj").error({"model.layers.1.q_proj.weight": 0.25}) == 0.25


def test_damages_of_several_add_up() -> None:
    plan = plan_of()
    cell = cell_of(plan, "mlp.experts.*.up")
    damages = {a.layer.name: 0.01 * (i + 1) for i, a in enumerate(cell.members)}
    whole = sum(damages.values())
    assert cell.error(damages, adds_up=True) == pytest.approx(whole)
    said = words(heatmap(plan, damages, "en", figure=FIGURES["damage"]))
    assert said[cell.pattern].endswith(text("figure.damage.hover", value=f"{whole:.2g}"))


@pytest.mark.parametrize("language", LANGUAGES)
def test_a_grey_cell_says_why_it_has_no_error(language: str) -> None:
    plan = plan_of()
    errors = {a.layer.name: 0.1 for a in plan.assignments}
    errors |= {"model.layers.1.experts": math.nan, "model.layers.1.q_proj.weight": math.nan}
    html = heatmap(plan, errors, language)
    said = words(html)
    assert html.count(" never") == 2
    assert said["model.layers.1.experts"].endswith(text("map.hover_experts", language))
    assert said["model.layers.1.q_proj.weight"].endswith(text("map.hover_never", language))
    assert said["model.layers.0.experts"].endswith(text("figure.weight.hover", language, value="10.00%"))


def test_a_cell_says_what_its_weights_become() -> None:
    plan = plan_of(Choice(Mode.INT4_ASYM, 32, pins=(Pin("*.experts.0.*", None), Pin("*q_proj", Scheme(Mode.NF4, 64)))))
    said = words(heatmap(plan, None, "en"))
    cell = cell_of(plan, "mlp.experts.*.up")
    assert said[cell.pattern] == text(
        "map.hover",
        projection="mlp.experts.*.up",
        block=1,
        scheme="16 bits, int4_asym-g32",
        shape="5 × 32 × 64",
        bytes=format_bytes(cell.nbytes),
    )
    assert "4 bits, nf4-g64" in said["model.layers.1.q_proj.weight"]


def test_a_cell_says_what_its_weights_came_as() -> None:
    plan = plan_of()
    cell = cell_of(plan, "mlp.experts.*.up")
    kinds = ["Q4_K", "Q6_K"]
    came = {a.layer.name: StoredAs(a.layer.name, kinds[i % 2], a.layer.shape, 1) for i, a in enumerate(cell.members)}
    said = words(heatmap(plan, None, "en", came=came))
    assert said[cell.pattern].endswith(text("map.hover_came", type="Q4_K, Q6_K"))
    assert not said["model.layers.1.q_proj.weight"].endswith(text("map.hover_came", type="Q4_K"))


def test_the_table_has_a_column_for_it_where_there_is_something_to_tell() -> None:
    plan = plan_of()
    name = plan.assignments[0].layer.name
    column = text("map.column_came")
    assert column not in layer_table(plan, None, "en")
    html = layer_table(plan, None, "en", came={name: StoredAs(name, "IQ4_XS", (2, 2), 1234)})
    assert column in html
    assert "IQ4_XS, 1,234" in html
