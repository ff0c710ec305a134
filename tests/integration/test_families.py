"""Every family of models goes the whole way: open, compress, chat, export. Tiny random ones, saved by transformers.

What a compressed folder computes is compared with transformers' own model holding the weights that the folder's
numbers stand for; the original with transformers' own model.
"""

import json
import shutil
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import pytest
import torch
import transformers as tf
from safetensors import safe_open
from safetensors.torch import load_file, save_file
from torch import Tensor, nn
from transformers.integrations.mxfp4 import convert_moe_packed_tensors
from typer.testing import CliRunner

from studio.base.errors import CheckpointError, ModelError, UserError
from studio.chat.answers import Answers
from studio.checkpoint.checkpoint import Checkpoint, of_folder
from studio.checkpoint.file_names import INDEX, PACKED, WEIGHTS
from studio.checkpoint.layers import Kind
from studio.checkpoint.recipe import read_recipe
from studio.cli.commands import app
from studio.planning.choice import Choice
from studio.planning.sampled_survey import draws, sampled_survey
from studio.quantization.packing import PackedTensor
from studio.quantization.scheme import Scheme
from studio.runtime.decoder import MOST_TOKENS, GeneralDecoder
from studio.runtime.kernels import PackedStack
from studio.runtime.model import load_compressed, load_original, slow_schemes
from studio.runtime.sampling import Sampling
from studio.session.session import Session
from tests.conftest import tiny_tokenizer
from tests.small import CountedRanges
from tests.steps import finish

BOUND = 0.03
"""Relative error of the logits of two models in bf16 that multiply in a different order."""
V = 320
TOKENS = {"vocab_size": V, "bos_token_id": 0, "eos_token_id": 1, "pad_token_id": 2}
SHAPE = {
    "hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 2, "num_attention_heads": 4,
    "num_key_value_heads": 2, "max_position_embeddings": 512, "initializer_range": 0.1, **TOKENS,
}  # fmt: skip
HEADS = SHAPE | {"head_dim": 8}
BERT = {name: value for name, value in SHAPE.items() if name != "num_key_value_heads"}
EXPERTS = {"num_experts": 4, "num_experts_per_tok": 2, "moe_intermediate_size": 32}
LINEAR_ATTENTION = {
    "linear_num_key_heads": 2, "linear_num_value_heads": 4, "linear_key_head_dim": 8, "linear_value_head_dim": 8,
    "layer_types": ["linear_attention", "full_attention"],
}  # fmt: skip
EYES = {"hidden_size": 32, "intermediate_size": 32, "num_hidden_layers": 1, "num_attention_heads": 2}
EYES |= {"image_size": 28, "patch_size": 14}
QWEN_EYES = {"depth": 1, "hidden_size": 32, "intermediate_size": 32, "num_heads": 2, "out_hidden_size": 32}
ROTATION = {"rope_type": "default", "rope_theta": 1e4}

