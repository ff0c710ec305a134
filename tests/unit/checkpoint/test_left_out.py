"""What a model's files hold beside it is named; tables, scales and a head that is the embedding again are not."""

from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from studio.base.text import LANGUAGES
from studio.checkpoint.checkpoint import of_folder
from studio.checkpoint.headers import TensorEntry
from studio.checkpoint.layers import Kind, Layer
from studio.checkpoint.left_out import LeftOut, left_out
from tests.conftest import ARCHITECTURES, save_tiny_model
from tests.terminal import run

LAYERS = (
    Layer(
        "model.embed_tokens.weight", ("model.embed_tokens.weight",), Kind.EMBEDDING, (8, 4), tied=("lm_head.weight",)
    ),
    Layer("model.layers.0.mlp.up_proj.weight", ("model.layers.0.mlp.up_proj.weight",), Kind.LINEAR, (4, 4)),
)


def entries(*names: str, shape: tuple[int, ...] = (4, 4)) -> dict[str, TensorEntry]:
    own = [layer.source for layer in LAYERS]
    return {name: TensorEntry("a", "BF16", shape, 0, 32) for name in (*own, *names)}


def test_extra_layers_and_towers_are_named_by_what_they_belong_to() -> None:
    found = left_out(
        entries(
            "model.layers.61.eh_proj.weight", "model.layers.61.enorm.weight", "vision_tower.0.weight", "mtp.fc.weight"
        ),
        LAYERS,
    )
    assert found == LeftOut(4, 128, ("model.layers.61", "vision_tower", "mtp"))
    for language in LANGUAGES:
        assert "model.layers.61, vision_tower, mtp" in found.sentence(language)


@pytest.mark.parametrize(
    "name", ["lm_head.weight", "language_model.lm_head.weight", "model.layers.0.self_attn.rotary_emb.inv_freq"]
)
def test_what_is_no_loss_is_not_named(name: str) -> None:
    assert left_out(entries(name), LAYERS) is None


def test_a_causal_mask_is_no_loss() -> None:
    mask = {"h.0.attn.bias": TensorEntry("a", "U8", (1, 1, 8, 8), 0, 64)}
    assert left_out(entries() | mask, LAYERS) is None


def test_a_name_that_moves_a_cursor_does_not() -> None:
    found = left_out(entries("\x1b[2J.weight"), LAYERS)
    assert found is not None
    assert "\x1b" not in found.sentence("en")


@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_of_a_model_as_it_is_saved_nothing_is_left_out(architecture: str, tiny_model: Callable[[str], Path]) -> None:
    assert of_folder(tiny_model(architecture)).left_out is None


def test_the_terminal_says_it_before_anything_is_made(tmp_path: Path) -> None:
    folder = tmp_path / "model"
    save_tiny_model("llama", folder)
    file = folder / "model.safetensors"
    assert of_folder(folder).left_out is None
    save_file(
        load_file(file) | {"mtp.layers.0.weight": torch.zeros(64, 64, dtype=torch.bfloat16)}, file, {"format": "pt"}
    )
    answer = run("targets", folder, "--json")
    assert answer.code == 0
    assert "mtp" in answer.stderr
    assert "8.19 kB" in answer.stderr
