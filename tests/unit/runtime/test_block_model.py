"""A model that is read block by block computes what the whole one does, and gives everything back.

The models are real ones of transformers, of every family the studio names, a few thousand weights each.
"""

import gc
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor
from transformers import CONFIG_MAPPING, AutoModelForCausalLM

from studio.base.errors import CheckpointError
from studio.base.progress import Progress
from studio.checkpoint.checkpoint import Checkpoint, of_folder
from studio.checkpoint.file_names import WEIGHTS
from studio.checkpoint.layers import Kind, Layer
from studio.runtime import model as whole_model
from studio.runtime.block_model import BlockModel
from tests.steps import heard

WORDS, LENGTH = 48, 24
TINY: dict[str, Any] = {
    "vocab_size": WORDS,
    "hidden_size": 32,
    "intermediate_size": 48,
    "num_hidden_layers": 3,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "max_position_embeddings": 64,
    "bos_token_id": 0,
    "eos_token_id": 1,
    "pad_token_id": 2,
}
SLIDING = {"sliding_window": 8, "layer_types": ["sliding_attention", "sliding_attention", "full_attention"]}
EXPERTS = {"num_experts": 4, "num_local_experts": 4, "num_experts_per_tok": 2, "moe_intermediate_size": 16}
LINEAR_ATTENTION = {
    "layer_types": ["linear_attention", "linear_attention", "full_attention"],
    "linear_num_key_heads": 2,
    "linear_num_value_heads": 4,
    "linear_key_head_dim": 8,
    "linear_value_head_dim": 8,
    "shared_expert_intermediate_size": 16,
}
LATENT = {
    "num_key_value_heads": 4,
    "n_routed_experts": 4,
    "n_group": 1,
    "topk_group": 1,
    "kv_lora_rank": 8,
    "q_lora_rank": 8,
    "qk_nope_head_dim": 8,
    "qk_rope_head_dim": 8,
    "v_head_dim": 8,
    "first_k_dense_replace": 1,
}
FAMILIES: dict[str, dict[str, Any]] = {
    "llama": {"tie_word_embeddings": True},
    "mistral": {"sliding_window": 8},
    "qwen2": {},
    "qwen3": {"head_dim": 8},
    "qwen3_moe": {**EXPERTS, "head_dim": 8},
    "mixtral": EXPERTS,
    "gemma2": {"head_dim": 8, **SLIDING},
    "gemma3_text": {"head_dim": 8, **SLIDING},
    "phi3": {},
    "gpt2": {},
    "opt": {"ffn_dim": 48, "word_embed_proj_dim": 16},
    "falcon": {},
    "bloom": {},
    "glm4": {"head_dim": 8},
    "stablelm": {},
    "mamba": {"state_size": 4, "time_step_rank": 4},
    "qwen3_next": {**EXPERTS, **LINEAR_ATTENTION, "head_dim": 8},
    "gpt_oss": {**EXPERTS, "head_dim": 8, "sliding_window": 8},
    "deepseek_v3": {"num_experts_per_tok": 2, "moe_intermediate_size": 16, **LATENT},
    "llama4_text": {"head_dim": 8, "intermediate_size_mlp": 48, **EXPERTS},
}


def save_family(family: str, folder: Path) -> Checkpoint:
    """Save a model with random weights, its norms included, under the names of its parameters."""
    torch.manual_seed(0)
    config = CONFIG_MAPPING[family](**{**TINY, **FAMILIES[family]})
    model = AutoModelForCausalLM.from_config(config)
    tied = model.all_tied_weights_keys
    tensors = {name: value.detach() for name, value in model.state_dict().items() if name not in tied}
    noisy = {name: (value + 0.05 * torch.randn_like(value.float())).bfloat16() for name, value in tensors.items()}
    folder.mkdir(parents=True, exist_ok=True)
    save_file({name: value.contiguous() for name, value in noisy.items()}, folder / WEIGHTS)
    config.save_pretrained(folder)
    return of_folder(folder)