CONFIGS: dict[str, Callable[[], Any]] = {
    "opt": lambda: tf.OPTConfig(
        hidden_size=32, word_embed_proj_dim=32, ffn_dim=64, num_hidden_layers=2, num_attention_heads=4, **TOKENS
    ),
    "llama": lambda: tf.LlamaConfig(**HEADS),
    "falcon": lambda: tf.FalconConfig(hidden_size=32, num_hidden_layers=2, num_attention_heads=4, **TOKENS),
    "bloom": lambda: tf.BloomConfig(hidden_size=32, n_layer=2, n_head=4, **TOKENS),
    "mistral": lambda: tf.MistralConfig(**HEADS),
    "mixtral": lambda: tf.MixtralConfig(**HEADS, num_local_experts=4, num_experts_per_tok=2),
    "glm": lambda: tf.GlmConfig(**HEADS),
    "glm4": lambda: tf.Glm4Config(**HEADS),
    "stablelm": lambda: tf.StableLmConfig(**SHAPE),
    "gemma": lambda: tf.GemmaConfig(**HEADS),
    "gemma2": lambda: tf.Gemma2Config(**HEADS),
    "gemma3_text": lambda: tf.Gemma3TextConfig(**HEADS),
    "mamba": lambda: tf.MambaConfig(hidden_size=32, state_size=4, num_hidden_layers=2, **TOKENS),
    "qwen2": lambda: tf.Qwen2Config(**SHAPE),
    "qwen3": lambda: tf.Qwen3Config(**HEADS),
    "qwen3_moe": lambda: tf.Qwen3MoeConfig(**HEADS, **EXPERTS),
    "qwen3_next": lambda: tf.Qwen3NextConfig(
        **HEADS, **EXPERTS, **LINEAR_ATTENTION, shared_expert_intermediate_size=32
    ),
    "qwen3_5_text": lambda: tf.Qwen3_5TextConfig(**HEADS, **LINEAR_ATTENTION),
    "phi3": lambda: tf.Phi3Config(**SHAPE),
    "gpt2": lambda: tf.GPT2Config(n_embd=32, n_layer=2, n_head=4, **TOKENS),
    "gpt_oss": lambda: tf.GptOssConfig(**HEADS, num_local_experts=4, num_experts_per_tok=2),
    "gemma3": lambda: tf.Gemma3Config(
        text_config={**HEADS, "model_type": "gemma3_text"},
        vision_config={**EYES, "model_type": "siglip_vision_model"},
    ),
    "qwen2_5_vl": lambda: tf.Qwen2_5_VLConfig(
        text_config=SHAPE | {"rope_parameters": ROTATION | {"mrope_section": [1, 1, 2]}}, vision_config=QWEN_EYES
    ),
    "qwen3_vl_moe": lambda: tf.Qwen3VLMoeConfig(
        text_config={**HEADS, **EXPERTS, "rope_parameters": ROTATION | {"mrope_section": [2, 1, 1]}},
        vision_config=QWEN_EYES | {"deepstack_visual_indexes": [0]},
    ),
    "llava": lambda: tf.LlavaConfig(
        text_config={**HEADS, "model_type": "llama"}, vision_config={**EYES, "model_type": "clip_vision_model"}
    ),
    "bert": lambda: tf.BertConfig(**BERT),
    "t5": lambda: tf.T5Config(d_model=32, d_kv=8, d_ff=64, num_layers=2, num_heads=4, vocab_size=V),
    "bart": lambda: tf.BartConfig(
        d_model=32, encoder_layers=2, decoder_layers=2, encoder_attention_heads=4, decoder_attention_heads=4,
        encoder_ffn_dim=64, decoder_ffn_dim=64, scale_embedding=True, **TOKENS,
    ),
}  # fmt: skip
READERS = ("bert", "t5", "bart")
"""Those that cannot chat."""
WITH_EYES = ("gemma3", "qwen2_5_vl", "qwen3_vl_moe", "llava")
WITH_EXPERTS = ("mixtral", "qwen3_moe", "qwen3_next", "gpt_oss", "qwen3_vl_moe")

of_every_family = pytest.mark.parametrize("family", CONFIGS)
of_every_speaker = pytest.mark.parametrize("family", [name for name in CONFIGS if name not in READERS])


def auto_class(family: str) -> Any:
    if family in WITH_EYES:
        return tf.AutoModelForImageTextToText
    if family in READERS:
        return tf.AutoModelForMaskedLM if family == "bert" else tf.AutoModelForSeq2SeqLM
    return tf.AutoModelForCausalLM


def save(family: str, folder: Path) -> Path:
    torch.manual_seed(0)
    auto_class(family).from_config(CONFIGS[family](), dtype=torch.bfloat16).save_pretrained(folder)
    tiny_tokenizer().save_pretrained(folder)
    return folder


def reference(family: str, folder: Path) -> Any:
    """Return transformers' own model, in the precision and with the experts the studio runs it with."""
    model = auto_class(family).from_pretrained(
        folder, dtype=torch.bfloat16, local_files_only=True, experts_implementation="eager"
    )
    return model.eval()


@torch.inference_mode()
def logits(model: nn.Module) -> Tensor:
    ids = torch.randint(3, V, (1, 24), generator=torch.Generator().manual_seed(1))
    more = {"decoder_input_ids": ids} if model.config.is_encoder_decoder else {}  # type: ignore[union-attr]
    found: Tensor = model(ids, **more).logits
    return found[0].double()


def distance(found: Tensor, expected: Tensor) -> float:
    """Return the relative error of the middle row: a router between two experts may go either way for a few tokens."""
    return float(((found - expected).norm(dim=-1) / expected.norm(dim=-1)).median())


