"""Every family of models goes the whole way: open, compress, chat, export. Tiny random ones, saved by transformers.

What a compressed folder computes is compared with transformers' own model holding the weights that the folder's
numbers stand for; the original with transformers' own model.
"""

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
import transformers as tf
from safetensors import safe_open
from safetensors.torch import load_file, save_file
from typer.testing import CliRunner

from studio.base.errors import ModelError
from studio.chat.answers import Answers
from studio.checkpoint.checkpoint import of_folder
from studio.checkpoint.file_names import PACKED, WEIGHTS
from studio.checkpoint.layers import Kind
from studio.checkpoint.recipe import read_recipe
from studio.cli.commands import app
from studio.planning.sampled_survey import draws, sampled_survey
from studio.quantization.packing import PackedTensor
from studio.quantization.scheme import Scheme
from studio.runtime.decoder import MOST_TOKENS, GeneralDecoder
from studio.runtime.model import load_compressed, load_original
from studio.runtime.sampling import Sampling
from tests.family_models import BOUND, CONFIGS, READERS, WITH_EYES, Made, V, distance, logits, reference
from tests.small import CountedRanges
from tests.steps import finish

of_every_family = pytest.mark.parametrize("family", CONFIGS)


of_every_speaker = pytest.mark.parametrize("family", [name for name in CONFIGS if name not in READERS])


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
