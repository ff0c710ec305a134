"""What vLLM makes one module of has one scheme where a plan is asked to: by ratio, by budget, by pins, for experts."""

from typing import Any

import pytest

from studio.checkpoint.layers import Kind, Layer
from studio.export.compressed_tensors.target import TARGET as COMPRESSED_TENSORS
from studio.export.compressed_tensors.vllm import cautions
from studio.planning.choice import Choice
from studio.planning.fused import JOINED, lots
from studio.planning.plan import Plan, make_plan
from studio.planning.presets import preset_choice
from studio.quantization.scheme import Mode, Scheme
from tests.unit.planning.test_allotment import damages
from tests.unit.planning.test_plan import a_layer

ROWS = {"self_attn.q_proj": 256, "self_attn.k_proj": 64, "self_attn.v_proj": 64, "self_attn.o_proj": 256,
        "mlp.gate_proj": 512, "mlp.up_proj": 512, "mlp.down_proj": 256}  # fmt: skip
LAYERS = [
    a_layer(f"model.layers.{block}.{name}.weight", Kind.LINEAR, (rows, 256))
    for block in range(4)
    for name, rows in ROWS.items()
]
EXPERTS = [
    a_layer(f"model.layers.{block}.mlp.experts.{expert}.{part}.weight", Kind.LINEAR, (128, 128))
    for block in range(3)
    for expert in range(3)
    for part in ("gate_proj", "up_proj", "down_proj")
]


def scores(layers: list[Layer]) -> dict[str, float]:
    """Sensitivities by which parts of one module are far apart."""
    return {layer.name: float((11 * index + 3) % 29) for index, layer in enumerate(layers)}


def shared(plan: Plan) -> bool:
    return all(len({plan.scheme_of(layer.name) for layer in lot}) == 1 for lot in lots(LAYERS, JOINED))


@pytest.mark.parametrize("ratio", [0.2, 0.5, 0.8, 0.95])
def test_a_ratio_takes_what_is_fused_as_one_weight(ratio: float) -> None:
    apart, together = (
        make_plan(LAYERS, Choice.of("int4_sym", 64, ratio, "int8_sym", share_fused=share), scores(LAYERS))
        for share in (False, True)
    )
    assert not shared(apart)
    assert [error.key for error in cautions(apart)] == ["vllm_unlike"]
    assert shared(together)
    assert cautions(together) == []
    small = sum(a.layer.numel for a in together.assignments if a.scheme == Scheme.parse("int4_sym-g64"))
    assert 0 < small / sum(layer.numel for layer in LAYERS) < ratio or ratio == 0.2  # the first lot may be larger


def test_a_lot_is_ranked_by_its_mean_score_a_weight() -> None:
    """k and v alone would come first, q makes the three come last."""
    costs = {"q_proj": 9.0, "k_proj": 0.0, "v_proj": 0.0}
    known = {layer.name: costs.get(layer.name.split(".")[-2], 5.0) for layer in LAYERS}
    plan = make_plan(LAYERS, Choice.of("int4_sym", 64, 0.9, "int8_sym", share_fused=True), known)
    kept = {a.layer.name.split(".")[-2] for a in plan.assignments if a.scheme == Scheme.parse("int8_sym")}
    assert kept == {"q_proj", "k_proj", "v_proj"}


@pytest.mark.parametrize("target", ["studio", "mlx", "openvino"])
def test_a_budget_for_any_target_can_be_asked_to(target: str) -> None:
    known = damages(LAYERS, target)
    known |= {layer.name: {s: d * (1 + i % 5) for s, d in known[layer.name].items()} for i, layer in enumerate(LAYERS)}
    words: dict[str, Any] = {"budget": "5bpw", "target": target}
    assert not shared(make_plan(LAYERS, Choice.of(**words), damages=known))
    plan = make_plan(LAYERS, Choice.of(**words, share_fused=True), damages=known)
    assert shared(plan)
    assert len({a.scheme for a in plan.assignments}) > 1


def test_the_first_pin_of_a_part_is_that_of_all() -> None:
    pins = ["*.0.*v_proj=int8_sym", "*q_proj=none", "*.1.*up_proj=int8_sym"]
    plan = make_plan(LAYERS, Choice.of("int4_sym", 64, pins=pins, share_fused=True))
    assert shared(plan)
    eight = Scheme.parse("int8_sym")
    assert plan.scheme_of("model.layers.0.self_attn.q_proj.weight") == eight
    assert plan.scheme_of("model.layers.1.self_attn.v_proj.weight") is None
    assert plan.scheme_of("model.layers.1.mlp.gate_proj.weight") == eight
    assert "model.layers.1.mlp.gate_proj.weight" in plan.pinned