@dataclass(frozen=True)
class Made:
    """A tiny model and what compressing it left."""

    source: Path
    checkpoint: Checkpoint
    session: Session
    folder: Path


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Callable[[str], Made]]:
    """Each family compressed once, to 4 bits in groups that divide every width."""
    sessions = []

    @cache
    def make(family: str) -> Made:
        source = save(family, tmp_path_factory.mktemp("source") / family)
        session = Session(paths=True, workspace=tmp_path_factory.mktemp("workspace"))
        sessions.append(session)
        checkpoint = finish(session.open(str(source)))
        session.planner.choose(Choice.of("int4_asym", -1, 1, "int8_asym"))
        finish(session.compress())
        assert session.copy.folder is not None
        return Made(source, checkpoint, session, session.copy.folder)

    yield make
    for session in sessions:
        session.close()


@of_every_family
def test_the_original_is_transformers_model(made: Callable[[str], Made], family: str) -> None:
    one = made(family)
    assert distance(logits(load_original(one.checkpoint)), logits(reference(family, one.source))) < BOUND


@of_every_family
def test_the_packed_model_computes_what_its_numbers_stand_for(made: Callable[[str], Made], family: str) -> None:
    one = made(family)
    expected = load_original(one.checkpoint)
    whole = logits(expected)
    parameters = dict(expected.named_parameters(remove_duplicate=False))
    with safe_open(one.folder / PACKED, framework="pt") as file:
        for weight in read_recipe(one.folder).weights:
            arrays = {part.name: file.get_tensor(f"{weight.name}.{part.name}") for part in weight.parts}
            value = PackedTensor.of(Scheme.parse(weight.scheme), weight.shape, arrays).dequantize()
            parameter = parameters[weight.name]
            rows = value.reshape(*parameter.shape[:-2], -1, value.shape[-1])
            parameter.data.copy_(rows.mT if weight.transposed else rows)
    compressed = logits(load_compressed(one.folder))
    assert distance(compressed, logits(expected)) < BOUND
    assert distance(compressed, whole) > 0


@of_every_family
def test_every_weight_of_the_text_is_in_the_map_once(made: Callable[[str], Made], family: str) -> None:
    one = made(family)
    parameters = dict(load_original(one.checkpoint).named_parameters())
    layers = one.checkpoint.layers
    sizes = {parameter.data_ptr(): parameter.numel() for parameter in parameters.values()}
    assert sum(layer.numel for layer in layers if layer.name in parameters) == sum(sizes.values())
    places = [(layer.block, layer.projection) for layer in layers if layer.kind is Kind.LINEAR]
    assert len(set(places)) == len(places)


@pytest.mark.usefixtures("own_cache")
@of_every_family
def test_a_sample_reads_the_bytes_it_says(made: Callable[[str], Made], family: str) -> None:
    """However a family's file holds its weights: fused, expert by expert, with channels in rows or in columns."""
    checkpoint = made(family).checkpoint
    place = CountedRanges(checkpoint.path)
    found = finish(sampled_survey(checkpoint, place, runs=2, rows=3))
    drawn = draws(checkpoint, runs=2, rows=3)
    assert sum(place.asked) == sum(draw.nbytes for draw in drawn)
    assert {name: line.rows for name, line in found.items()} == {draw.layer.name: draw.rows for draw in drawn}
    assert all(draw.rows >= min(4, draw.layer.matrix[0]) for draw in drawn), "the last run may be a short one"


@of_every_speaker
def test_both_models_chat(made: Callable[[str], Made], family: str) -> None:
    *_, last = made(family).session.chat("What is the capital of France? " * 8, Sampling(max_new_tokens=4))
    assert isinstance(last, Answers)
    assert [reply.error for reply in last.replies] == [None, None]
    assert all(reply.tokens for reply in last.replies)


