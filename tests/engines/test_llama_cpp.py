"""What is written as GGUF, in a real llama.cpp: it gives the packed numbers' distributions, tokens and answers.

The yardstick is transformers' model in fp32 with the folder's own numbers. llama.cpp sums in fp32, but rounds what a
packed weight is multiplied with to 8 bits, in blocks of 32 (Q8_0) or 256 (Q8_K). In a block whose largest is m this
adds noise of m / 127 / sqrt(12). Activations spread like a normal law have an m of 2.4 (32) or 3.1 (256) standard
deviations, so a product is off by 0.6 or 0.7 % of its spread. Four products a block and the head's are roundings of
their own, whose squares add up: sqrt(4 L + 1) times that, 2 % of the logits' spread for two layers and 4 % for seven.
The divergence of logits that are off by e is e^2 / 2: with a spread of 1.2, 3e-4 and 1.2e-3. A bound of 2e-3 holds for
all, where a lost rotation, a norm without its one or rows out of order give more than 1e-2.
"""

import json
import os
import platform
import shutil
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
import transformers as tf
from filelock import FileLock
from torch import Tensor

from studio.base.errors import ProcessError
from studio.base.settings import settings
from studio.checkpoint.config import load_config
from studio.checkpoint.json_file import read_json
from studio.export import targets
from studio.export.compressed_model import opened
from studio.export.gguf.llama_cpp import LlamaCpp, Question, found
from studio.export.gguf.verify import SAMPLE, kld
from studio.quantization.packing import PackedTensor
from studio.session.api import compress
from tests.conftest import SHARED, tiny_tokenizer
from tests.steps import finish

BOUND = 2e-3
KEPT_BOUND = 1e-3
"""F16 and BF16: both factors have 8 to 11 bits."""
TOKENIZER = tiny_tokenizer()
V = len(TOKENIZER)
IDS = [0, *((i * 37) % (V - 3) + 3 for i in range(40))]
SHAPE = {
    "hidden_size": 64, "intermediate_size": 256, "num_hidden_layers": 2, "num_attention_heads": 4,
    "num_key_value_heads": 2, "max_position_embeddings": 256, "vocab_size": V, "bos_token_id": 0, "eos_token_id": 1,
    "pad_token_id": 2,
}  # fmt: skip
HEADS = SHAPE | {"head_dim": 16}
LLAMA3 = {
    "rope_type": "llama3", "rope_theta": 1e4, "factor": 8.0, "low_freq_factor": 1.0, "high_freq_factor": 4.0,
    "original_max_position_embeddings": 64,
}  # fmt: skip
GEMMA = HEADS | {"query_pre_attn_scalar": 16, "sliding_window": 8}
TURNED = {
    "full_attention": {"rope_type": "linear", "factor": 8.0, "rope_theta": 1e6},
    "sliding_attention": {"rope_type": "default", "rope_theta": 1e4},
}
FAMILIES: dict[str, Callable[[], Any]] = {
    "llama": lambda: tf.LlamaConfig(**HEADS),
    "llama3": lambda: tf.LlamaConfig(**HEADS, rope_parameters=LLAMA3),
    "llama-bias": lambda: tf.LlamaConfig(**HEADS, attention_bias=True),
    "mistral": lambda: tf.MistralConfig(**HEADS, sliding_window=None),
    "qwen2": lambda: tf.Qwen2Config(**SHAPE),
    "qwen3": lambda: tf.Qwen3Config(**HEADS | {"head_dim": 32}, tie_word_embeddings=True),
    "phi3": lambda: tf.Phi3Config(**SHAPE),
    "phi3-partial": lambda: tf.Phi3Config(
        **SHAPE | {"hidden_size": 128},
        rope_parameters={"rope_type": "default", "rope_theta": 1e4, "partial_rotary_factor": 0.75},
    ),
    "gemma2": lambda: tf.Gemma2Config(**GEMMA, attn_logit_softcapping=5.0, final_logit_softcapping=3.0),
    "gemma3": lambda: tf.Gemma3TextConfig(**GEMMA | {"num_hidden_layers": 7}, rope_parameters=TURNED),
}
MODES: dict[str, dict[str, Any]] = {
    "kept": {"mode": "q8_0", "pins": ["*=none"]},
    "q8_0": {"mode": "q8_0"},
    "q4_0": {"mode": "q4_0"},
    "int4_sym-g32": {"mode": "int4_sym", "group_size": 32, "pins": ["*embed*=q8_0", "lm_head*=q8_0"]},
    "q4_k": {"mode": "q4_k"},
}  # fmt: skip


