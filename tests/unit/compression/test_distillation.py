"""Scales and norms trained in the end: predictions come nearer, codes stay, and the same comes out every time."""

import shutil
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

from studio.base.progress import Progress
from studio.checkpoint.checkpoint import Checkpoint, of_folder
from studio.checkpoint.layers import Kind, ratio_defining
from studio.compression import distillation
from studio.compression.distillation import distilled
from studio.compression.sequential import LayerReplaced, LayerRounded, round_sequentially
from studio.quantization.methods import Method
from studio.quantization.quantize import quantize
from studio.quantization.rounding import dequantize, round_to_nearest
from studio.quantization.scheme import Mode, Scheme
from studio.runtime import block_model
from studio.runtime.model import load_original

SCHEME = Scheme(Mode.INT2_SYM, 32)
TOKENS = torch.arange(24 * 32).reshape(24, 32) * 7 % 200
Found = dict[str, LayerRounded | LayerReplaced]


@pytest.fixture(autouse=True)
def fast_steps(monkeypatch: pytest.MonkeyPatch) -> None:
    """Three steps of random weights show nothing at the rate of a real model's."""
    monkeypatch.setattr(distillation, "RATE", 0.02)
    monkeypatch.setattr(distillation, "WARM_UP", 1)
    monkeypatch.setattr(distillation, "STEP", 2)


def found_by(checkpoint: Checkpoint, scheme: Scheme, is_trained: bool) -> Found:
    schemes = {layer.name: scheme for layer in ratio_defining(checkpoint.layers)}
    events = (distilled if is_trained else round_sequentially)(checkpoint, schemes, Method.DISTILLED, TOKENS)
    return {event.layer.name: event for event in events if isinstance(event, LayerRounded | LayerReplaced)}


def divergence(checkpoint: Checkpoint, found: Found) -> float:
    model = load_original(checkpoint).float()
    with torch.no_grad():
        original = model(input_ids=TOKENS).logits.log_softmax(-1)
        for name, event in found.items():
            dense = event.packed.dequantize() if isinstance(event, LayerRounded) else event.tensor
            parameter = model.get_parameter(name)
            parameter.copy_((dense.mT if event.layer.transposed else dense).reshape(parameter.shape))
        other = model(input_ids=TOKENS).logits.log_softmax(-1)
    return float((original.exp() * (original - other)).sum(-1).mean())


@pytest.mark.parametrize("architecture", ["llama", "gpt2"])
def test_predictions_come_nearer_and_codes_stay(architecture: str, tiny_model: Callable[[str], Path]) -> None:
    checkpoint = of_folder(tiny_model(architecture))
    before, after = (found_by(checkpoint, SCHEME, is_trained) for is_trained in (False, True))
    assert divergence(checkpoint, after) < 0.95 * divergence(checkpoint, before)
    moved = 0
    for name, event in before.items():
        trained = after[name]
        assert isinstance(event, LayerRounded)
        assert isinstance(trained, LayerRounded)
        assert torch.equal(event.packed.codes, trained.packed.codes)
        moved += not torch.equal(event.packed.scale, trained.packed.scale)
        assert trained.squared_error >= 0
    assert moved == len(before)


def trained_norms(checkpoint: Checkpoint) -> set[str]:
    """Return those that moved."""
    return {
        name
        for name, event in found_by(checkpoint, SCHEME, is_trained=True).items()
        if isinstance(event, LayerReplaced) and not torch.equal(event.tensor, checkpoint.read(event.layer))
    }


