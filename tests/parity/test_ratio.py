"""The layers that a ratio gives 4 bits, and the table of what became of all, are NNCF's on the built-in model."""

from collections.abc import Mapping

import pytest
from torch import Tensor

from studio.checkpoint.checkpoint import Checkpoint
from studio.checkpoint.layers import Kind, ratio_defining
from studio.planning import survey
from studio.planning.choice import Choice
from studio.planning.plan import Plan, make_plan
from studio.quantization.scheme import Mode, Scheme
from tests.parity.nncf_side import constants, listening, model, nncf
from tests.parity.selection import Selection, our_table, table
from tests.steps import finish

MODE, GROUP = Mode.INT4_ASYM, 64
pytestmark = pytest.mark.real


def sensitivities(checkpoint: Checkpoint) -> dict[str, float]:
    return finish(survey.sensitivities(checkpoint))


def linear_weights(checkpoint: Checkpoint) -> dict[str, Tensor]:
    return {layer.name: checkpoint.read(layer) for layer in ratio_defining(checkpoint.layers)}


def embedding(checkpoint: Checkpoint) -> tuple[str, Tensor]:
    layer = next(layer for layer in checkpoint.layers if layer.kind is Kind.EMBEDDING)
    return layer.name, checkpoint.read(layer)


def plan(checkpoint: Checkpoint, scores: Mapping[str, float], ratio: float) -> Plan:
    return make_plan(checkpoint.layers, Choice(MODE, GROUP, ratio, Mode.INT8_ASYM), scores)


def primary(planned: Plan) -> set[str]:
    return {a.layer.name for a in planned.assignments if a.scheme == Scheme(MODE, GROUP)}


@pytest.fixture(scope="module")
def selection(builtin: Checkpoint) -> Selection:
    return Selection(linear_weights(builtin), embedding(builtin), MODE, GROUP)


@pytest.fixture(scope="module")
def scores(builtin: Checkpoint) -> dict[str, float]:
    return sensitivities(builtin)


@pytest.mark.parametrize("ratio", [0.05, 0.5, 0.8, 1.0], ids="ratio{}".format)
def test_the_same_layers_and_the_same_table(
    builtin: Checkpoint, selection: Selection, scores: dict[str, float], ratio: float
) -> None:
    names, rows = selection.at(ratio)
    planned = plan(builtin, scores, ratio)
    assert primary(planned) == names
    assert our_table(planned.distribution()) == rows


def test_the_order_of_sensitivity_is_nncf_s(selection: Selection, scores: dict[str, float]) -> None:
    """The scores are not: to one over the error NNCF adds the weight's own epsilon, which in fp16 is far larger."""
    selection.at(0.5)
    ours = {name: scores[name] for name in selection.scores}
    assert sorted(ours, key=ours.__getitem__) == sorted(selection.scores, key=selection.scores.__getitem__)


def test_the_algorithm_asked_alone_answers_as_the_public_function(builtin: Checkpoint) -> None:
    """One block, so that it is quick: layers, as the constants of the compressed model say, and the printed table."""
    weights = {name: weight for name, weight in linear_weights(builtin).items() if ".layers.3." in name}
    table_of_tokens = ("embedding", embedding(builtin)[1][:64])
    names, rows = Selection(weights, table_of_tokens, MODE, GROUP).at(0.6)
    with listening() as said:
        compressed = nncf.compress_weights(
            model(weights, table_of_tokens, tied=True),
            mode=nncf.CompressWeightsMode(MODE.value),
            group_size=GROUP,
            ratio=0.6,
        )
    found = constants(compressed)
    assert {name for name in weights if found[name].get_element_type().to_string() == "u4"} == names
    assert 0 < len(names) < len(weights)
    assert table(said.getvalue()) == rows
