"""A folder that we write is never half understood: a program that cannot read it refuses it.

transformers and accelerate are the real ones. Of vLLM, text-generation-inference, llama.cpp's converter and mlx-lm only
their published rules are tried, written down here as of November 2026: by which names they look for weights, and what
they do about a ``quant_method`` that they do not know. The programs themselves were not run.
"""

import hashlib
import json
import logging
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import accelerate
import pytest
import torch
import transformers as tf
from safetensors.torch import load_file

from studio.base.errors import CheckpointError, ModelError
from studio.checkpoint.file_names import CARD, CONFIG, PACKED, WEIGHTS
from studio.checkpoint.license import License
from studio.checkpoint.open_model import open_model
from studio.checkpoint.recipe import RECIPE, read_recipe
from studio.compression.compress import compress
from studio.export import write_folder
from studio.planning.choice import Choice
from studio.planning.plan import make_plan
from studio.runtime.decoder import open_compressed
from studio.runtime.model import load_compressed
from tests.steps import finish

HOSTILE = {
    "quantization_config": {"quant_method": "fp8"},
    "transformers_weights": "weights.safetensors",
    "auto_map": {"AutoModelForCausalLM": "owner/repository--modeling_x.Model"},
}
"""What a config may say of the original, and would let others find weights in the export, or code for it."""

CLASSES = ("AutoModel", "AutoModelForCausalLM", "AutoModelForSequenceClassification", "LlamaModel", "LlamaForCausalLM")
OPTIONS: dict[str, dict[str, Any]] = {
    "plain": {},
    "no-safetensors": {"use_safetensors": False},
    "only-safetensors": {"use_safetensors": True},
    "device-map": {"device_map": "cpu"},
    "own-config": {"config": tf.LlamaConfig()},
    "any-size": {"ignore_mismatched_sizes": True},
    "trusting": {"trust_remote_code": True},
}

NAMES = {
    "transformers": ("model*.safetensors", "pytorch_model*.bin", "adapter_*", "*.index.json", "*.gguf", "*.h5"),
    "vLLM and SGLang": ("*.safetensors", "*.bin", "*.pt"),
    "text-generation-inference": ("*.safetensors", "*.bin", "*.pt"),
    "llama.cpp's converter": ("model*.safetensors", "consolidated*.safetensors", "pytorch_model*.bin"),
    "mlx-lm": ("model*.safetensors", "weights*.safetensors", "*.npz"),
    "others": ("*.safetensors", "*.ckpt", "*.pth", "*.pkl", "*.onnx", "*.msgpack", "openvino_*"),
}
"""By which names each looks for weights."""

KNOWN_METHODS = frozenset(
    {"aqlm", "auto-round", "awq", "bitblas", "bitnet", "bitsandbytes", "compressed-tensors", "deepspeedfp", "eetq"}
    | {"experts_int8", "exl2", "fbgemm_fp8", "fp8", "gguf", "gptq", "hqq", "inc", "ipex", "marlin", "modelopt"}
    | {"moe_wna16", "mxfp4", "neuron_quant", "ptpc_fp8", "quark", "qqq", "rtn", "torchao", "tpu_int8"}
)
"""What vLLM and llama.cpp's converter know between them; both raise an error for any other ``quant_method``."""


def exported(source: Path, to: Path) -> Path:
    """Return the export of a model's folder."""
    checkpoint = finish(open_model(str(source), True))
    made = finish(compress(checkpoint, make_plan(checkpoint.layers, Choice.of("int8_asym", -1, 1)), to / "packed"))
    return write_folder(checkpoint, made, to / "exported")


