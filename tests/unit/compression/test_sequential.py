"""Rounding block after block: the statistics are those of a direct run, and later blocks see what came before."""

from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from torch import Tensor

from studio.base.errors import ModelError, TextError
from studio.calibration.texts import read_text, windows
from studio.checkpoint.checkpoint import of_folder
from studio.checkpoint.layers import Kind, ratio_defining
from studio.compression import sequential
from studio.compression.compress import compress
from studio.compression.sequential import LayerRounded, calibration_tokens, round_sequentially
from studio.planning.choice import Choice
from studio.planning.plan import make_plan
from studio.quantization.methods import Method
from studio.quantization.rounding import QuantizedWeight, Statistics, round_to_nearest
from studio.quantization.scheme import Mode, Scheme
from studio.runtime.model import load_original
from tests.steps import finish

SCHEME = Scheme(Mode.INT4_ASYM, 32)
TOKENS = torch.arange(96).reshape(2, 48) % 200


def heard(
    folder: Path, monkeypatch: pytest.MonkeyPatch, round_: Callable[[Tensor], QuantizedWeight]
) -> dict[str, Statistics]:
    """Return what the method was given for each layer, by the name of the layer found afterwards."""
    given: list[Statistics] = []

    def method(weight: Tensor, scheme: Scheme, statistics: Statistics) -> QuantizedWeight:
        given.append(statistics)
        return round_(weight)

    monkeypatch.setitem(Method.GPTQ.__dict__, "calibrated", method)
    checkpoint = of_folder(folder)
    schemes = {layer.name: SCHEME for layer in ratio_defining(checkpoint.layers)}
    names = []
    for event in round_sequentially(checkpoint, schemes, Method.GPTQ, TOKENS):
        if isinstance(event, LayerRounded):
            names.append((event.layer.name, len(given) - 1))
    return {name: given[index] for name, index in names}