@of_every_speaker
def test_answering_piece_by_piece_is_answering_at_once(made: Callable[[str], Made], family: str) -> None:
    """The cache of every kind of block holds what a long prompt's first pieces left."""
    one = made(family)
    model = load_original(one.checkpoint)
    decoder = GeneralDecoder(model)
    ids = torch.randint(3, V, (150,), generator=torch.Generator().manual_seed(2)).tolist()
    cache = decoder.begin(150)
    decoder.step(cache, ids[:MOST_TOKENS])
    token = int(decoder.step(cache, ids[MOST_TOKENS:]).argmax())
    with torch.inference_mode():
        expected = model(torch.tensor([ids])).logits[0, -1].float()
    assert expected[token] > expected.max() - 0.05 * expected.std()


@of_every_family
def test_transformers_knows_the_exported_config(made: Callable[[str], Made], family: str) -> None:
    config = tf.AutoConfig.from_pretrained(made(family).folder, local_files_only=True)
    assert config.model_type == made(family).checkpoint.architecture
    assert not hasattr(config, "vision_config")


@pytest.mark.parametrize("family", WITH_EYES)
def test_only_the_text_part_is_taken(made: Callable[[str], Made], family: str) -> None:
    one = made(family)
    assert one.checkpoint.part == "text"
    assert not any("vis" in name for layer in one.checkpoint.layers for name in (layer.name, *layer.sources))
    answer = CliRunner().invoke(app, ["estimate", str(one.source), "--group-size", "-1", "--json"])
    assert json.loads(answer.stdout)["part"] == "text"
    assert "text part" in answer.stderr


def test_the_first_names_of_such_models_are_found(made: Callable[[str], Made], tmp_path: Path) -> None:
    """As the repositories of before transformers 5 hold them: ``language_model.model.layers.0.…``."""
    folder = Path(shutil.copytree(made("llava").source, tmp_path / "llava"))
    tensors = {
        name.replace("model.language_model.", "language_model.model.").replace("lm_head", "language_model.lm_head"): t
        for name, t in load_file(folder / WEIGHTS).items()
    }
    save_file(tensors, folder / WEIGHTS, {"format": "pt"})
    assert torch.equal(logits(load_original(of_folder(folder))), logits(load_original(made("llava").checkpoint)))


@pytest.mark.parametrize("family", WITH_EXPERTS)
def test_experts_are_packed_and_taken_out_one_by_one(made: Callable[[str], Made], family: str) -> None:
    one = made(family)
    experts = [layer for layer in one.checkpoint.layers if len(layer.shape) == 3 and layer.kind is Kind.LINEAR]
    assert {layer.name.rpartition(".")[2] for layer in experts} == {"gate_up_proj", "down_proj"}
    assert all(layer.transposed == (family == "gpt_oss") for layer in experts)
    assert all(
        layer.shape[-1] in (32, 64) and layer.matrix == (4 * layer.shape[1], layer.shape[2]) for layer in experts
    )
    model = load_compressed(one.folder)
    assert sum(isinstance(module, PackedStack) for module in model.modules()) == len(experts)
    assert slow_schemes(model)
    routers = [layer for layer in one.checkpoint.layers if layer.name.endswith((".gate.weight", ".router.weight"))]
    assert {layer.kind for layer in routers} == {Kind.OTHER}


@pytest.mark.parametrize("family", WITH_EXPERTS)
def test_rows_of_experts_are_read_across_their_tensors(made: Callable[[str], Made], family: str) -> None:
    checkpoint = made(family).checkpoint
    model = dict(reference(family, made(family).source).named_parameters())
    for layer in checkpoint.layers:
        if len(layer.shape) == 3 and layer.kind is Kind.LINEAR:
            name = layer.name if layer.name in model else layer.name.replace("model.", "model.language_model.")
            value = model[name].mT if layer.transposed else model[name]
            matrix = value.reshape(layer.matrix)
            rows = layer.matrix[0]
            for start, stop in ((0, rows), (5, 7), (layer.shape[1] - 3, layer.shape[1] + 9), (rows - 1, rows)):
                assert torch.equal(checkpoint.read(layer, start, stop), matrix[start:stop])
            stored = torch.cat(list(checkpoint.stored(layer))).reshape(layer.stored_shape)
            assert torch.equal(stored, model[name])


