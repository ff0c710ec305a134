"""What a config or a file says that changes how a text is read: lengths, ties, ends. Against transformers, in fp32."""

import json
import sys
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor
from transformers import AutoModelForCausalLM, DynamicCache

from studio.base.errors import CheckpointError
from studio.checkpoint.checkpoint import of_folder
from studio.checkpoint.config import load_config
from studio.checkpoint.layers import Kind
from studio.runtime import model as studio_model
from studio.runtime.decoder import GeneralDecoder, open_compressed, open_original
from tests.families import agree, tiny
from tests.families.families import EXACT

TOKENS = agree.some_tokens(tiny.VOCABULARY, 120)
ORIGINAL = 48
"""Positions of the original length, which the texts here cross."""
DYNAMIC = {"rope_type": "dynamic", "rope_theta": 1e4, "factor": 4.0}
LONGROPE = {"rope_type": "longrope", "rope_theta": 1e4, "short_factor": [1.0] * 4, "long_factor": [1.0, 2.0, 3.0, 4.0]}


@pytest.fixture(autouse=True)
def _in_fp32(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(studio_model, "COMPUTE", torch.float32)


def dynamic(folder: Path) -> Any:
    return tiny.save("llama", folder, max_position_embeddings=ORIGINAL, rope_parameters=DYNAMIC)


def longrope(folder: Path) -> Any:
    return tiny.save("phi3", folder, original_max_position_embeddings=ORIGINAL, rope_parameters=LONGROPE)


def general(folder: Path) -> GeneralDecoder:
    return GeneralDecoder(studio_model.load_original(of_folder(folder)))


def cached(folder: Path, prompt: int) -> Tensor:
    """Return the logits of transformers itself, which reads a prompt at once and then token by token."""
    model = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32).eval()
    cache, found = DynamicCache(config=model.config), []
    pieces = [TOKENS[:prompt], *([token] for token in TOKENS[prompt:])]
    with torch.inference_mode():
        for piece in pieces:
            found.append(model(input_ids=torch.tensor([list(piece)]), cache=cache).logits[0])
    return torch.cat(found)


@pytest.mark.parametrize("prompt", [1, 30, 80], ids=["from nothing", "across the length", "beyond it"])
def test_dynamic_ntk_follows_the_length_as_in_transformers(tmp_path: Path, prompt: int) -> None:
    dynamic(tmp_path)
    found = agree.in_pieces(general(tmp_path), TOKENS, (prompt,))
    assert agree.error(found, cached(tmp_path, prompt)) < EXACT


@pytest.mark.parametrize("pieces", [(40, 40, 40), (20, 60, 40), (119, 1)])
@pytest.mark.parametrize("save", [dynamic, longrope])
def test_a_prompt_in_pieces_is_rotated_for_its_whole_length(tmp_path: Path, save: Any, pieces: Sequence[int]) -> None:
    expected = agree.reference(save(tmp_path), TOKENS)
    found = agree.in_pieces(general(tmp_path), TOKENS, pieces)
    last = pieces[-1]
    if save is longrope or last > 1:
        assert agree.error(found[-last:], expected[-last:]) < EXACT


def test_longrope_reads_again_where_a_text_crosses_the_original_length(tmp_path: Path) -> None:
    model = longrope(tmp_path)
    found = agree.in_pieces(general(tmp_path), TOKENS, (20,))
    assert agree.error(found[:ORIGINAL], agree.reference(model, TOKENS[:ORIGINAL])) < EXACT
    assert agree.error(found[ORIGINAL:], agree.reference(model, TOKENS)[ORIGINAL:]) < EXACT


@pytest.mark.parametrize("save", [dynamic, longrope])
def test_an_answer_does_not_depend_on_what_was_read_before(tmp_path: Path, save: Any) -> None:
    save(tmp_path)
    decoder, short = general(tmp_path), TOKENS[: ORIGINAL + 5]
    before = agree.in_pieces(decoder, short, (ORIGINAL + 5,))
    cache = decoder.begin(len(TOKENS))
    decoder.forward_all(cache, TOKENS)
    assert torch.equal(agree.in_pieces(decoder, short, (ORIGINAL + 5,)), before)
    cache.rewind(30)
    assert agree.error(decoder.forward_all(cache, short[30:]), before[30:]) < EXACT


@pytest.mark.parametrize("save", [dynamic, longrope])
def test_two_threads_read_as_each_would_alone(tmp_path: Path, save: Any) -> None:
    """One is beyond the original length, the other is not."""
    save(tmp_path)
    decoder, texts = general(tmp_path), (TOKENS[:ORIGINAL], TOKENS[: ORIGINAL + 30])
    alone = [decoder.forward_all(decoder.begin(len(text)), text) for text in texts]

    def differing(which: int) -> int:
        found = (decoder.forward_all(decoder.begin(len(texts[which])), texts[which]) for _ in range(60))
        return sum(not torch.equal(logits, alone[which]) for logits in found)

    before = sys.getswitchinterval()
    sys.setswitchinterval(1e-5)
    try:
        with ThreadPoolExecutor(2) as threads:
            assert list(threads.map(differing, range(2))) == [0, 0]
    finally:
        sys.setswitchinterval(before)


