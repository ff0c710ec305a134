"""What is written for MLX, in a real mlx-lm: it gives the packed numbers' logits, and answers.

The yardstick is transformers' model in fp32 with the folder's own numbers. Made fp32, which keeps every number, mlx-lm
computes the same sums in another order: an fp32 sum of n terms errs by about sqrt(n) 2^-24 of its spread, here 1e-6 of
a logit's in each of some thirty products and norms. A bound of 1e-4 of the spread holds for all (3e-6 to 6e-6 were
seen); a lost rotation, a norm without its one or codes out of order give more than 1e-1. As the folder is, in fp16, all
that passes between two operations is rounded to 2^-12, terms of sums among it: 5e-3 to 7e-3 were seen, the bound is
2e-2.
"""

import json
import os
import subprocess
import sys
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from studio.base.errors import SchemeError
from studio.export import targets
from studio.export.compressed_model import opened
from studio.export.mlx.arrays import BITS, settings_of
from studio.export.mlx.families import FAMILIES
from studio.session.api import compress
from tests.engines.models import ids, save, truth
from tests.steps import finish

pytestmark = pytest.mark.skipif(find_spec("mlx_lm") is None, reason="needs mlx-lm[cpu], as requirements-dev.txt has it")
PATIENCE = 300
EXACT, HALF = 1e-4, 2e-2
"""Of the logits' spread: the largest difference, and the root mean square of all."""
AFFINE: dict[str, Any] = {"mode": "int4_affine", "group_size": 32}
OPEN = {"sliding_window": None}
"""Without a window, which mlx-lm passes by."""
EVERY = [
    "*.0.*q_proj=int2_affine-g64", "*.0.*k_proj=int3_affine-g32", "*.0.*v_proj=int5_affine-g64",
    "*.0.*o_proj=int6_affine-g32", "*.0.*gate_proj=int8_affine-g64", "*.0.*up_proj=int4_sym-g64",
    "*.0.*down_proj=int4_affine-g128",
    "*.1.*q_proj=int3_sym-g32", "*.1.*k_proj=int2_sym-g64", "*.1.*v_proj=int5_sym-g32", "*.1.*o_proj=int8_sym",
    "*.1.*gate_proj=none", "*.1.*up_proj=q4_1", "*.1.*down_proj=q5_0", "*embed*=q8_0", "lm_head*=q5_1",
]  # fmt: skip
"""Everything that MLX holds."""
CASES: dict[str, tuple[str, dict[str, Any], dict[str, Any]]] = {
    "llama-llama3": ("llama-llama3", {}, AFFINE),
    "llama-biases": ("llama-biases", {}, AFFINE),
    "llama-tied": ("llama-tied", {}, AFFINE),
    "mistral": ("mistral", OPEN, AFFINE),
    "qwen2": ("qwen2", {}, AFFINE),
    "qwen3-yarn": ("qwen3-yarn", {}, AFFINE),
    "phi3-partial": ("phi3-partial", {}, AFFINE),
    "gemma3": ("gemma3", {}, AFFINE),
    "every scheme": ("llama", {}, AFFINE | {"pins": EVERY}),
    "kept": ("llama-linear", {}, AFFINE | {"backup": "none", "pins": ["*.0.*=none"]}),
}
"""A name -> its family, settings of the config, choices."""


@dataclass(frozen=True)
class Said:
    """What mlx-lm says of a folder."""

    logits: Tensor
    exact: Tensor
    answer: list[int]
    dtypes: set[str]


def written(name: str, place: Path, more: dict[str, Any], choices: dict[str, Any]) -> Path:
    """Save a tiny model, compress it into ``place``, write its MLX folder beside it, and return that."""
    source = place.with_name(f"{place.name} source")
    save(name, source, **more)
    compress(str(source), place, **choices)
    return finish(targets.export(targets.target_named("mlx"), place, place.with_name(f"{place.name} mlx")))


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Every case's compressed folder, the one for MLX beside it."""
    place = tmp_path_factory.mktemp("mlx")
    for name, (family, more, choices) in CASES.items():
        written(family, place / name, more, choices)
    return {name: place / name for name in CASES}


