"""Where channels can be scaled: only where everything that reads them may change, and their block's code is known."""

from collections.abc import Callable
from pathlib import Path

import pytest

from studio.checkpoint.checkpoint import of_folder
from studio.compression.channel_scaling import Fold, folds
from studio.runtime.model import load_original

BLOCK = "model.layers.0"


def found(folder: Path, without: tuple[str, ...] = ()) -> dict[str, set[str]]:
    """Return what makes channels of the first block -> what reads them, where ``without`` may not change."""
    checkpoint = of_folder(folder)
    layers = {layer.name: layer for layer in checkpoint.layers}
    names = frozenset(layers) - {f"{BLOCK}.{name}.weight" for name in without}
    module = load_original(checkpoint).get_submodule(BLOCK)
    made: list[Fold] = folds(module, BLOCK, layers, names)
    return {fold.source.projection: {reader.projection for reader in fold.readers} for fold in made}


def test_norms_and_up_can_be_scaled_into_what_reads_them(tiny_model: Callable[[str], Path]) -> None:
    assert found(tiny_model("llama")) == {
        "mlp.up_proj": {"mlp.down_proj"},
        "input_layernorm": {"self_attn.q_proj", "self_attn.k_proj", "self_attn.v_proj"},
        "post_attention_layernorm": {"mlp.gate_proj", "mlp.up_proj"},
    }


@pytest.mark.parametrize(
    ("without", "gone"),
    [
        ("self_attn.k_proj", {"input_layernorm"}),
        ("mlp.up_proj", {"mlp.up_proj", "post_attention_layernorm"}),
        ("mlp.down_proj", {"mlp.up_proj"}),
        ("input_layernorm", set()),
    ],
)
def test_one_reader_that_may_not_change_is_enough_to_leave_it(
    tiny_model: Callable[[str], Path], without: str, gone: set[str]
) -> None:
    """A norm's own weight is kept at 16 bits and may always change."""
    whole = found(tiny_model("llama"))
    assert found(tiny_model("llama"), (without,)).keys() == whole.keys() - gone


def test_a_block_whose_code_is_not_known_is_left_alone(tiny_model: Callable[[str], Path]) -> None:
    checkpoint = of_folder(tiny_model("gpt2"))
    layers = {layer.name: layer for layer in checkpoint.layers}
    module = load_original(checkpoint).get_submodule("transformer.h.0")
    assert folds(module, "transformer.h.0", layers, frozenset(layers)) == []
