"""What linear layers are given: the right rows, the same for all layers that share them, and their power."""

from collections.abc import Callable, Generator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from studio.base.errors import CheckpointError
from studio.base.progress import Progress
from studio.calibration import activations as module
from studio.calibration.activations import MAX_ROWS, MAX_TOKENS, TEXT, Inputs, builtin_tokens, calibrate, sampled_rows
from studio.checkpoint.checkpoint import Checkpoint, of_folder
from studio.checkpoint.layers import Kind
from studio.compression.sequential import calibration_tokens
from studio.evaluation.evaluate import text_windows
from studio.planning import output_error, predicted_damage
from studio.quantization.scheme import Mode, Scheme
from studio.runtime.model import load_original
from tests.steps import finish

Tiny = Callable[[str], Path]


def inputs_of(steps: Generator[Progress, None, dict[str, Inputs]]) -> dict[str, Inputs]:
    while True:
        try:
            next(steps)
        except StopIteration as end:
            kept: dict[str, Inputs] = end.value
            return kept


def tokens(length: int = 160) -> Tensor:
    return torch.randint(3, 300, (1, length), generator=torch.Generator().manual_seed(0))


def heard(checkpoint: Checkpoint, ids: Tensor, dtype: torch.dtype) -> dict[str, Tensor]:
    """Return what every linear layer of the whole model is given in a dtype: name -> [T, K]."""
    model = load_original(checkpoint).to(dtype)
    given: dict[str, Tensor] = {}
    for layer in checkpoint.layers:
        if layer.kind is Kind.LINEAR:

            def hook(module: Any, arguments: tuple[Tensor, ...], name: str = layer.name) -> None:
                given[name] = arguments[0].flatten(0, -2)

            model.get_submodule(layer.name.removesuffix(".weight")).register_forward_pre_hook(hook)
    with torch.no_grad():
        model(input_ids=ids, use_cache=False)
    return given


@pytest.mark.parametrize("architecture", ["llama", "qwen3", "gemma3_text", "phi3", "gpt2"])
def test_the_rows_are_those_the_whole_model_gives_its_layers(
    architecture: str, tiny_model: Tiny, monkeypatch: pytest.MonkeyPatch
) -> None:
    """In fp32: sums in bf16 come out otherwise in another thread on processors with instructions for them."""
    monkeypatch.setattr(module, "fast_dtype", lambda: torch.float32)
    checkpoint = of_folder(tiny_model(architecture))
    kept = inputs_of(calibrate(checkpoint, tokens()))
    expected = heard(checkpoint, tokens(), torch.float32)
    assert kept.keys() == expected.keys() == {each.name for each in checkpoint.layers if each.kind is Kind.LINEAR}
    for name, inputs in kept.items():
        assert inputs.rows.shape == (MAX_ROWS, expected[name].shape[1])
        torch.testing.assert_close(inputs.rows, expected[name][sampled_rows(160)].to(inputs.rows.dtype))
        torch.testing.assert_close(inputs.power, expected[name].float().square().mean(0))


def test_layers_that_are_given_the_same_share_it(tiny_model: Tiny) -> None:
    kept = inputs_of(calibrate(of_folder(tiny_model("llama")), tokens()))
    block = {name.removeprefix("model.layers.1.").removesuffix(".weight"): kept[name] for name in kept if ".1." in name}
    assert block["self_attn.q_proj"] is block["self_attn.k_proj"] is block["self_attn.v_proj"]
    assert block["mlp.gate_proj"] is block["mlp.up_proj"]
    assert len({id(inputs) for inputs in kept.values()}) == 2 * 4


def test_the_rows_hold_no_more_memory_than_they_need(tiny_model: Tiny) -> None:
    for inputs in inputs_of(calibrate(of_folder(tiny_model("llama")), tokens())).values():
        assert inputs.rows.untyped_storage().nbytes() == inputs.rows.nbytes
        assert not inputs.rows.requires_grad