def test_a_norm_of_the_head_is_trained_too(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its graph is gone through once for every few positions."""
    from transformers import AutoModelForCausalLM, ModernBertDecoderConfig

    for module in (block_model, distillation):
        monkeypatch.setattr(module, "LOSS_TOKENS", 24)
    sizes = {"hidden_size": 64, "intermediate_size": 64, "num_hidden_layers": 2, "num_attention_heads": 4}
    tokens = {"pad_token_id": 0, "bos_token_id": 0, "eos_token_id": 1, "cls_token_id": 0, "sep_token_id": 1}
    torch.manual_seed(0)
    config = ModernBertDecoderConfig(vocab_size=256, **sizes, **tokens)
    AutoModelForCausalLM.from_config(config, dtype=torch.bfloat16).save_pretrained(tmp_path)
    assert {"lm_head.norm.weight", "model.final_norm.weight"} <= trained_norms(of_folder(tmp_path))


def test_norms_of_other_names_are_trained_too(tiny_model: Callable[[str], Path]) -> None:
    found = trained_norms(of_folder(tiny_model("gpt2")))
    assert any(".ln_1." in name for name in found)
    assert any(".ln_f." in name for name in found)


def test_the_same_comes_out_again(tiny_model: Callable[[str], Path]) -> None:
    checkpoint = of_folder(tiny_model("llama"))
    first, second = (found_by(checkpoint, SCHEME, is_trained=True) for _ in range(2))
    assert first.keys() == second.keys()
    for name, event in first.items():
        assert torch.equal(_numbers(event), _numbers(second[name])), name


def _numbers(event: LayerRounded | LayerReplaced) -> Tensor:
    return event.packed.scale if isinstance(event, LayerRounded) else event.tensor


def test_norms_are_trained_in_the_dtype_they_are_saved_in(tiny_model: Callable[[str], Path]) -> None:
    checkpoint = of_folder(tiny_model("llama"))
    norms = [
        event for event in found_by(checkpoint, SCHEME, is_trained=True).values() if isinstance(event, LayerReplaced)
    ]
    assert {event.layer.name for event in norms} == {
        layer.name for layer in checkpoint.layers if layer.name.endswith("norm.weight")
    }
    assert all(event.tensor.dtype is checkpoint.saved_dtype(event.layer) for event in norms)
    assert any(not torch.equal(event.tensor, checkpoint.read(event.layer)) for event in norms)


def test_scales_that_a_layout_cannot_move_stay_and_norms_still_help(tiny_model: Callable[[str], Path]) -> None:
    checkpoint = of_folder(tiny_model("llama"))
    scheme = Scheme.of(Mode.MXFP4, 32)
    before, after = (found_by(checkpoint, scheme, is_trained) for is_trained in (False, True))
    for name, event in before.items():
        assert torch.equal(_numbers(event), _numbers(after[name])), name
    assert after.keys() > before.keys()


def test_it_can_be_stopped_at_any_step(tiny_model: Callable[[str], Path]) -> None:
    checkpoint = of_folder(tiny_model("llama"))
    schemes = {layer.name: SCHEME for layer in ratio_defining(checkpoint.layers)}
    steps = len(list(distilled(checkpoint, schemes, Method.DISTILLED, TOKENS)))
    for share in (0.1, 0.5, 0.9):
        events = distilled(checkpoint, schemes, Method.DISTILLED, TOKENS)
        for _ in range(int(share * steps)):
            next(events)
        events.close()
    with pytest.raises(StopIteration):
        next(events)


def test_progress_is_of_the_whole_and_never_falls(tiny_model: Callable[[str], Path]) -> None:
    checkpoint = of_folder(tiny_model("llama"))
    schemes = {layer.name: SCHEME for layer in ratio_defining(checkpoint.layers)}
    events = distilled(checkpoint, schemes, Method.DISTILLED, TOKENS)
    shares = [event.fraction or 0.0 for event in events if isinstance(event, Progress)]
    assert shares == sorted(shares)
    assert shares[-1] == 1
    assert len(set(shares)) > 20


def test_training_meets_what_is_not_trained_as_the_file_has_it(
    tiny_model: Callable[[str], Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    checkpoint = of_folder(tiny_model("llama"))
    embedding = next(layer for layer in checkpoint.layers if layer.kind is Kind.EMBEDDING)
    schemes = {layer.name: SCHEME for layer in ratio_defining(checkpoint.layers)}
    students = []

    def seen(_: Checkpoint, student: distillation._Student, __: Tensor) -> Iterator[Progress]:
        students.append(student)
        return iter(())

    monkeypatch.setattr(distillation, "_trained", seen)
    planned = {**schemes, embedding.name: Scheme(Mode.INT4_SYM, 32)}
    list(distilled(checkpoint, schemes, Method.DISTILLED, TOKENS, planned))
    held = students[0].held(embedding)
    assert held is not None
    rounded = quantize(checkpoint.read(embedding), planned[embedding.name]).packed.dequantize()
    assert torch.equal(held, rounded)


def test_what_lost_nothing_stays_as_it_is(tiny_model: Callable[[str], Path], tmp_path: Path) -> None:
    """A model whose weights lie on the grid already: nothing is trained, norms neither."""
    folder = tmp_path / "on-grid"
    shutil.copytree(tiny_model("llama"), folder)
    scheme, file = Scheme(Mode.INT4_SYM, 32), folder / "model.safetensors"
    weights = load_file(file)
    for layer in ratio_defining(of_folder(folder).layers):
        rounded = round_to_nearest(weights[layer.name].float().clamp(-1, 1), scheme).stored()
        scale = torch.full_like(rounded.scale, 2**-6)
        weights[layer.name] = dequantize(replace(rounded, scale=scale), scheme.mode).bfloat16()
    save_file(weights, file, {"format": "pt"})
    events = found_by(of_folder(folder), scheme, is_trained=True).values()
    assert events
    assert all(isinstance(event, LayerRounded) and event.squared_error == 0 for event in events)