@pytest.mark.parametrize("family", READERS)
def test_what_only_reads_is_refused_for_chat_in_one_sentence(made: Callable[[str], Made], family: str) -> None:
    one = made(family)
    assert not one.checkpoint.can_chat
    with pytest.raises(ModelError) as caught:
        next(iter(one.session.chat("Hello", Sampling())))
    assert caught.value.key == "cannot_chat"
    for folder in (one.source, one.folder):
        answer = CliRunner().invoke(app, ["chat", str(folder), "--prompt", "Hello", "--json"])
        assert answer.exit_code == 2
        assert json.loads(answer.stdout)["error"]["key"] == "cannot_chat"


def test_blocks_of_encoder_and_decoder_have_places_of_their_own(made: Callable[[str], Made]) -> None:
    projections = {layer.projection for layer in made("t5").checkpoint.layers if layer.block == 0}
    assert {"encoder.layer.0.SelfAttention.q", "decoder.layer.0.SelfAttention.q"} <= projections


# bad input


@pytest.fixture
def copied(made: Callable[[str], Made], tmp_path: Path) -> Callable[[str], Path]:
    """A copy of a family's folder, to be damaged."""
    return lambda family: Path(shutil.copytree(made(family).source, tmp_path / family))


def changed(folder: Path, **tensors: Tensor | None) -> Path:
    """Replace tensors of a folder's file, or leave them out; a name's dots are written ``__``."""
    new = {name.replace("__", "."): tensor for name, tensor in tensors.items()}
    kept = {name: tensor for name, tensor in (load_file(folder / WEIGHTS) | new).items() if tensor is not None}
    save_file(kept, folder / WEIGHTS, {"format": "pt"})
    return folder


@pytest.mark.parametrize(
    "expert",
    [None, torch.ones(64, 16), torch.ones(64), torch.ones(0, 32), torch.ones(63, 32)],
    ids=["missing", "narrow", "flat", "empty", "short"],
)
def test_an_expert_that_is_not_like_the_others_is_named(copied: Callable[[str], Path], expert: Tensor | None) -> None:
    folder = copied("mixtral")
    name = next(n for n in load_file(folder / WEIGHTS) if n.endswith("experts.2.w1.weight"))
    changed(folder, **{name: expert})
    with pytest.raises(CheckpointError) as caught:
        of_folder(folder)
    assert caught.value.key == "tensor_mismatch"
    assert caught.value.values["tensor"] == "model.layers.0.mlp.experts.gate_up_proj"


def test_a_tensor_of_one_axis_where_a_weight_belongs_is_named(copied: Callable[[str], Path]) -> None:
    folder = changed(copied("llama"), model__layers__1__mlp__up_proj__weight=torch.ones(64 * 32))
    with pytest.raises(CheckpointError) as caught:
        of_folder(folder)
    assert caught.value.values == {"tensor": "model.layers.1.mlp.up_proj.weight"}


@pytest.mark.parametrize("family", ["gemma", "t5", "gpt2"])
def test_a_tensor_saved_under_each_of_its_names_or_only_the_last_is_the_same(
    made: Callable[[str], Made], copied: Callable[[str], Path], family: str
) -> None:
    folder = copied(family)
    owner = next(layer for layer in of_folder(folder).layers if layer.tied)
    value = load_file(folder / WEIGHTS)[owner.source]
    expected = logits(load_original(made(family).checkpoint))
    changed(folder, **{twin: value.clone() for twin in owner.tied})
    assert torch.equal(logits(load_original(of_folder(folder))), expected)
    changed(folder, **{owner.source: None})
    assert torch.equal(logits(load_original(of_folder(folder))), expected)


def sharded(folder: Path) -> dict[str, str]:
    """WindowMean a folder's tensors over two files and return the index's map."""
    tensors = load_file(folder / WEIGHTS)
    names = sorted(tensors)
    shards = {"one.safetensors": names[::2], "two.safetensors": names[1::2]}
    for shard, held in shards.items():
        save_file({name: tensors[name] for name in held}, folder / shard, {"format": "pt"})
    (folder / WEIGHTS).unlink()
    return {name: shard for shard, held in shards.items() for name in held}


def write_index(folder: Path, weight_map: dict[str, str]) -> None:
    (folder / INDEX).write_text(json.dumps({"metadata": {}, "weight_map": weight_map}))


def test_experts_spread_over_files_are_one(made: Callable[[str], Made], copied: Callable[[str], Path]) -> None:
    folder = copied("mixtral")
    write_index(folder, sharded(folder))
    assert torch.equal(logits(load_original(of_folder(folder))), logits(load_original(made("mixtral").checkpoint)))