def some_tokens(batch: int = 2) -> Tensor:
    return torch.randint(3, WORDS, (batch, LENGTH), generator=torch.Generator().manual_seed(1))


def present(streamed: BlockModel) -> set[str]:
    """Return the parameters whose values are in memory."""
    return {
        name
        for name, value in streamed.model.named_parameters()
        if not value.is_meta and value.untyped_storage().nbytes() > value.element_size()
    }


@pytest.fixture
def llama(tmp_path: Path) -> Checkpoint:
    return save_family("llama", tmp_path)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=["fp32", "bf16"])
@pytest.mark.parametrize("family", FAMILIES)
def test_it_computes_what_the_whole_model_does(
    family: str, dtype: torch.dtype, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    checkpoint = save_family(family, tmp_path)
    monkeypatch.setattr(whole_model, "COMPUTE", dtype)
    with torch.no_grad():
        expected = whole_model.load_original(checkpoint)(input_ids=some_tokens(), use_cache=False).logits
    streamed = BlockModel(checkpoint, dtype)
    steps, hidden = heard(streamed.run(some_tokens()))
    (logits,) = streamed.logits(hidden, LENGTH)
    assert torch.equal(logits, expected)
    assert expected.isfinite().all()
    assert present(streamed) == set()
    assert steps[-1].done == steps[-1].total


def test_a_second_run_gives_the_same(llama: Checkpoint) -> None:
    streamed = BlockModel(llama)
    first, second = (heard(streamed.run(some_tokens()))[1] for _ in range(2))
    assert torch.equal(first, second)


def test_logits_come_in_slices(llama: Checkpoint) -> None:
    streamed = BlockModel(llama, torch.float32)
    _, hidden = heard(streamed.run(some_tokens()))
    slices = list(streamed.logits(hidden, 10))
    assert [part.shape for part in slices] == [(2, 10, WORDS), (2, 10, WORDS), (2, 4, WORDS)]
    (whole,) = streamed.logits(hidden, LENGTH)
    torch.testing.assert_close(torch.cat(slices, 1), whole)


def test_what_a_model_does_to_its_logits_is_done(tmp_path: Path) -> None:
    """Gemma 2 caps them at 30."""
    streamed = BlockModel(save_family("gemma2", tmp_path), torch.float32)
    (logits,) = streamed.logits(1e4 * torch.ones(1, 2, 32))
    assert 20 < float(logits.abs().max()) <= 30


def test_only_one_block_is_in_memory(llama: Checkpoint) -> None:
    streamed = BlockModel(llama)
    seen: list[set[str]] = []
    model: Any = streamed.model
    for layer in model.model.layers:
        layer.mlp.down_proj.register_forward_pre_hook(lambda *_: seen.append(present(streamed)))
    heard(streamed.run(some_tokens()))
    assert len(seen) == TINY["num_hidden_layers"]
    for index, names in enumerate(seen):
        assert names == {layer.name for layer in llama.layers if f".layers.{index}." in layer.name}


def test_progress_names_the_parts_and_only_grows(llama: Checkpoint) -> None:
    steps, _ = heard(BlockModel(llama).run(some_tokens()))
    blocks = [f"model.layers.{index}" for index in range(TINY["num_hidden_layers"])]
    assert list(dict.fromkeys(step.detail for step in steps)) == ["model.embed_tokens", *blocks, "model.norm"]
    assert [step.done for step in steps] == sorted(step.done for step in steps)
    assert {step.total for step in steps} == {llama.weights}


def test_every_yield_can_be_the_last(llama: Checkpoint) -> None:
    streamed = BlockModel(llama)
    hooks = [len(module._forward_pre_hooks) for module in streamed.model.modules()]
    steps, expected = heard(streamed.run(some_tokens()))
    threads = threading.active_count()
    for count in range(len(steps)):
        run = streamed.run(some_tokens())
        for _ in range(count):
            next(run)
        run.close()
        assert threading.active_count() == threads
        assert present(streamed) == set()
    assert hooks == [len(module._forward_pre_hooks) for module in streamed.model.modules()]
    assert torch.equal(heard(streamed.run(some_tokens()))[1], expected)


def test_a_run_that_nobody_follows_ends(llama: Checkpoint) -> None:
    threads = threading.active_count()
    run = BlockModel(llama).run(some_tokens())
    next(run)
    assert threading.active_count() == threads + 1
    del run
    gc.collect()
    assert threading.active_count() == threads


def test_a_file_that_is_gone_is_named_and_nothing_stays(llama: Checkpoint) -> None:
    streamed = BlockModel(llama)
    run = streamed.run(some_tokens())
    while next(run).detail != "model.layers.1":
        pass
    (llama.path / WEIGHTS).unlink()
    with pytest.raises(CheckpointError):
        heard(run)
    assert present(streamed) == set()


def test_logits_that_nobody_reads_to_the_end_give_the_head_back(llama: Checkpoint) -> None:
    streamed = BlockModel(llama)
    slices = streamed.logits(torch.zeros(1, LENGTH, TINY["hidden_size"], dtype=torch.bfloat16), 8)
    next(slices)
    assert present(streamed) == {"model.embed_tokens.weight"} or present(streamed) == {"lm_head.weight"}
    slices.close()
    assert present(streamed) == set()
    assert torch.is_grad_enabled()


@pytest.mark.parametrize("family", ["llama", "gpt2", "qwen3_moe"])
def test_weights_can_be_replaced(family: str, tmp_path: Path) -> None:
    """The transform is given output channels first, also where the file is not; here it zeroes every linear one."""
    checkpoint = save_family(family, tmp_path)
    given: dict[str, tuple[int, ...]] = {}

    def zeroed(layer: Layer, weight: Tensor) -> Tensor:
        given[layer.name] = tuple(weight.shape)
        return torch.zeros_like(weight) if layer.kind is Kind.LINEAR else weight

    streamed = BlockModel(checkpoint, torch.float32, zeroed)
    _, hidden = heard(streamed.run(some_tokens()))
    _, original = heard(BlockModel(checkpoint, torch.float32).run(some_tokens()))
    assert not torch.equal(hidden, original)
    assert given.keys() == {layer.name for layer in checkpoint.layers if layer.kind is not Kind.HEAD}
    for layer in checkpoint.layers:
        if layer.kind is Kind.LINEAR:
            assert given[layer.name] == layer.matrix


def test_steps_are_said_before_each_tensor(llama: Checkpoint) -> None:
    """A large block takes seconds to read: whoever waits may stop within it."""
    steps: Callable[[str], int] = [step.detail for step in heard(BlockModel(llama).run(some_tokens()))[0]].count
    within = [layer for layer in llama.layers if ".layers.0." in layer.name]
    assert steps("model.layers.0") == len(within) + 1
    assert isinstance(next(BlockModel(llama).run(some_tokens())), Progress)


def test_gradients_go_back_into_a_tensor_that_is_held(llama: Checkpoint) -> None:
    """The same logits as with the file's own, and the gradient of a whole pass by autograd."""
    name = "model.layers.0.mlp.up_proj.weight"
    layer = next(layer for layer in llama.layers if layer.name == name)
    weight = llama.read(layer).float().requires_grad_()
    streamed = BlockModel(llama, torch.float32, held=lambda each: weight if each.name == name else None)
    for _ in streamed.run_backward(some_tokens(), torch.ones_like):
        pass
    model = whole_model.load_original(llama).float().requires_grad_()
    model(input_ids=some_tokens(), use_cache=False).logits.sum().backward()
    expected = model.get_parameter(name).grad
    assert weight.grad is not None
    assert expected is not None
    assert torch.allclose(weight.grad, expected, rtol=1e-3, atol=1e-4)