def test_the_experts_of_a_block_are_one_lot() -> None:
    found = lots(EXPERTS, JOINED)
    assert [len(lot) for lot in found] == [9, 9, 9]
    assert [lot[0].block for lot in found] == [0, 1, 2]
    apart = make_plan(EXPERTS, Choice.of("int4_sym", 64, 0.5, "int8_sym"), scores(EXPERTS))
    assert [error.key for error in cautions(apart)] == ["vllm_unlike"]
    plan = make_plan(EXPERTS, Choice.of("int4_sym", 64, 0.5, "int8_sym", share_fused=True), scores(EXPERTS))
    assert cautions(plan) == []
    assert len({a.scheme for a in plan.assignments}) == 2


def stacked(block: int, part: str, rows: int, width: int) -> Layer:
    return a_layer(f"model.layers.{block}.mlp.experts.{part}", Kind.LINEAR, (4, rows, width))


def test_stacked_experts_of_a_block_are_one_lot_beside_what_is_none() -> None:
    layers = [
        each
        for block in range(2)
        for each in (
            stacked(block, "gate_up_proj", 256, 128),
            stacked(block, "down_proj", 128, 128),
            a_layer(f"model.layers.{block}.mlp.shared_expert.down_proj.weight", Kind.LINEAR, (128, 128)),
        )
    ]
    assert [len(lot) for lot in lots(layers, JOINED)] == [2, 1, 2, 1]
    plan = make_plan(layers, Choice.of("int4_sym", 64, 0.6, "int8_sym", share_fused=True), scores(layers))
    assert cautions(plan) == []
    assert len({a.scheme for a in plan.assignments}) == 2


@pytest.mark.parametrize(
    ("fallback", "one", "all_of_them"),
    [("adjust", "int4_sym-g32", "int4_sym-g32"), ("ignore", "None", "None")],
)
def test_experts_of_several_widths_have_groups_that_fit_all(fallback: str, one: str, all_of_them: str) -> None:
    """Of 96 channels a group of 64 is none, so that down_proj alone would be adjusted, or left."""
    apart, together = (
        make_plan(
            [stacked(0, "gate_up_proj", 192, 128), stacked(0, "down_proj", 128, 96)],
            Choice.of("int4_sym", 64, group_size_fallback=fallback, share_fused=share),
        )
        for share in (False, True)
    )
    assert [str(a.scheme) for a in apart.assignments] == ["int4_sym-g64", one]
    assert [str(a.scheme) for a in together.assignments] == [all_of_them] * 2


def test_experts_that_no_group_fits_take_one_backup() -> None:
    """In groups of 32, of which 80 channels are no whole number."""
    layers = [stacked(0, "gate_up_proj", 160, 128), stacked(0, "down_proj", 128, 80)]
    words: dict[str, Any] = {"group_size_fallback": "adjust", "share_fused": True}
    plan = make_plan(layers, Choice.of("int4_sym", 64, backup="mxfp8_e4m3", **words))
    assert [str(a.scheme) for a in plan.assignments] == ["int8_asym", "int8_asym"]


def test_parts_of_other_widths_and_nothing_joined_are_apart() -> None:
    names = [f"model.layers.0.self_attn.{part}.weight" for part in JOINED[0]]
    layers = [a_layer(name, Kind.LINEAR, (64, width)) for name, width in zip(names, (128, 128, 96), strict=True)]
    assert [len(lot) for lot in lots(layers, JOINED)] == [2, 1]
    assert [len(lot) for lot in lots(layers, ())] == [1, 1, 1]


def test_a_mix_of_llama_cpps_is_what_it_is() -> None:
    plans = [make_plan(LAYERS, Choice.of(mix="q4_k_m", share_fused=share)) for share in (False, True)]
    assert plans[0].assignments == plans[1].assignments


def test_no_preset_pins_experts_to_eight_bits() -> None:
    words = COMPRESSED_TENSORS.presets["balanced"]
    plan = make_plan(EXPERTS, preset_choice(words, EXPERTS, can_chat=True))
    assert {a.scheme.mode for a in plan.assignments if a.scheme is not None} == {Mode.INT4_SYM}
    dense = [a_layer("model.layers.0.mlp.down_proj.weight", Kind.LINEAR, (128, 128))]
    assert str(make_plan(dense, preset_choice(words, dense, can_chat=True)).assignments[0].scheme) == "int8_sym"