def test_a_file_the_index_does_not_name_is_missed_by_its_tensor(copied: Callable[[str], Path]) -> None:
    folder = copied("llama")
    whole = sharded(folder)
    write_index(folder, {name: shard for name, shard in whole.items() if shard != "two.safetensors"})
    with pytest.raises(CheckpointError) as caught:
        of_folder(folder)
    assert caught.value.key == "tensor_missing"


def test_a_tensor_in_two_files_is_refused(copied: Callable[[str], Path]) -> None:
    folder = copied("llama")
    weight_map = sharded(folder)
    tensors = load_file(folder / "one.safetensors") | load_file(folder / "two.safetensors")
    save_file(tensors, folder / "two.safetensors", {"format": "pt"})
    write_index(folder, weight_map)
    with pytest.raises(CheckpointError) as caught:
        of_folder(folder)
    assert (caught.value.key, caught.value.values) == ("tensor_twice", {"tensor": "lm_head.weight"})


@pytest.mark.parametrize(
    ("family", "backup"),
    [("mixtral", "int8_asym"), ("mixtral", "none"), ("qwen3_vl_moe", "none"), ("gpt_oss", "none")],
)
def test_experts_kept_at_16_bits_are_as_they_were(
    made: Callable[[str], Made], copied: Callable[[str], Path], family: str, backup: str
) -> None:
    session = Session(paths=True, workspace=copied(family) / "workspace")
    checkpoint = finish(session.open(str(made(family).source)))
    session.planner.choose(Choice.of("int4_asym", -1, 0.05, backup))
    finish(session.compress())
    assert session.copy.folder is not None
    kept = dict(load_compressed(session.copy.folder).named_parameters())
    original = dict(load_original(checkpoint).named_parameters())
    experts = [layer.name for layer in checkpoint.layers if len(layer.shape) == 3 and layer.kind is Kind.LINEAR]
    assert any(name in kept for name in experts) == (backup == "none")
    for name in kept:
        assert torch.equal(kept[name], original[name])
    session.close()


@pytest.mark.parametrize("family", ["mixtral", "gpt_oss", "bert"])
@pytest.mark.parametrize("value", [float("nan"), float("inf")], ids=["nan", "inf"])
def test_values_that_are_no_numbers_are_named(copied: Callable[[str], Path], family: str, value: float) -> None:
    folder = copied(family)
    layer = [layer for layer in of_folder(folder).layers if layer.kind is Kind.LINEAR][-1]
    tensor = load_file(folder / WEIGHTS)[layer.source]
    tensor.flatten()[-1] = value
    changed(folder, **{layer.source: tensor})
    session = Session(paths=True, workspace=folder / "workspace")
    finish(session.open(str(folder)))
    session.planner.choose(Choice.of("int4_asym", -1, 1, "int8_asym"))
    with pytest.raises(UserError) as caught:
        finish(session.compress())
    assert (caught.value.key, caught.value.values) == ("not_finite", {"tensor": layer.source})


# sources that are quantized already


FP8 = {"quant_method": "fp8", "weight_block_size": [16, 16]}


