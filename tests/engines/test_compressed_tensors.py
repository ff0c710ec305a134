"""What is written for compressed-tensors, in a real transformers: every weight finds its place, packed, and the logits
are those of the folder's numbers.

The yardstick is transformers' model in fp32 with the folder's own numbers (``truth``). Loaded in fp32, codes times
scale is exact (8 and 11 bits of precision are 19, fp32 has 24), so that both multiply the same numbers in the same
order: no difference was seen, to the bit. The bound, 1e-5 of the logits' spread, leaves room for another order of the
sums: an fp32 sum of n terms errs by about sqrt(n) 2^-24 of its spread, some 1e-6. In bf16, which most models are in,
scales are rounded with all else: a root mean square of 1.3e-2 to 1.6e-2 of the spread, as transformers' dense model in
bf16 has with these numbers (1.4e-2 to 1.6e-2). So the model's own dtype stays in the config: fp16 (1.5e-3 to 1.9e-3)
would be nearer, but vLLM refuses it for Gemma, and Qwen2 overflows in it.
"""

import json
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest
import torch
import transformers as tf

from studio.base.errors import SchemeError
from studio.checkpoint.checkpoint import of_folder
from studio.export import targets
from studio.export.compressed_model import opened
from studio.quantization.packing import PackedTensor
from studio.session.api import compress
from tests.engines.models import ids, save, truth
from tests.steps import finish

pytestmark = [
    pytest.mark.skipif(
        find_spec("compressed_tensors") is None, reason="needs compressed-tensors of requirements-dev.txt"
    ),
    pytest.mark.filterwarnings("ignore::DeprecationWarning"),
]
BOUND = 1e-5
INT4: dict[str, Any] = {"mode": "int4_sym", "group_size": 32, "backup": "none"}
MIXED = [
    "*.0.*q_proj=int8_sym",
    "*down_proj=q8_0",
    "*.1.*o_proj=none",
    "*.1.*up_proj=int4_sym-gall",
    "lm_head*=int8_sym",
]
CASES: dict[str, tuple[str, dict[str, Any]]] = {
    "llama": ("llama", INT4),
    "llama-tied": ("llama-tied", INT4),
    "mistral": ("mistral", INT4),
    "qwen2": ("qwen2", INT4),
    "qwen3": ("qwen3", INT4 | {"group_size": 64}),
    "phi3": ("phi3", INT4),
    "gemma3": ("gemma3", INT4),
    "int8": ("llama", {"mode": "int8_sym", "pins": ["*embed*=none"]}),
    "mixed": ("llama-biases", INT4 | {"pins": MIXED}),
}
"""A name -> its family, choices."""


def written(family: str, place: Path, choices: dict[str, Any]) -> tuple[Path, Path]:
    """Save a tiny model, compress it and write its folder; return the compressed one and what was written."""
    place.mkdir()
    save(family, place / "source")
    compress(str(place / "source"), place / "model", **choices)
    return place / "model", finish(
        targets.export(targets.target_named("compressed-tensors"), place / "model", place / "out")
    )


@pytest.mark.parametrize("name", CASES)
def test_transformers_loads_it_packed_and_gives_its_numbers(name: str, tmp_path: Path, own_cache: Path) -> None:
    family, choices = CASES[name]
    folder, out = written(family, tmp_path / name, choices)
    model, info = tf.AutoModelForCausalLM.from_pretrained(
        out, output_loading_info=True, dtype=torch.float32, attn_implementation="eager"
    )
    assert not any(info[key] for key in ("missing_keys", "unexpected_keys", "mismatched_keys"))
    packed = {name.removesuffix("_packed") for name, _ in model.named_parameters() if name.endswith(".weight_packed")}
    assert packed == {a.layer.name for a in opened(folder).plan.assignments if a.scheme is not None}
    with torch.inference_mode():
        found = model(torch.tensor([ids(family)])).logits[0]
    expected = truth(folder, ids(family))
    spread = (expected - expected.mean(-1, keepdim=True)).std()
    difference = float((found - expected).abs().max() / spread)
    print(f"{name}: {difference:.1e}")
    assert difference < BOUND


def test_the_studio_opens_it_again_with_the_same_numbers(tmp_path: Path, own_cache: Path) -> None:
    folder, out = written("llama-biases", tmp_path / "made", INT4 | {"pins": MIXED})
    again = of_folder(out)
    layers = {layer.name: layer for layer in again.layers}
    for a, tensor in opened(folder).tensors():
        if isinstance(tensor, PackedTensor):
            assert torch.equal(again.read(layers[a.layer.name]).float(), tensor.dequantize())


def test_a_model_in_bf16_stays_so(tmp_path: Path, own_cache: Path) -> None:
    _, out = written("llama", tmp_path / "made", INT4)
    assert json.loads((out / "config.json").read_text())["dtype"] == "bfloat16"


def test_zero_points_are_refused_with_what_to_choose(tmp_path: Path, own_cache: Path) -> None:
    with pytest.raises(SchemeError) as caught:
        written("llama", tmp_path / "model", {"mode": "int4_asym", "group_size": 32, "backup": "none"})
    assert (caught.value.key, caught.value.values["mode"]) == ("to_compressed_zero_points_scheme", "int4_sym")