def installed() -> Path:
    """Return the folder with node-llama-cpp, fetched once. Skips where it does not run."""
    node, npm = shutil.which("node"), shutil.which("npm")
    if (platform.system(), platform.machine()) != ("Linux", "x86_64") or node is None or npm is None:
        pytest.skip("a prebuilt llama.cpp needs x64 Linux, node and npm")
    version = subprocess.run([node, "--version"], capture_output=True, text=True, check=True).stdout
    if int(version.strip("v \n").split(".")[0]) < 20:
        pytest.skip(f"node-llama-cpp needs node 20, this is {version.strip()}")
    folder, wanted = SHARED / "node", Path(__file__).with_name("package.json")
    folder.mkdir(parents=True, exist_ok=True)
    with FileLock(folder / "lock"):
        done = folder / "installed.json"
        if not done.is_file() or done.read_text() != wanted.read_text():
            shutil.copy(wanted, folder / "package.json")
            flags = ("--ignore-scripts", "--omit=optional", "--no-audit", "--no-fund")
            home = {"PATH": os.environ["PATH"], "HOME": os.environ.get("HOME", str(folder))}
            asked = subprocess.run([npm, "install", *flags], cwd=folder, env=home, capture_output=True, text=True)
            if asked.returncode:
                pytest.skip(f"npm does not install node-llama-cpp: {asked.stderr[-200:]}")
            shutil.copy(wanted, done)
    return folder


@pytest.fixture(scope="module")
def engine() -> Iterator[LlamaCpp]:
    patch = pytest.MonkeyPatch()
    patch.setenv("STUDIO_NODE_LLAMA", str(installed()))
    settings.cache_clear()
    here = found()
    assert here is not None
    yield here
    patch.undo()
    settings.cache_clear()


def tiny(name: str, folder: Path) -> Path:
    """Save a family's tiny model, whose logits are as spread as a text's."""
    torch.manual_seed(0)
    model: Any = tf.AutoModelForCausalLM.from_config(FAMILIES[name]()).float()
    with torch.no_grad():
        for key, values in model.named_parameters():
            if values.ndim > 1:
                is_tied = "embed" in key and model.config.tie_word_embeddings
                values.normal_(0, 0.15 if is_tied else 0.7 if "embed" in key else 1.2 / values.shape[-1] ** 0.5)
            else:
                values.add_(0.15 * torch.randn_like(values))
    model.to(torch.bfloat16).save_pretrained(folder)
    TOKENIZER.save_pretrained(folder)
    return folder


def written(source: Path, place: Path, **choices: Any) -> Path:
    """Compress a model into ``place`` and write its file beside it."""
    compress(str(source), place, **choices)
    return finish(targets.export(targets.target_named("gguf"), place, place.with_suffix(".gguf")))


@torch.inference_mode()
def truth(folder: Path) -> Tensor:
    """Return the logits of transformers' model in fp32 with a compressed folder's numbers."""
    model: Any = tf.AutoModelForCausalLM.from_config(
        load_config(read_json(folder / "config.json")), attn_implementation="eager", dtype=torch.float32
    ).eval()
    numbers: dict[str, Tensor] = {}
    for a, tensor in opened(folder).tensors():
        values = (tensor.dequantize() if isinstance(tensor, PackedTensor) else tensor).float()
        numbers |= dict.fromkeys((a.layer.name, *a.layer.tied), values)
    missing = model.load_state_dict(numbers, strict=False).missing_keys
    assert set(missing) <= set(model.all_tied_weights_keys)
    found: Tensor = model(torch.tensor([IDS])).logits[0]
    return found


def check(engine: LlamaCpp, folders: dict[str, Path], bounds: dict[str, float]) -> None:
    questions = [Question(folder.with_suffix(".gguf"), IDS, [SAMPLE], 4) for folder in folders.values()]
    replies = dict(zip(folders, engine.ask(*questions), strict=True))
    measured = {name: kld(truth(folders[name]), replies[name].probabilities.log()) for name in folders}
    print({name: f"{found.mean:.1e}" for name, found in measured.items()})
    assert {name: found.mean for name, found in measured.items() if found.mean > bounds[name]} == {}
    assert all(reply.tokens == [TOKENIZER(SAMPLE).input_ids] for reply in replies.values())
    for name in folders:
        if bounds[name] == KEPT_BOUND:
            assert replies[name].answer[:1] == [int(truth(folders[name])[-1].argmax())]


def test_every_family_gives_its_own_distributions(engine: LlamaCpp, tmp_path: Path, own_cache: Path) -> None:
    folders = {name: tmp_path / name for name in FAMILIES}
    for name, folder in folders.items():
        written(tiny(name, tmp_path / f"{name}-source"), folder, mode="q8_0")
    check(engine, folders, dict.fromkeys(FAMILIES, BOUND))  # also phi3, whose name alone llama.cpp takes for a promise


def test_every_kind_of_block_is_read_as_it_was_packed(engine: LlamaCpp, tmp_path: Path, own_cache: Path) -> None:
    source = tiny("llama", tmp_path / "source")
    folders = {name: tmp_path / name for name in MODES}
    for name, folder in folders.items():
        written(source, folder, **MODES[name])
    check(engine, folders, {name: KEPT_BOUND if name == "kept" else BOUND for name in MODES})


def test_a_file_that_is_none_is_refused_in_a_sentence(engine: LlamaCpp, tmp_path: Path) -> None:
    (tmp_path / "no.gguf").write_text(json.dumps("no model"))
    with pytest.raises(ProcessError, match=r"no\.gguf"):
        engine.ask(Question(tmp_path / "no.gguf", IDS))
    with pytest.raises(ProcessError, match="longer than 0 s"):
        engine.ask(Question(tmp_path / "no.gguf", IDS), patience=0.01)
