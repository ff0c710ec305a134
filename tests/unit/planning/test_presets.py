"""Presets as choices: what each is for a model, and for one that cannot have it."""

from pathlib import Path

import pytest

from studio.checkpoint.checkpoint import of_folder
from studio.checkpoint.layers import Kind, Layer
from studio.export.target import Target
from studio.export.targets import TARGETS
from studio.planning.plan import make_plan
from studio.planning.presets import CUSTOM, DEFAULT, IN_GROUPS, PRESETS, preset_choice
from studio.quantization.methods import Method
from tests.conftest import save_tiny_model


def model(width: int) -> list[Layer]:
    names = ("model.layers.0.mlp.up_proj.weight", "model.layers.0.mlp.down_proj.weight")
    return [Layer(name, (name,), Kind.LINEAR, (width, width)) for name in names]


@pytest.mark.parametrize("target", TARGETS.values(), ids=list(TARGETS))
def test_every_target_has_all_presets_each_larger_than_the_one_before(target: Target) -> None:
    presets = target.presets
    assert tuple(presets) == PRESETS
    layers = model(256)
    choices = [preset_choice(presets[name], layers) for name in PRESETS]
    sizes = [make_plan(layers, choice).compressed_bytes for choice in choices]
    assert sizes == sorted(sizes)
    assert len(set(choices)) == len(PRESETS)
    balanced = choices[PRESETS.index(DEFAULT)]
    assert balanced.sensitivity == "damage" or balanced.pins  # layers that rounding costs most keep more bits
    assert balanced.is_calibrated
    assert CUSTOM not in presets


@pytest.mark.parametrize("width", [64, 256])
@pytest.mark.parametrize("target", TARGETS.values(), ids=list(TARGETS))
def test_every_target_holds_its_own_presets(target: Target, width: int, tmp_path: Path) -> None:
    """Among them what a preset pins: an embedding that a program does not load packed."""
    save_tiny_model("llama", tmp_path, hidden_size=width, intermediate_size=2 * width)
    checkpoint = of_folder(tmp_path)
    for words in target.presets.values():
        choice = preset_choice(words, checkpoint.layers)
        assert [str(pin) for pin in choice.pins] == [*words.get("pins", ())]
        assert target.refusal(make_plan(checkpoint.layers, choice), checkpoint) is None


def test_a_group_that_does_not_fit_gives_way_to_one_that_does() -> None:
    assert preset_choice(IN_GROUPS["smallest"], model(96)).group_size == 32
    assert preset_choice(IN_GROUPS["smallest"], model(7)).group_size == -1


def test_a_model_that_writes_no_text_is_not_calibrated() -> None:
    for words in IN_GROUPS.values():
        choice = preset_choice(words, model(128), can_chat=False)
        assert choice.method is Method.NEAREST
        assert choice.sensitivity == "nncf"
