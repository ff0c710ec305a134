"""The OpenVINO folder: its bytes are told to the last one, the same folder gives the same files, refusals are said."""

import importlib.util
import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from studio.base.errors import ModelError, ResourceError, SchemeError
from studio.base.text import LANGUAGES
from studio.checkpoint.checkpoint import of_folder
from studio.checkpoint.hub import is_wanted
from studio.export.compressed_model import opened
from studio.export.openvino import library
from studio.export.openvino.target import TARGET
from studio.export.targets import export
from studio.planning.choice import Choice
from studio.planning.plan import make_plan
from studio.session.api import compress
from tests import family_models
from tests.steps import finish

PINS = ["*.1.*v_proj=none", "*o_proj=nf4-g32"]
CHOICES: dict[str, Any] = {"mode": "int4_asym", "group_size": 32, "pins": PINS}
needs_openvino = pytest.mark.skipif(library.missing() is not None, reason=f"needs {library.INSTALL}")


@pytest.fixture(scope="module")
def folder(tiny_model: Callable[[str], Path], tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("openvino") / "packed"
    compress(str(tiny_model("llama")), out, **CHOICES)
    return out


@needs_openvino
def test_what_is_written_has_the_bytes_that_were_told(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("STUDIO_ISOLATE", "0")
    model = opened(folder)
    first, second = (finish(export(TARGET, folder, tmp_path / name)) for name in ("one", "two"))
    files = {path.name: path.read_bytes() for path in first.iterdir()}
    assert sum(map(len, files.values())) == TARGET.file_size(model)
    assert files == {path.name: path.read_bytes() for path in second.iterdir()}
    copied = {path.name for path in folder.iterdir() if is_wanted(path.name)}
    made = {f"openvino_{kind}.{end}" for kind in ("model", "tokenizer", "detokenizer") for end in ("xml", "bin")}
    assert files.keys() == copied | made | {"config.json", "generation_config.json", "README.md"}
    assert TARGET.size(model.plan) == model.plan.compressed_bytes
    xml = files["openvino_model.xml"].decode()
    stored = [int(size) for size in re.findall(r'offset="\d+" size="(\d+)"', xml)]
    assert TARGET.size(model.plan) < sum(stored)
    assert "quantization_config" not in json.loads(files["config.json"])
    assert "eos_token_id" in json.loads(files["generation_config.json"])
    card = files["README.md"].decode()
    assert 'library_name: "openvino"' in card
    assert "openvino_genai.LLMPipeline" in card


@pytest.mark.parametrize("language", LANGUAGES)
def test_refusals_are_sentences_in_every_language(language: str, tiny_model: Callable[[str], Path]) -> None:
    checkpoint = of_folder(tiny_model("llama"))
    refused = TARGET.refusal(make_plan(checkpoint.layers, Choice.of("int3_sym", 32, 1.0)), checkpoint)
    assert isinstance(refused, SchemeError)
    assert refused.key == "to_openvino_scheme"
    assert "--to openvino --from-original --mode int4_asym --group-size 32" in refused.sentence(language)
    refused = TARGET.refusal(make_plan(checkpoint.layers, Choice.of("nf4", 32, 1.0, all_layers=True)), checkpoint)
    assert isinstance(refused, SchemeError)
    assert refused.key == "to_openvino_embedding"
    assert "=int4_asym" in refused.sentence(language)


@needs_openvino
def test_presets_and_what_npus_want_are_taken(tiny_model: Callable[[str], Path]) -> None:
    checkpoint = of_folder(tiny_model("llama"))
    for preset in TARGET.presets.values():
        words = dict[str, Any](preset)
        choice = Choice.of(**(words | {"group_size": 32} if "group_size" in words else words))
        assert TARGET.refusal(make_plan(checkpoint.layers, choice), checkpoint) is None
    for mode in ("int4_sym", "int4_affine", "nf4"):
        assert TARGET.refusal(make_plan(checkpoint.layers, Choice.of(mode, -1, 1.0)), checkpoint) is None


def test_where_openvino_is_missing_its_installation_is_named(
    tiny_model: Callable[[str], Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(library, "find_spec", lambda name: None if "tokenizers" in name else importlib.util.find_spec)
    checkpoint = of_folder(tiny_model("llama"))
    refused = TARGET.refusal(make_plan(checkpoint.layers, Choice.of("int4_asym", 32, 1.0)), checkpoint)
    assert isinstance(refused, ResourceError)
    assert library.INSTALL in refused.sentence()


@pytest.mark.parametrize("family", ["gpt2", "mixtral"])
def test_a_family_that_is_not_there_is_refused_by_its_name(family: str, tmp_path: Path) -> None:
    family_models.save(family, tmp_path / "source")
    checkpoint = of_folder(tmp_path / "source")
    refused = TARGET.refusal(make_plan(checkpoint.layers, Choice.of("int4_asym", 32, 1.0)), checkpoint)
    assert isinstance(refused, ModelError)
    assert refused.key == "to_graph_family"
    assert family in refused.sentence()
