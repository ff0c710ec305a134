"""What is written for OpenVINO, in a real one: it gives the packed numbers' logits, keeps them packed, and answers.

The yardstick is transformers' model in fp32 with the folder's own numbers. At f32, without rounding activations or
the cache, OpenVINO computes the same sums in another order: an fp32 sum of n terms errs by about sqrt(n) 2^-24 of its
spread, here 1e-6 of a logit's in each of some thirty products and norms. A bound of 1e-4 of the spread holds for all
(3e-6 to 6e-6 were seen); a lost rotation, a window that is passed by or codes out of order give more than 1e-1. Texts
are longer than every window. GenAI runs what it makes of the graph itself (pages of keys and values in place of the
state), so that its answer proves that it knows the windows too.
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

from studio.export import targets
from studio.export.compressed_model import opened
from studio.export.graph_families import FAMILIES
from studio.session.api import compress
from tests.engines.models import ids, save, truth
from tests.steps import finish

pytestmark = pytest.mark.skipif(
    find_spec("openvino_genai") is None or find_spec("openvino_tokenizers") is None,
    reason="needs openvino-genai and openvino-tokenizers, as requirements-dev.txt has them",
)
PATIENCE = 300
EXACT = 1e-4
"""The largest difference, of the logits' spread."""
LENGTH = 53
"""Tokens of a text."""
ASYM: dict[str, Any] = {"mode": "int4_asym", "group_size": 32}
TWO = {"num_hidden_layers": 2, "layer_types": ["sliding_attention", "full_attention"]}
EVERY = [
    "*.0.*q_proj=int2_affine-g64", "*.0.*k_proj=int4_affine-g32", "*.0.*v_proj=int8_affine-g64",
    "*.0.*o_proj=nf4-g32", "*.0.*gate_proj=int8_sym", "*.0.*up_proj=int4_sym-g64",
    "*.0.*down_proj=int4_asym-g128",
    "*.1.*q_proj=int8_asym", "*.1.*k_proj=int4_sym-gall", "*.1.*v_proj=int4_asym-gall",
    "*.1.*down_proj=int4_affine-g64",
    "*embed*=int4_affine-g32", "lm_head*=int4_asym-g64",
]  # fmt: skip
"""Everything that OpenVINO holds."""
CASES: dict[str, tuple[str, dict[str, Any], dict[str, Any], int]] = {
    "llama-llama3": ("llama-llama3", {}, ASYM, 4),
    "llama-biases": ("llama-biases", {}, ASYM, 0),
    "llama-tied": ("llama-tied", {}, ASYM | {"all_layers": True}, 0),
    "mistral": ("mistral", {}, ASYM, 4),
    "qwen2-window": ("qwen2-window", {}, ASYM, 0),
    "qwen3-yarn": ("qwen3-yarn", {}, ASYM, 0),
    "phi3-partial": ("phi3-partial", {"sliding_window": 32}, ASYM, 4),
    "gemma2": ("gemma2", {}, ASYM, 4),
    "gemma3": ("gemma3", TWO, ASYM, 4),
    "every scheme": ("llama", {}, ASYM | {"pins": EVERY}, 4),
    "kept": ("llama-linear", {}, ASYM | {"backup": "none", "pins": ["*.0.*=none"]}, 0),
}
"""A name -> its family, settings of the config, choices, tokens that GenAI is asked for."""


@dataclass(frozen=True)
class Said:
    """What OpenVINO says of a folder."""

    whole: Tensor
    steps: Tensor
    held: list[str]
    answer: list[int]


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Every case's compressed folder, the one for OpenVINO beside it."""
    place = tmp_path_factory.mktemp("openvino")
    target = targets.target_named("openvino")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("STUDIO_ISOLATE", "0")
        for name, (family, more, choices, _) in CASES.items():
            save(family, place / f"{name} source", **more)
            compress(str(place / f"{name} source"), place / name, **choices)
            finish(targets.export(target, place / name, place / f"{name} openvino"))
    return {name: place / name for name in CASES}


@pytest.fixture(scope="module")
def said(folders: dict[str, Path], tmp_path_factory: pytest.TempPathFactory) -> dict[str, Said]:
    """What OpenVINO says of every case."""
    place = tmp_path_factory.mktemp("said")
    asked = [
        {"folder": f"{folders[name]} openvino", "ids": ids(of, LENGTH), "answer": count}
        for name, (of, *_, count) in CASES.items()
    ]
    (place / "request.json").write_text(json.dumps(asked))
    files = str(place / "request.json"), str(place / "reply.npz")
    command = [sys.executable, "-m", "tests.engines.openvino_answers", *files]
    root = Path(__file__).resolve().parents[2]
    here = os.environ | {"OMP_NUM_THREADS": "1"}
    ran = subprocess.run(command, capture_output=True, text=True, timeout=PATIENCE, cwd=root, env=here, check=False)
    assert ran.returncode == 0, ran.stderr[-3000:]
    with np.load(place / "reply.npz") as found:
        return {
            name: Said(
                torch.from_numpy(found[f"{i}.whole"]), torch.from_numpy(found[f"{i}.steps"]),
                [str(each) for each in found[f"{i}.held"]], [int(token) for token in found[f"{i}.answer"]],
            )
            for i, name in enumerate(CASES)
        }  # fmt: skip


def test_the_cases_are_every_family_but_those_of_a_llama(folders: dict[str, Path]) -> None:
    """SmolLM 3's layers are Llama's, some without rotation, and Gemma's are Gemma 2's without what that adds."""
    there = {opened(folder).checkpoint.architecture for folder in folders.values()}
    assert set(FAMILIES) - there == {"smollm3", "gemma"}


@pytest.mark.parametrize("name", CASES)
def test_openvino_gives_the_numbers_of_the_folder(name: str, folders: dict[str, Path], said: dict[str, Said]) -> None:
    found, text = said[name], ids(CASES[name][0], LENGTH)
    expected = truth(folders[name], text + found.answer)
    spread = (expected - expected.mean(-1, keepdim=True)).std()
    whole, steps = (float((each - expected[:LENGTH]).abs().max() / spread) for each in (found.whole, found.steps))
    print(f"{name}: {whole:.1e} {steps:.1e}")
    assert whole < EXACT
    assert steps < EXACT
    assert len(found.answer) == CASES[name][3]
    assert found.answer == expected[LENGTH - 1 : LENGTH - 1 + len(found.answer)].argmax(-1).tolist()


@pytest.mark.parametrize("name", [name for name in CASES if name != "kept"])
def test_weights_stay_compressed_in_the_compiled_graph(name: str, said: dict[str, Said]) -> None:
    """No product and no look-up reads unpacked numbers, and 4 bits are nowhere widened."""
    kinds = {each.split()[1] for each in said[name].held}
    assert kinds
    assert kinds <= {"u2", "u4", "i4", "nf4", "u8", "i8"}
    products = [each for each in said[name].held if each.startswith("FullyConnected")]
    matrices = 7 * 2 + 1 if name != "phi3-partial" else 4 * 2 + 1
    assert len(products) == matrices
    if name == "every scheme":
        assert kinds == {"u2", "u4", "i4", "nf4", "u8", "i8"}
        assert "Gather u4" in said[name].held
    else:
        assert products.count("FullyConnected u4") >= matrices - 1
