"""A budget is shared out by predicted loss: within it, best of all, monotone, pins kept, experts together."""

from dataclasses import replace
from itertools import islice, pairwise

import pytest

from studio.base.errors import SchemeError
from studio.checkpoint.layers import Kind, Layer
from studio.planning.allotment import Damages, bounds
from studio.planning.choice import Choice
from studio.planning.knapsack import TOLERANCE
from studio.planning.mixes import MIXES
from studio.planning.palettes import PALETTES
from studio.planning.plan import Plan, make_plan
from tests import rivals
from tests.unit.planning.test_plan import a_layer, a_model

TARGETS = pytest.mark.parametrize("target", [name for name in PALETTES if name != "compressed-tensors"])
"""That one keeps embeddings at 16 bits, so that it begins at others' 7 bits a weight."""


def damages(layers: list[Layer], target: str = "gguf", without: str = "") -> dict[str, dict[str, float]]:
    """Return damages that differ from layer to layer, a quarter for every bit more."""
    weights = [layer for layer in layers if layer.is_weight and layer.name != without]
    return {
        layer.name: {
            str(scheme): (1 + index % 7) * 1e-6 * layer.numel * 0.25 ** (8 * scheme.nbytes(layer.matrix) / layer.numel)
            for scheme in PALETTES[target].fitting(layer.matrix[1])
        }
        for index, layer in enumerate(weights)
    }


def plan(words: str, target: str = "gguf", known: Damages | None = None, **more: object) -> Plan:
    layers = a_model()
    choice = Choice.of(budget=words, target=target, **more)  # type: ignore[arg-type]
    return make_plan(layers, choice, damages=damages(layers, target) if known is None else known)


def predicted(found: Plan, target: str = "gguf") -> float:
    known = damages(a_model(), target)
    return sum(known[a.layer.name][str(a.scheme)] for a in found.assignments if a.scheme is not None)


def held(found: Plan) -> int:
    return sum(PALETTES[found.choice.target].nbytes(a.layer, a.scheme) for a in found.assignments)


@TARGETS
@pytest.mark.parametrize("words", ["4.7bpw", "5bpw", "40%", "60%", "q5_k_m", "q8_0"])
def test_the_bytes_are_within_the_budget_and_nearly_all_used(target: str, words: str) -> None:
    found = plan(words, target)
    budget = found.choice.budget
    assert budget is not None
    limit = budget.limit(a_model(), PALETTES[target])
    assert 0.97 * limit < held(found) <= limit
    assert found.is_exact


@pytest.mark.parametrize("mix", ["q4_k_m", "q5_k_m", "q6_k", "q4_0"])
def test_at_a_mixes_bytes_it_is_predicted_to_lose_no_more_than_the_mix(mix: str) -> None:
    theirs = make_plan(a_model(), Choice.of(mix=mix))
    found = plan(mix)
    assert held(found) <= theirs.compressed_bytes + sum(
        2 * a.layer.numel for a in theirs.assignments if not a.layer.is_weight
    )
    assert predicted(found) <= predicted(theirs)


@pytest.mark.parametrize("target", PALETTES)
def test_more_bytes_never_predict_more_loss(target: str) -> None:
    first = 27 if target == "compressed-tensors" else 19
    losses = [predicted(plan(f"{bits / 4}bpw", target), target) for bits in range(first, 60)]
    assert all(after <= before * (1 + TOLERANCE) for before, after in pairwise(losses))


@TARGETS
@pytest.mark.parametrize("words", ["1kB", "1bpw", "17bpw", "5GB", "110%"])
def test_what_cannot_be_is_refused_with_what_can(target: str, words: str) -> None:
    with pytest.raises(SchemeError) as caught:
        plan(words, target)
    assert caught.value.key == "budget_range"
    assert set(caught.value.values) == {"budget", "limit", "low", "high"}


@pytest.mark.parametrize("target", PALETTES)
def test_a_machine_with_room_for_more_takes_the_largest_that_can_be(target: str) -> None:
    def in_a_room(nbytes: int) -> Plan:
        choice = Choice.of(budget="fits:gpu80", target=target)
        assert choice.budget is not None
        settled = replace(choice, budget=replace(choice.budget, left=nbytes))
        return make_plan(a_model(), settled, damages=damages(a_model(), target))

    largest = in_a_room(1 << 40)
    assert {largest.scheme_of(layer.name) for layer in a_model() if layer.is_weight} == {None}
    assert held(in_a_room(held(largest))) == held(largest)
    assert held(in_a_room(held(largest) - 1)) < held(largest)
    with pytest.raises(SchemeError) as caught:
        in_a_room(1000)
    assert caught.value.key == "budget_range"