def test_a_state_that_the_model_keeps_is_a_text_s_own_and_counted(tmp_path: Path) -> None:
    """RecurrentGemma's modules keep it; a text cannot go back in it."""
    tiny.save("recurrent_gemma", tmp_path)
    decoder = general(tmp_path)
    cache = decoder.begin(16)
    decoder.forward_all(cache, TOKENS[:9])
    assert cache.nbytes > sum(state.nbytes for state in cache.states) > 0
    with pytest.raises(ValueError, match="rewound"):
        cache.rewind(4)


def test_a_head_of_its_own_is_kept_whatever_the_config_says_of_tying(tmp_path: Path) -> None:
    """Two of other values are two, as in transformers; two that are equal are one."""
    tiny.save("llama", tmp_path / "model", tie_word_embeddings=False)
    edit(tmp_path / "model", tie_word_embeddings=True)
    model = AutoModelForCausalLM.from_pretrained(tmp_path / "model", dtype=torch.float32).eval()
    expected = agree.reference(model, TOKENS)
    checkpoint = of_folder(tmp_path / "model")
    assert Kind.HEAD in {layer.kind for layer in checkpoint.layers}
    assert agree.error(agree.in_pieces(general(tmp_path / "model"), TOKENS, (60,)), expected) < EXACT
    assert agree.error(agree.by_blocks(checkpoint, TOKENS), expected) < EXACT
    fast = (open_original(checkpoint), open_compressed(agree.packed(checkpoint, tmp_path)))
    assert all(agree.error(agree.in_pieces(decoder, TOKENS, (60,)), expected) < 0.06 for decoder in fast)
    tensors = load_file(tmp_path / "model" / "model.safetensors")
    tensors["lm_head.weight"] = tensors["model.embed_tokens.weight"].clone()
    save_file(tensors, tmp_path / "model" / "model.safetensors", {"format": "pt"})
    assert Kind.HEAD not in {layer.kind for layer in of_folder(tmp_path / "model").layers}


@pytest.mark.parametrize("general_too", [False, True], ids=["no file", "a file without"])
def test_the_config_names_what_ends_an_answer_where_no_other_file_does(tmp_path: Path, general_too: bool) -> None:
    tiny.save("llama", tmp_path)
    edit(tmp_path, eos_token_id=[2, 9])
    file = tmp_path / "generation_config.json"
    file.unlink(missing_ok=True)
    if general_too:
        file.write_text("{}")
    assert general(tmp_path).stop_ids == open_original(of_folder(tmp_path)).stop_ids == {2, 9}
    file.write_text('{"eos_token_id": 7}')
    assert general(tmp_path).stop_ids == open_original(of_folder(tmp_path)).stop_ids == {7}


@pytest.mark.parametrize("name", ["generation_config.json", "config.json"])
@pytest.mark.parametrize("open_it", [general, lambda folder: open_original(of_folder(folder))], ids=["general", "fast"])
def test_what_cannot_end_an_answer_is_refused_whichever_way_it_is_computed(
    tmp_path: Path, open_it: Any, name: str
) -> None:
    tiny.save("llama", tmp_path)
    settings = json.loads((tmp_path / "config.json").read_text())
    (tmp_path / "generation_config.json").write_text("{}")
    (tmp_path / name).write_text(json.dumps(settings | {"eos_token_id": [2, "</s>"]}))
    with pytest.raises(CheckpointError) as refusal:
        open_it(tmp_path)
    assert refusal.value.key == "wrong_config_value"
    assert refusal.value.values["key"] == "eos_token_id"
    assert refusal.value.values["file"] == name


def test_falcon_with_alibi_agrees_with_sdpa(tmp_path: Path) -> None:
    """transformers' eager form of it differs from its own sdpa."""
    tiny.save("falcon", tmp_path, alibi=True)
    model = AutoModelForCausalLM.from_pretrained(tmp_path, dtype=torch.float32, attn_implementation="sdpa").eval()
    found = agree.in_pieces(general(tmp_path), TOKENS, (37, 1, 50))
    assert agree.error(found, agree.reference(model, TOKENS)) < EXACT


def test_experts_in_a_table_are_no_modules(tmp_path: Path) -> None:
    """Doge's config counts 16,384 of them by default, and builds none."""
    tiny.save("doge", tmp_path, num_experts=1 << 14)
    assert of_folder(tmp_path).can_chat


def test_what_stretches_the_rotation_of_a_model_that_sees_is_kept() -> None:
    yarn = {"rope_type": "yarn", "rope_theta": 1e4, "factor": 4.0, "original_max_position_embeddings": 64}
    for kind, expected in (("yarn", "yarn"), ("mrope", "default"), ("default", "default")):
        rope = yarn | {"rope_type": kind, "mrope_section": [1, 1, 2]}
        text = {
            "rope_parameters": rope,
            "num_hidden_layers": 1,
            "hidden_size": 32,
            "num_attention_heads": 4,
            "num_key_value_heads": 4,
        }
        found = load_config({"model_type": "qwen2_5_vl", "text_config": text}).rope_parameters
        assert found["rope_type"] == expected
        assert "mrope_section" not in found


def edit(folder: Path, **settings: Any) -> None:
    file = folder / "config.json"
    file.write_text(json.dumps(json.loads(file.read_text()) | settings))
