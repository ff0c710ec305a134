"""How a model came is read off headers: of GGUF, of folders that others packed, of the studio's own, of the Hub."""

import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from studio.base.errors import CheckpointError, ModelError
from studio.checkpoint.provenance import provenance
from tests.conftest import ROOT
from tests.gguf_models import Written
from tests.packed_models import Awq, CompressedTensors, Gptq, packed_folder


def test_a_gguf_file_says_its_types_mix_and_matrix(tmp_path: Path) -> None:
    written = Written("llama", "llama", tmp_path)
    written.metadata |= {
        "general.file_type": 15,
        "general.quantized_by": "somebody\x1b[31m",
        "general.license": "apache-2.0",
        "general.base_model.0.repo_url": "https://huggingface.co/owner/name",
        "quantize.imatrix.file": "/home/x/name.imatrix",
        "quantize.imatrix.dataset": "C:\\texts\\calibration.txt",
    }
    file = written.file(kind=lambda name: "Q8_0" if "ffn" in name else "Q4_0")
    found = provenance(str(file))
    assert (found.container, found.architecture, found.tokenizer) == ("GGUF", "llama", "gpt2")
    assert found.license.id == "apache-2.0"
    assert found.quantized_by == "Q4_K_M, somebody?[31m"
    assert found.recipe == "imatrix name.imatrix, calibration.txt"
    assert found.source == "https://huggingface.co/owner/name"
    types = {each.type: each for each in found.types}
    assert types.keys() == {"Q8_0", "Q4_0", "F32"}
    assert types["Q8_0"].tensors == 2 * 3
    assert types["Q4_0"].bits == 4.5
    assert found.nbytes == sum(each.nbytes for each in found.tensors)
    assert found.weights == sum(values.size for values in written.arrays.values())


@pytest.mark.parametrize(
    ("kind", "said", "by", "type_"),
    [
        (Gptq(symmetric=False), {"meta": {"quantizer": ["gptqmodel:2.1.0"]}}, "gptq (gptqmodel:2.1.0)",
         "GPTQ int4_asym-g32"),
        (Awq(), {}, "awq (gemm)", "AWQ int4_asym-g32"),
        (CompressedTensors(), {"version": "0.12.0"}, "compressed-tensors (0.12.0)", "compressed-tensors int4_sym-g32"),
    ],
)  # fmt: skip
def test_a_folder_that_others_packed_says_by_what(
    kind: Gptq | Awq | CompressedTensors, said: dict[str, object], by: str, type_: str,
    tiny_model: Callable[[str], Path], tmp_path: Path,
) -> None:  # fmt: skip
    values = packed_folder(tiny_model("llama"), tmp_path, kind, **said)  # type: ignore[arg-type]
    (tmp_path / "README.md").write_text("---\nlicense: mit\n---\n")
    (tmp_path / "recipe.yaml").write_text("a: 1")
    found = provenance(str(tmp_path))
    assert (found.quantized_by, found.license.id, found.recipe) == (by, "mit", "recipe.yaml")
    assert {each.name for each in found.tensors if each.type == type_} == values.keys()
    assert all(each.shape == tuple(values[each.name].shape) for each in found.tensors if each.type == type_)
    assert not any(each.name.endswith(("scales", "qzeros", "g_idx", "weight_shape")) for each in found.tensors)
    assert found.tokenizer


def test_a_folder_of_the_studio_says_its_recipe(tiny_model: Callable[[str], Path], tmp_path: Path) -> None:
    from tests.terminal import run

    run("compress", tiny_model("llama"), "--group-size", 32, "--ratio", 0.5, "--out", tmp_path / "small")
    found = provenance(str(tmp_path / "small"))
    recipe = json.loads((tmp_path / "small" / "recipe.json").read_text())
    assert found.container == "quantization-studio"
    assert found.nbytes == recipe["compressed_bytes"]
    assert {each.name: each.type for each in found.tensors if "_proj" in each.name} == {
        each["name"]: each["scheme"] for each in recipe["weights"] if "_proj" in each["name"]
    }
    assert found.recipe.startswith("recipe.json: mode int4_asym, group_size 32, ratio 0.5")
    assert found.source == "tiny-llama"


def test_what_cannot_be_is_refused(tmp_path: Path) -> None:
    (tmp_path / "a.gguf").write_bytes(b"GGUF" + bytes(4))
    (tmp_path / "a.txt").write_text("")
    with pytest.raises(CheckpointError):
        provenance(str(tmp_path / "a.gguf"))
    for name in (str(tmp_path), str(tmp_path / "a.txt"), "no such model"):
        with pytest.raises(ModelError):
            provenance(name)


def test_headers_need_no_torch(tiny_model: Callable[[str], Path], tmp_path: Path) -> None:
    packed_folder(tiny_model("llama"), tmp_path, CompressedTensors(symmetric=False))
    file = Written("llama", "llama", tmp_path).file()
    code = (
        "import sys; from studio.checkpoint.provenance import provenance\n"
        f"for name in {[str(tmp_path), str(file)]}: provenance(name)\n"
        "assert not {'torch', 'transformers', 'gradio'} & set(sys.modules), 'heavy'"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
