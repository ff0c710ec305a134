"""What a budget is spent on is what the target of that name holds."""

import pytest

from studio.checkpoint.checkpoint import of_folder
from studio.checkpoint.layers import Kind
from studio.export.compressed_tensors.vllm import cautions
from studio.export.gguf.types import mode_of
from studio.export.targets import TARGETS
from studio.planning.choice import Choice
from studio.planning.fused import JOINED
from studio.planning.palettes import DEFAULT, PALETTES, Palette
from studio.planning.plan import Assignment, Plan, make_plan
from tests.terminal import TinyModel
from tests.unit.planning.test_allotment import damages
from tests.unit.planning.test_plan import a_layer, a_model


def test_every_palette_is_a_targets() -> None:
    assert PALETTES.keys() == TARGETS.keys()
    assert DEFAULT in PALETTES


def test_gguf_holds_all_of_its_own() -> None:
    assert all(mode_of(scheme) is scheme.mode for scheme in PALETTES["gguf"].schemes)
    assert len(PALETTES["gguf"].schemes) == 12


@pytest.mark.parametrize("palette", PALETTES.values(), ids=list(PALETTES))
def test_only_what_fits_is_offered(palette: Palette) -> None:
    assert {scheme.fits(576) for scheme in palette.fitting(576)} == {True}
    assert len(palette.fitting(1536)) > len(palette.fitting(576)) > 1
    assert len(palette.fitting(2048)) == len(palette.schemes)


def test_bytes_are_those_of_the_target() -> None:
    norm = next(layer for layer in a_model() if not layer.is_weight)
    assert PALETTES["studio"].nbytes(norm, None) == 2 * norm.numel
    assert PALETTES["gguf"].nbytes(norm, None) == 4 * norm.numel
    weight = next(layer for layer in a_model() if layer.is_weight)
    scheme = PALETTES["gguf"].schemes[0]
    assert PALETTES["gguf"].nbytes(weight, scheme) == scheme.nbytes(weight.matrix)
    assert PALETTES["gguf"].nbytes(weight, None) == 2 * weight.numel


@pytest.mark.parametrize("palette", PALETTES.values(), ids=list(PALETTES))
@pytest.mark.parametrize("shape", [(64, 576), (48, 2048), (32, 96)], ids=str)
def test_each_scheme_takes_the_bytes_that_the_target_says(palette: Palette, shape: tuple[int, int]) -> None:
    kinds = (Kind.LINEAR, Kind.EMBEDDING, Kind.HEAD)
    layers = [a_layer(f"b.0.{kind}.weight", kind, shape) for kind in kinds]
    layers.append(a_layer("b.0.norm.weight", Kind.OTHER, (shape[1],)))
    size = TARGETS[palette.name].size
    for layer in layers:
        for scheme in (*palette.offered(layer), None) if layer.is_weight else (None,):
            plan = Plan(Choice(), (Assignment(layer, scheme),), True)
            assert size(plan) == palette.nbytes(layer, scheme), f"{layer.kind} {scheme}"


@pytest.mark.parametrize("name", [name for name in PALETTES if name not in ("studio", "gguf")])
def test_the_target_holds_what_is_offered(tiny_model: TinyModel, name: str) -> None:
    checkpoint = of_folder(tiny_model("llama"))
    palette, target = PALETTES[name], TARGETS[name]
    for scheme in palette.schemes:
        taken = tuple(
            Assignment(layer, scheme if layer.is_weight and scheme in palette.offered(layer) else None)
            for layer in checkpoint.layers
        )
        refused = target.refusal(Plan(Choice(), taken, True), checkpoint)
        assert refused is None or refused.key == "to_openvino_missing", refused


def test_what_vllm_joins_has_one_scheme() -> None:
    names = [f"model.layers.{b}.self_attn.{part}.weight" for b in range(4) for part in JOINED[0]]
    layers = [a_layer(name, Kind.LINEAR, (64, 256)) for name in names]
    known = damages(layers, "compressed-tensors")
    plan = make_plan(layers, Choice.of(budget="5.5bpw", target="compressed-tensors"), damages=known)
    by_block = [{plan.scheme_of(name) for name in names if f".{b}." in name} for b in range(4)]
    assert [len(schemes) for schemes in by_block] == [1] * 4
    assert len(set.union(*by_block)) > 1
    assert cautions(plan) == []