@pytest.mark.parametrize("architecture", ["llama", "gpt2", "phi3"])
def test_the_first_block_is_given_what_a_direct_run_gives_it(
    architecture: str, tiny_model: Callable[[str], Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    """In fp32: sums in bf16 come out otherwise in another thread on processors with instructions for them."""
    monkeypatch.setattr(sequential, "fast_dtype", lambda: torch.float32)
    folder = tiny_model(architecture)
    checkpoint = of_folder(folder)
    found = heard(folder, monkeypatch, lambda weight: round_to_nearest(weight, SCHEME))
    assert found.keys() == {layer.name for layer in ratio_defining(checkpoint.layers)}
    model = load_original(checkpoint).to(torch.float32)
    inputs: dict[str, Tensor] = {}
    first = [layer for layer in ratio_defining(checkpoint.layers) if layer.block == 0]
    for layer in first:
        model.get_submodule(layer.name.rpartition(".")[0]).register_forward_pre_hook(
            lambda _, given, name=layer.name: inputs.__setitem__(name, given[0].flatten(0, 1).float())
        )
    model(input_ids=TOKENS, use_cache=False)
    for layer in first:
        x = inputs[layer.name]
        assert torch.allclose(found[layer.name].hessian, x.T @ x / len(x), rtol=1e-4, atol=1e-6)
        assert found[layer.name].tokens == TOKENS.numel()


def test_a_later_block_is_given_what_the_rounded_ones_before_it_say(
    tiny_model: Callable[[str], Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = tiny_model("llama")
    near = heard(folder, monkeypatch, lambda weight: round_to_nearest(weight, SCHEME))
    none = heard(folder, monkeypatch, lambda weight: round_to_nearest(torch.zeros_like(weight), SCHEME))
    name = "model.layers.1.mlp.up_proj.weight"
    first = name.replace("1", "0", 1)
    assert torch.equal(near[first].hessian, none[first].hessian)
    assert not torch.allclose(near[name].hessian, none[name].hessian, rtol=1e-2)


def test_a_layer_that_is_given_only_zeros_is_named_and_rounded_all_the_same(
    tiny_model: Callable[[str], Path], tmp_path: Path
) -> None:
    import shutil

    from safetensors.torch import load_file, save_file

    folder = tmp_path / "dead"
    shutil.copytree(tiny_model("llama"), folder)
    weights = load_file(folder / "model.safetensors")
    weights["model.layers.0.mlp.up_proj.weight"].zero_()  # nothing passes its gate: down_proj is given zeros
    save_file(weights, folder / "model.safetensors", {"format": "pt"})
    checkpoint = of_folder(folder)
    plan = make_plan(checkpoint.layers, Choice(Mode.INT4_ASYM, 32, method=Method.GPTQ))
    done = finish(compress(checkpoint, plan, tmp_path / "packed.safetensors", TOKENS))
    assert done.unreached == ("model.layers.0.mlp.down_proj.weight",)
    assert 0 < done.relative_error["model.layers.0.mlp.down_proj.weight"] < 0.2


def test_compressing_by_a_method_moves_the_outputs_less(tiny_model: Callable[[str], Path], tmp_path: Path) -> None:
    from safetensors.torch import load_file

    from studio.quantization.packing import PackedTensor

    checkpoint = of_folder(tiny_model("llama"))
    layer = next(layer for layer in checkpoint.layers if layer.name == "model.layers.0.self_attn.q_proj.weight")
    weight = checkpoint.read(layer).float()
    model = load_original(checkpoint)
    given: list[Tensor] = []
    model.get_submodule(layer.name.rpartition(".")[0]).register_forward_pre_hook(
        lambda _, x: given.append(x[0].float())
    )
    model(input_ids=TOKENS, use_cache=False)
    errors = {}
    for method in (Method.NEAREST, Method.GPTQ):
        plan = make_plan(checkpoint.layers, Choice(Mode.INT4_ASYM, 32, method=method))
        file = tmp_path / f"{method}.safetensors"
        finish(compress(checkpoint, plan, file, TOKENS if method.needs_inputs else None))
        arrays = {name.rpartition(".")[2]: a for name, a in load_file(file).items() if name.startswith(layer.name)}
        moved = PackedTensor.of(SCHEME, layer.matrix, arrays).dequantize() - weight
        errors[method] = float((given[0] @ moved.T).square().sum())
    assert errors[Method.GPTQ] < 0.7 * errors[Method.NEAREST]


def test_only_linear_weights_below_eight_bits_are_calibrated(tiny_model: Callable[[str], Path], tmp_path: Path) -> None:
    checkpoint = of_folder(tiny_model("llama"))
    plan = make_plan(checkpoint.layers, Choice(Mode.INT8_ASYM, method=Method.GPTQ))
    done = finish(compress(checkpoint, plan, tmp_path / "packed.safetensors", TOKENS))
    assert done.unreached == ()
    assert any(a.layer.kind is Kind.LINEAR for a in plan.assignments)


def test_a_model_that_is_no_language_model_is_not_calibrated(tiny_model: Callable[[str], Path]) -> None:
    from dataclasses import replace

    with pytest.raises(ModelError) as caught:
        calibration_tokens(replace(of_folder(tiny_model("llama")), can_chat=False))
    assert caught.value.key == "no_language_model"


@pytest.mark.parametrize(
    ("content", "key"),
    [
        (b"", "text_empty"),
        (b" \n\t", "text_empty"),
        (b"\x89PNG\r\n\x1a\n\x00\xff", "text_binary"),
        (b"a\0b", "text_binary"),
    ],
    ids=["empty", "blank", "picture", "zero_byte"],
)
def test_a_file_that_is_no_text_is_refused(content: bytes, key: str, tmp_path: Path) -> None:
    (tmp_path / "text").write_bytes(content)
    with pytest.raises(TextError) as caught:
        read_text(tmp_path / "text")
    assert caught.value.key == key


def test_a_text_that_is_not_there_is_refused(tmp_path: Path) -> None:
    with pytest.raises(TextError) as caught:
        read_text(tmp_path / "nothing")
    assert caught.value.key == "text_missing"


def test_a_text_shorter_than_a_window_is_refused() -> None:
    with pytest.raises(TextError) as caught:
        windows(torch.arange(255), 16, 256)
    assert caught.value.values == {"tokens": 255, "window": 256}


@pytest.mark.parametrize("length", [256, 700, 5000])
def test_windows_do_not_overlap_and_reach_both_ends(length: int) -> None:
    found = windows(torch.arange(length), 16, 256)
    assert len(found) == min(16, length // 256)
    assert (found[1:, 0] > found[:-1, -1]).all()
    assert found[0, 0] == 0
    assert len(found) == 1 or found[-1, -1] == length - 1