def test_fp8_experts_and_projections_are_read(made: Callable[[str], Made], copied: Callable[[str], Path]) -> None:
    folder = copied("mixtral")
    tensors = load_file(folder / WEIGHTS)
    for name in [name for name in tensors if name.endswith("_proj.weight") or ".experts." in name]:
        rows, width = (size // 16 for size in tensors[name].shape)
        scale = torch.rand(rows, width) + 0.5
        wide = scale.repeat_interleave(16, 0).repeat_interleave(16, 1)
        quantized = (tensors[name].float() / wide).to(torch.float8_e4m3fn)
        tensors |= {name: quantized, f"{name}_scale_inv": scale}
    save_file(tensors, folder / WEIGHTS, {"format": "pt"})
    config = json.loads((folder / "config.json").read_text()) | {"quantization_config": FP8}
    (folder / "config.json").write_text(json.dumps(config))
    checkpoint = of_folder(folder)
    assert "F8_E4M3" in checkpoint.source_format
    assert distance(logits(load_original(checkpoint)), logits(load_original(made("mixtral").checkpoint))) < 0.3
    layer = next(layer for layer in checkpoint.layers if layer.name.endswith("gate_up_proj"))
    before = next(old for old in made("mixtral").checkpoint.layers if old.name == layer.name)
    assert distance(checkpoint.read(layer, 60, 140), made("mixtral").checkpoint.read(before, 60, 140)) < 0.05
    session = Session(paths=True, workspace=folder / "workspace")
    finish(session.open(str(folder)))
    session.planner.choose(Choice.of("int8_asym", -1, 1, "int8_asym"))
    finish(session.compress())
    assert session.copy.folder is not None
    exported = json.loads((session.copy.folder / "config.json").read_text())
    assert exported["quantization_config"] == {"quant_method": "quantization-studio"}
    assert distance(logits(load_compressed(session.copy.folder)), logits(load_original(checkpoint))) < 0.05
    session.close()


def test_mxfp4_experts_are_read(made: Callable[[str], Made], copied: Callable[[str], Path]) -> None:
    """Their file is output channels first, their parameter the other way round; K = N tells nothing."""
    folder = copied("gpt_oss")
    tensors = load_file(folder / WEIGHTS)
    values = {}
    for name in [name for name in tensors if name.endswith(("experts.gate_up_proj", "experts.down_proj"))]:
        experts, width, rows = tensors.pop(name).shape
        blocks = torch.randint(0, 256, (experts, rows, width // 32, 16), dtype=torch.uint8)
        scales = torch.randint(120, 126, (experts, rows, width // 32), dtype=torch.uint8)
        tensors |= {f"{name}_blocks": blocks, f"{name}_scales": scales}
        values[name] = convert_moe_packed_tensors(blocks, scales)
    save_file(tensors, folder / WEIGHTS, {"format": "pt"})
    config = json.loads((folder / "config.json").read_text()) | {"quantization_config": {"quant_method": "mxfp4"}}
    (folder / "config.json").write_text(json.dumps(config))
    checkpoint = of_folder(folder)
    assert "MXFP4" in checkpoint.source_format
    parameters = dict(load_original(checkpoint).named_parameters())
    for name, value in values.items():
        assert torch.equal(parameters[name], value)
    layer = next(layer for layer in checkpoint.layers if layer.name.endswith("down_proj"))
    assert torch.equal(checkpoint.read(layer, 30, 70), values[layer.name].mT.reshape(layer.matrix)[30:70])
    session = Session(paths=True, workspace=folder / "workspace")
    finish(session.open(str(folder)))
    session.planner.choose(Choice.of("int8_asym", -1, 1, "int8_asym"))
    finish(session.compress())
    assert session.copy.folder is not None
    assert distance(logits(load_compressed(session.copy.folder)), logits(load_original(checkpoint))) < 0.05
    session.close()


# older names


def test_the_first_names_of_bert_are_found(made: Callable[[str], Made], copied: Callable[[str], Path]) -> None:
    folder = copied("bert")
    tensors = {
        name.replace("LayerNorm.weight", "LayerNorm.gamma").replace("LayerNorm.bias", "LayerNorm.beta"): tensor
        for name, tensor in load_file(folder / WEIGHTS).items()
    }
    tensors |= {"bert.pooler.dense.weight": torch.ones(32, 32), "cls.seq_relationship.bias": torch.ones(2)}
    save_file(tensors, folder / WEIGHTS, {"format": "pt"})
    assert torch.equal(logits(load_original(of_folder(folder))), logits(load_original(made("bert").checkpoint)))


def test_an_encoder_without_a_head_is_one(tmp_path: Path) -> None:
    """As those that make embeddings are."""
    torch.manual_seed(0)
    tf.BertModel(CONFIGS["bert"]()).save_pretrained(tmp_path)
    checkpoint = of_folder(tmp_path)
    assert not checkpoint.can_chat
    assert {layer.kind for layer in checkpoint.layers} == {Kind.EMBEDDING, Kind.LINEAR, Kind.OTHER}
    ids = torch.tensor([[3, 4, 5]])
    with torch.inference_mode():
        found = load_original(checkpoint)(ids).last_hidden_state
        expected = tf.BertModel.from_pretrained(tmp_path, dtype=torch.bfloat16).eval()(ids).last_hidden_state
    assert torch.equal(found, expected)