@pytest.fixture(scope="module")
def said(folders: dict[str, Path], tmp_path_factory: pytest.TempPathFactory) -> dict[str, Said]:
    """What mlx-lm says of every case."""
    place = tmp_path_factory.mktemp("said")
    asked = [{"folder": f"{folders[name]} mlx", "ids": ids(of), "answer": 4} for name, (of, *_) in CASES.items()]
    (place / "request.json").write_text(json.dumps(asked))
    command = [sys.executable, "-m", "tests.engines.mlx_answers", str(place / "request.json"), str(place / "reply.npz")]
    root = Path(__file__).resolve().parents[2]
    here = os.environ | {"MLX_DISABLE_COMPILE": "1"}  # it would call a compiler for every pair of operations
    ran = subprocess.run(command, capture_output=True, text=True, timeout=PATIENCE, cwd=root, env=here, check=False)
    assert ran.returncode == 0, ran.stderr[-3000:]
    with np.load(place / "reply.npz") as reply:
        return {
            name: Said(
                torch.from_numpy(reply[f"{i}.logits"]),
                torch.from_numpy(reply[f"{i}.exact"]),
                reply[f"{i}.answer"].tolist(),
                set(reply[f"{i}.dtypes"].tolist()),
            )
            for i, name in enumerate(CASES)
        }


def test_the_cases_are_every_family_and_every_width(folders: dict[str, Path]) -> None:
    assert {opened(folder).checkpoint.architecture for folder in folders.values()} == FAMILIES.keys()
    plan = opened(folders["every scheme"]).plan
    held = {settings_of(a.scheme, a.layer.matrix[1]) for a in plan.assignments if a.scheme is not None}
    assert {settings.bits for settings in held if settings is not None} == set(BITS)
    assert {settings.group_size for settings in held if settings is not None} == {32, 64, 128}


@pytest.mark.parametrize("name", CASES)
def test_mlx_gives_the_numbers_of_the_folder(name: str, folders: dict[str, Path], said: dict[str, Said]) -> None:
    found, expected = said[name], truth(folders[name], ids(CASES[name][0]))
    spread = (expected - expected.mean(-1, keepdim=True)).std()
    exact = float((found.exact - expected).abs().max() / spread)
    half = float((found.logits - expected).square().mean().sqrt() / spread)
    print(f"{name}: {exact:.1e} {half:.1e}")
    assert exact < EXACT
    assert half < HALF
    assert len(found.answer) == 4
    assert found.answer[0] == int(found.logits[-1].argmax())


def test_what_is_not_compressed_is_fp16_where_that_is_exact(said: dict[str, Said], folders: dict[str, Path]) -> None:
    """Else bf16 and fp16 meet, and mlx-lm computes in 32 bits: slower, not wrong."""
    assert said["llama-biases"].dtypes == {"mlx.core.float16", "mlx.core.uint32"}
    assert "mlx.core.bfloat16" in said["kept"].dtypes
    words = json.loads((folders["kept"].with_name("kept mlx") / "config.json").read_text())
    assert words["quantization"] == words["quantization_config"]
    assert words["quantization"]["lm_head"] is words["quantization"]["model.layers.0.mlp.up_proj"] is False


def test_transformers_refuses_the_folder(folders: dict[str, Path]) -> None:
    """A program that does not know MLX's packing does not take its words for weights."""
    import transformers

    with pytest.raises(ValueError, match="quant_method"):
        transformers.AutoModelForCausalLM.from_pretrained(f"{folders['qwen2']} mlx")


def test_whole_zero_points_are_named_with_what_they_become(tmp_path: Path, own_cache: Path) -> None:
    with pytest.raises(SchemeError) as caught:
        written("llama", tmp_path / "model", {}, {"mode": "int4_asym", "group_size": 32, "backup": "none"})
    assert (caught.value.key, caught.value.values["mode"]) == ("to_mlx_zero_point", "int4_affine")
    assert caught.value.values["group_size"] == 32
