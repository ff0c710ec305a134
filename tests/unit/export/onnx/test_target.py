"""The ONNX folder: its bytes are told to the last one, the same folder gives the same files, refusals are said."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from studio.base.errors import ModelError, SchemeError
from studio.base.text import LANGUAGES
from studio.checkpoint.checkpoint import of_folder
from studio.checkpoint.hub import is_wanted
from studio.export.compressed_model import opened
from studio.export.onnx.target import TARGET, dtype_of
from studio.export.targets import export
from studio.planning.choice import Choice
from studio.planning.plan import make_plan
from studio.session.api import compress
from tests import family_models
from tests.steps import finish

PINS = ["*.1.*v_proj=none", "*o_proj=int4_affine-g32"]
CHOICES: dict[str, Any] = {"mode": "int4_asym", "group_size": 32, "pins": PINS}


@pytest.fixture(scope="module")
def folder(tiny_model: Callable[[str], Path], tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("onnx") / "packed"
    compress(str(tiny_model("llama")), out, **CHOICES)
    return out


def test_what_is_written_has_the_bytes_that_were_told(folder: Path, tmp_path: Path) -> None:
    model = opened(folder)
    first, second = (finish(export(TARGET, folder, tmp_path / name)) for name in ("one", "two"))
    files = {path.relative_to(first).as_posix(): path.read_bytes() for path in first.rglob("*") if path.is_file()}
    assert sum(map(len, files.values())) == TARGET.file_size(model)
    assert files == {name: (second / name).read_bytes() for name in files}
    copied = {path.name for path in folder.iterdir() if is_wanted(path.name)}
    made = {"onnx/model_q4.onnx", "onnx/model_q4.onnx_data", "genai_config.json"}
    assert files.keys() == copied | made | {"config.json", "generation_config.json", "README.md"}
    weights = len(files["onnx/model_q4.onnx_data"])
    assert TARGET.size(model.plan) <= weights < TARGET.size(model.plan) + 64 * 5 * len(model.plan.assignments)
    config = json.loads(files["config.json"])
    assert "quantization_config" not in config
    assert config["transformers.js_config"] == {"dtype": "q4", "use_external_data_format": True}
    genai = json.loads(files["genai_config.json"])
    assert genai["model"]["decoder"]["filename"] == "onnx/model_q4.onnx"
    assert genai["model"]["decoder"]["num_hidden_layers"] == config["num_hidden_layers"]
    template = (folder / "chat_template.jinja").read_text()
    assert json.loads(files["tokenizer_config.json"])["chat_template"] == template
    card = files["README.md"].decode()
    assert 'library_name: "onnx"' in card
    assert "pipeline(" in card
    assert "og.Model(" in card
    assert "v_proj" in card  # at 16 bits: what browsers may not read


def test_the_same_plan_has_the_size_that_is_told_of_it(folder: Path, tiny_model: Callable[[str], Path]) -> None:
    checkpoint = of_folder(tiny_model("llama"))
    planned = make_plan(checkpoint.layers, Choice.of(**CHOICES))
    assert TARGET.size(planned) == TARGET.size(opened(folder).plan)


@pytest.mark.parametrize(("mode", "dtype"), [("int4_sym", "q4"), ("int8_sym", "q8")])
def test_the_graph_is_called_by_its_bits(mode: str, dtype: str, tiny_model: Callable[[str], Path]) -> None:
    layers = of_folder(tiny_model("llama")).layers
    assert dtype_of(make_plan(layers, Choice.of(mode, 32 if "4" in mode else -1))) == dtype
    assert dtype_of(make_plan(layers, Choice.of(mode, 32 if "4" in mode else -1, pins=["*=none"]))) == "fp32"


@pytest.mark.parametrize("language", LANGUAGES)
def test_refusals_are_sentences_in_every_language(language: str, tiny_model: Callable[[str], Path]) -> None:
    checkpoint = of_folder(tiny_model("llama"))
    for mode in ("int3_sym", "cb4"):
        refused = TARGET.refusal(make_plan(checkpoint.layers, Choice.of(mode, 32, 1.0)), checkpoint)
        assert isinstance(refused, SchemeError)
        assert refused.key == "to_onnx_scheme"
        assert "--to onnx --from-original --mode int4_asym --group-size 32" in refused.sentence(language)
    [caution] = TARGET.cautions(make_plan(checkpoint.layers, Choice.of("int4_asym", 32, pins=["*.1.*v_proj=none"])))
    assert "v_proj" in caution.sentence(language)


def test_a_plan_without_matrices_of_16_bits_has_no_caution(tiny_model: Callable[[str], Path]) -> None:
    layers = of_folder(tiny_model("llama")).layers
    assert list(TARGET.cautions(make_plan(layers, Choice.of("int4_asym", 32, 1.0)))) == []


def test_a_width_that_no_block_divides_is_named(tmp_path: Path) -> None:
    from tests.conftest import save_tiny_model

    save_tiny_model("llama", tmp_path, intermediate_size=72)
    checkpoint = of_folder(tmp_path)
    refused = TARGET.refusal(make_plan(checkpoint.layers, Choice.of("int8_asym", -1)), checkpoint)
    assert isinstance(refused, ModelError)
    assert (refused.key, refused.values["width"]) == ("to_onnx_width", 72)


@pytest.mark.parametrize("family", ["gpt2", "mixtral"])
def test_a_family_that_is_not_there_is_refused_by_its_name(family: str, tmp_path: Path) -> None:
    family_models.save(family, tmp_path / "source")
    checkpoint = of_folder(tmp_path / "source")
    refused = TARGET.refusal(make_plan(checkpoint.layers, Choice.of("int4_asym", 32, 1.0)), checkpoint)
    assert isinstance(refused, ModelError)
    assert refused.key == "to_graph_family"
    assert "ONNX" in refused.sentence()
    assert family in refused.sentence()