@pytest.mark.parametrize("rows", [1, 7, 128, 129, 500, 512, 100_000])
def test_rows_are_spread_over_the_text(rows: int) -> None:
    picked = sampled_rows(rows)
    assert len(picked) == min(rows, MAX_ROWS)
    assert bool((picked.diff() > 0).all())
    assert 0 <= int(picked[0]) <= rows // len(picked)
    assert rows - 1 - rows // len(picked) - 1 <= int(picked[-1]) < rows
    assert torch.equal(picked, sampled_rows(rows))


def test_a_text_shorter_than_the_sample_is_taken_whole(tiny_model: Tiny) -> None:
    kept = inputs_of(calibrate(of_folder(tiny_model("llama")), tokens(9)))
    assert {len(inputs.rows) for inputs in kept.values()} == {9}


def test_stopping_leaves_no_thread(tiny_model: Tiny) -> None:
    import threading

    threads = threading.active_count()
    steps = calibrate(of_folder(tiny_model("llama")), tokens())
    for _ in range(5):
        next(steps)
    steps.close()
    assert threading.active_count() == threads


def test_the_built_in_text_has_prose_chinese_code_and_numbers(tiny_model: Tiny) -> None:
    text = TEXT.read_text(encoding="utf-8")
    assert all(part in text for part in ("def ", "return ", "春天", "48,310", "User:"))
    assert 300 <= len(text.split()) <= 500
    ids = builtin_tokens(of_folder(tiny_model("llama")))
    assert ids.shape == (1, min(MAX_TOKENS, 256))  # as many positions as this model has
    assert ids.dtype is torch.int64


def test_a_tokenizer_of_another_model_is_refused(tiny_model: Tiny) -> None:
    checkpoint = of_folder(tiny_model("llama"))
    few = tuple(
        replace(layer, shape=(10, 64)) if layer.kind is Kind.EMBEDDING else layer for layer in checkpoint.layers
    )
    with pytest.raises(CheckpointError) as caught:
        builtin_tokens(replace(checkpoint, layers=few))
    assert caught.value.key == "tokenizer_beyond"


def test_inputs_are_found_once_for_a_text(tiny_model: Tiny, own_cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    checkpoint = of_folder(tiny_model("llama"))
    first = inputs_of(module.inputs(checkpoint, tokens()))
    (file,) = (own_cache / "inputs").rglob("*.kept")
    with monkeypatch.context() as patched:
        patched.setattr(module, "calibrate", lambda *_: pytest.fail("it ran again"))
        again = inputs_of(module.inputs(checkpoint, tokens()))
    assert again.keys() == first.keys()
    assert all(torch.equal(again[name].rows, first[name].rows) for name in first)
    assert all(torch.equal(again[name].power, first[name].power) for name in first)
    assert len({id(given) for given in again.values()}) == 2 * 4  # shared as before
    content = bytearray(file.read_bytes())
    content[-1] ^= 1
    file.write_bytes(content)
    assert inputs_of(module.inputs(checkpoint, tokens())).keys() == first.keys()  # found anew
    assert file.read_bytes() != content


def test_inputs_of_another_text_or_model_are_others(tiny_model: Tiny, own_cache: Path) -> None:
    checkpoint = of_folder(tiny_model("llama"))
    inputs_of(module.inputs(checkpoint, tokens()))
    inputs_of(module.inputs(checkpoint, tokens(161)))
    inputs_of(module.inputs(of_folder(tiny_model("qwen3")), tokens()))
    assert len(list((own_cache / "inputs").rglob("*.kept"))) == 3


@pytest.mark.parametrize("figure", ["output", "damage", "calibration", "evaluation"])
def test_a_model_of_few_positions_reads_no_further(tiny_model: Tiny, own_cache: Path, figure: str) -> None:
    """GPT-2's table of positions ends after 256: a longer text raised an IndexError in the middle of its code."""
    checkpoint = of_folder(tiny_model("gpt2"))
    if figure in ("calibration", "evaluation"):
        ids = calibration_tokens(checkpoint) if figure == "calibration" else text_windows(checkpoint)
        assert ids.shape[1] == 256
        return
    measure = output_error.measure if figure == "output" else predicted_damage.measure
    found = finish(measure(checkpoint, [Scheme(Mode.INT8_ASYM, -1)]))
    assert found
    assert builtin_tokens(checkpoint).shape == (1, 256)