def test_pins_are_kept_and_paid_for() -> None:
    pinned = plan("8bpw", pins=["*.up_proj=q8_0", "embed=none"])
    assert {str(a.scheme) for a in pinned.assignments if "up_proj" in a.layer.name} == {"q8_0"}
    assert pinned.scheme_of("embed.weight") is None
    assert "embed.weight" in pinned.pinned
    with pytest.raises(SchemeError, match="at least"):
        plan("5bpw", pins=["*=q8_0"])
    with pytest.raises(SchemeError, match="at least"):
        plan("12bpw", pins=["*=q8_0"])


def test_a_tied_head_is_one_tensor() -> None:
    layers = a_model(tied=True)
    found = make_plan(layers, Choice.of(budget="5bpw", target="gguf"), damages=damages(layers))
    assert [a.layer.name for a in found.assignments] == [layer.name for layer in layers]
    assert found.scheme_of("embed.weight") is not None


def test_experts_of_a_block_have_one_scheme() -> None:
    names = [f"model.layers.{b}.mlp.experts.{e}.up_proj.weight" for b in range(3) for e in range(4)]
    layers = [a_layer(name, Kind.LINEAR, (64, 256)) for name in names]
    found = make_plan(layers, Choice.of(budget="5bpw", target="gguf"), damages=damages(layers))
    for block in range(3):
        assert len({str(a.scheme) for a in found.assignments if f"layers.{block}." in a.layer.name}) == 1


def test_without_damages_it_is_an_estimate_within_the_budget() -> None:
    found = plan("5bpw", known={})
    assert not found.is_exact
    assert held(found) <= sum(layer.numel for layer in a_model()) * 5 // 8


def test_what_cannot_be_measured_counts_as_the_median_does() -> None:
    name = "b.1.q_proj.weight"
    known = damages(a_model(), without=name) | {name: {}}
    found = plan("5bpw", known=known)
    assert found.is_exact
    assert found.scheme_of(name) is not None


def test_a_scheme_that_is_not_measured_yet_makes_it_an_estimate() -> None:
    known = damages(a_model())
    del known["b.0.q_proj.weight"]["q4_0"]
    assert not plan("5bpw", known=known).is_exact


@pytest.mark.parametrize("mix", MIXES)
def test_every_mixes_bytes_can_be_had(mix: str) -> None:
    assert held(plan(mix)) > 0


def in_every_scheme(layers: list[Layer]) -> dict[str, dict[str, float]]:
    """Return damages in the schemes of the studio and of GGUF alike, in which layers differ."""
    ours, theirs = damages(layers, "studio"), damages(layers, "gguf")
    return {name: ours[name] | theirs[name] for name in ours}


def no_worse(target: str, others: list[rivals.Schemes]) -> list[bool]:
    layers = a_model()
    known = in_every_scheme(layers)
    found = []
    for theirs in others:
        size = rivals.nbytes(layers, theirs, PALETTES[target])
        ours = rivals.of_budget(layers, size, target, known)
        assert rivals.nbytes(layers, ours, PALETTES[target]) <= size
        found.append(rivals.loss(ours, known) <= rivals.loss(theirs, known) * (1 + TOLERANCE))
    return found


@pytest.mark.parametrize("by", ["damage", "nncf"])
def test_it_loses_no_more_than_a_ratio_in_fifty_of_fifty(by: str) -> None:
    layers = a_model()
    scores = {layer.name: float(index * 7 % 5) for index, layer in enumerate(layers)} if by == "nncf" else None
    assert no_worse("studio", list(rivals.by_ratio(layers, in_every_scheme(layers), scores, 50))) == [True] * 50


def test_it_loses_no_more_than_llama_cpps_rule_in_fifty_of_fifty() -> None:
    assert no_worse("gguf", list(islice(rivals.by_rule(a_model()), 50))) == [True] * 50


@pytest.mark.parametrize("target", ["studio", "gguf"])
def test_it_loses_no_more_than_greedy_steps_in_fifty_of_fifty(target: str) -> None:
    layers = a_model()
    low, high = bounds(layers, PALETTES[target])
    limits = [low + (high - low) * step // 49 for step in range(50)]
    others = [rivals.greedy(layers, limit, target, in_every_scheme(layers)) for limit in limits]
    assert no_worse(target, others) == [True] * 50


@pytest.mark.parametrize("target", PALETTES)
def test_the_smallest_that_can_be_is_what_is_said(target: str) -> None:
    low, high = bounds(a_model(), PALETTES[target])
    assert low < high
    assert held(plan(f"{low}B", target)) == low
    assert held(plan(f"{high}B", target)) <= high
    with pytest.raises(SchemeError):
        plan(f"{low - 1}B", target)