@pytest.fixture(scope="module")
def folder(tiny_model: Callable[[str], Path], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The export of a model whose config says all that one may not say."""
    place = tmp_path_factory.mktemp("refused")
    source = Path(shutil.copytree(tiny_model("llama"), place / "source"))
    config = json.loads((source / CONFIG).read_text())
    (source / CONFIG).write_text(json.dumps(config | HOSTILE))
    (source / CARD).write_text("---\nlicense: mit\n---\n")
    return exported(source, place)


@pytest.fixture
def earlier(folder: Path, tmp_path: Path) -> Path:
    """The same as the version before wrote it: the usual name, nothing about it in the config."""
    place = Path(shutil.copytree(folder, tmp_path / "earlier"))
    (place / PACKED).rename(place / WEIGHTS)
    config = json.loads((place / CONFIG).read_text())
    del config["quantization_config"]
    (place / CONFIG).write_text(json.dumps(config))
    recipe = json.loads((place / RECIPE).read_text())
    recipe["format_version"] = 1
    recipe["sha256"][WEIGHTS] = recipe["sha256"].pop(PACKED)
    recipe["sha256"][CONFIG] = hashlib.sha256((place / CONFIG).read_bytes()).hexdigest()
    (place / RECIPE).write_text(json.dumps(recipe))
    return place


@pytest.mark.parametrize("name", CLASSES)
@pytest.mark.parametrize("options", OPTIONS.values(), ids=OPTIONS.keys())
def test_transformers_refuses_it(folder: Path, name: str, options: dict[str, Any]) -> None:
    with pytest.raises(OSError, match=r"no file named model\.safetensors"):
        getattr(tf, name).from_pretrained(folder, local_files_only=True, **options)


def test_so_do_its_pipelines_and_accelerate(folder: Path) -> None:
    with pytest.raises(ValueError, match="Could not load model"):
        tf.pipeline("text-generation", model=str(folder))
    model = tf.AutoModelForCausalLM.from_config(tf.AutoConfig.from_pretrained(folder, local_files_only=True))
    with pytest.raises(ValueError, match=r"not a folder containing"):
        accelerate.load_checkpoint_in_model(model, folder)


@pytest.mark.parametrize("patterns", NAMES.values(), ids=NAMES.keys())
def test_no_program_finds_weights_by_their_name(folder: Path, patterns: tuple[str, ...]) -> None:
    assert [file.name for pattern in patterns for file in folder.glob(pattern)] == []


def test_the_config_names_a_way_that_no_program_knows(folder: Path) -> None:
    """A lock of its own: vLLM looks here before it looks for weights, llama.cpp's converter before it writes."""
    config = json.loads((folder / CONFIG).read_text())
    assert config["quantization_config"]["quant_method"].lower() not in KNOWN_METHODS
    assert config.keys() & HOSTILE.keys() == {"quantization_config"}


def test_what_is_no_weight_stays_usable(folder: Path, tiny_model: Callable[[str], Path]) -> None:
    text = "What is the capital of France?"
    ours, first = (tf.AutoTokenizer.from_pretrained(place) for place in (folder, tiny_model("llama")))
    assert ours(text)["input_ids"] == first(text)["input_ids"]
    assert ours.chat_template == first.chat_template
    assert tf.AutoConfig.from_pretrained(folder).hidden_size == 64
    assert tf.GenerationConfig.from_pretrained(folder).eos_token_id == 1


def test_ours_opens_it_and_says_nothing_odd(folder: Path, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.WARNING):
        model = load_compressed(folder)
        decoder = open_compressed(folder)
    assert caplog.records == []
    assert read_recipe(folder).weights_file == PACKED
    found = model(torch.tensor([[3, 4, 5]])).logits[0, -1].float()
    told = decoder.step(decoder.begin(8), [3, 4, 5]).float()
    assert torch.allclose(found, told, atol=0.05 * float(found.abs().max()))


def test_what_the_version_before_wrote_opens_as_well(folder: Path, earlier: Path) -> None:
    tokens = torch.tensor([[3, 4, 5]])
    assert read_recipe(earlier).weights_file == WEIGHTS
    assert torch.equal(load_compressed(earlier)(tokens).logits, load_compressed(folder)(tokens).logits)
    cuts = [made.step(made.begin(8), [3, 4, 5]) for made in map(open_compressed, (earlier, folder))]
    assert torch.equal(*cuts)


def test_a_recipe_of_another_version_is_not_called_damaged(earlier: Path) -> None:
    recipe = json.loads((earlier / RECIPE).read_text())
    for version in (4, "2", None, -1):
        (earlier / RECIPE).write_text(json.dumps(recipe | {"format_version": version, "new": {}}))
        with pytest.raises(CheckpointError) as caught:
            read_recipe(earlier)
        assert (caught.value.key, caught.value.values) == ("unknown_version", {"file": RECIPE})


def test_an_export_is_no_model_to_compress(folder: Path, tmp_path: Path) -> None:
    with pytest.raises(ModelError) as caught:
        finish(open_model(str(folder), True))
    assert caught.value.key == "already_compressed"
    bare = Path(shutil.copytree(folder, tmp_path / "bare"))
    (bare / RECIPE).unlink()
    with pytest.raises(ModelError) as caught:
        finish(open_model(str(bare), True))
    assert caught.value.key == "no_safetensors"


def test_the_folder_is_named_and_its_path_is_nobodys_business(folder: Path) -> None:
    assert read_recipe(folder).source.model == "source"
    assert read_recipe(folder).source.license == License("mit")
    written = [file.read_bytes() for file in folder.iterdir()]
    assert not any(str(folder.parent).encode() in content for content in written)


def test_the_weights_are_what_they_are_called(folder: Path) -> None:
    """The name is all that is odd about the file: it stays safetensors, for whoever looks into it on purpose."""
    assert "model.embed_tokens.weight.codes" in load_file(folder / PACKED)
