"""What config and headers tell of a model is kept: the same on the second visit, and nothing for other files."""

import json
import os
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from studio.base import json_cache
from studio.base.errors import ModelError
from studio.base.settings import settings
from studio.checkpoint import inspection, model_facts
from studio.checkpoint.checkpoint import of_folder
from studio.checkpoint.json_file import read_json

TinyModel = Callable[[str], Path]


def kept_file(cache: Path) -> Path:
    """Return the only file of facts."""
    (file,) = (cache / "models").iterdir()
    return file


@pytest.mark.parametrize("architecture", ["llama", "gpt2"])
def test_a_second_visit_finds_the_same(
    tiny_model: TinyModel, architecture: str, empty_cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = of_folder(tiny_model(architecture))
    monkeypatch.setattr(inspection, "layer_map", None)  # not asked again
    assert of_folder(tiny_model(architecture)) == first


@pytest.mark.parametrize(
    "change",
    [
        lambda config, entries: (config | {"rope_theta": 1.0}, entries),
        lambda config, entries: (config, {**entries, "more": next(iter(entries.values()))}),
        lambda config, entries: (
            config,
            {name: replace(entry, dtype="F16") for name, entry in entries.items()},
        ),
    ],
    ids=["config", "a tensor more", "dtype"],
)
def test_other_files_have_facts_of_their_own(tiny_model: TinyModel, empty_cache: Path, change: Any) -> None:
    folder = tiny_model("llama")
    config, entries = read_json(folder / "config.json"), of_folder(folder).entries
    assert model_facts.file_of(*change(config, entries)) != model_facts.file_of(config, entries)


def test_files_that_changed_behind_the_same_header_are_looked_at_again(tiny_model: TinyModel) -> None:
    folder = tiny_model("llama")
    config, entries = read_json(folder / "config.json"), of_folder(folder).entries
    assert model_facts.file_of(config, entries, "one", True) != model_facts.file_of(config, entries, "another", True)
    assert model_facts.file_of(config, entries, "one", True) != model_facts.file_of(config, entries, "one", False)


def spoilt_layer(**changes: Any) -> Callable[[dict[str, Any]], None]:
    return lambda kept: kept["layers"][0].update(changes)


@pytest.mark.parametrize(
    "spoil",
    [
        spoilt_layer(shape=[1, 1]),
        spoilt_layer(shape=[-1, -64]),
        spoilt_layer(shape=[True, 64]),
        spoilt_layer(sources=["nowhere"]),
        spoilt_layer(sources=[]),
        spoilt_layer(kind="strange"),
        spoilt_layer(name=7),
        spoilt_layer(more=1),
        lambda kept: kept.update(can_chat="yes"),
        lambda kept: kept.pop("architecture"),
        lambda kept: kept.update(layers=None),
    ],
)
def test_what_does_not_fit_the_headers_is_not_believed(
    tiny_model: TinyModel, empty_cache: Path, spoil: Callable[[dict[str, Any]], None]
) -> None:
    before = of_folder(tiny_model("llama"))
    file = kept_file(empty_cache)
    kept = json.loads(file.read_text())["figures"]
    spoil(kept)
    json_cache.keep(file, kept)
    assert model_facts.recall(file, before.entries) is None
    assert of_folder(tiny_model("llama")) == before


def test_nothing_is_kept_of_a_model_that_is_refused(tiny_model: TinyModel, empty_cache: Path, tmp_path: Path) -> None:
    folder = tmp_path / "model"
    folder.mkdir()
    (folder / "model.safetensors").write_bytes((tiny_model("llama") / "model.safetensors").read_bytes())
    (folder / "config.json").write_text(json.dumps({"model_type": "unheard_of"}))
    for _ in range(2):
        with pytest.raises(ModelError, match="unheard_of"):
            of_folder(folder)
    assert not (empty_cache / "models").exists()


HEAVY = ("torch", "transformers", "gradio", "plotly", "scipy", "numpy", "huggingface_hub")
VISIT = """
import sys
from studio.cli.commands import main
sys.argv = ["studio", "estimate", {model!r}, "--group-size", "32", "--ratio", {ratio!r}]
try:
    main()
finally:
    print(*(name for name in {heavy!r} if name in sys.modules), file=sys.stderr)
"""


def test_a_known_model_is_estimated_without_what_runs_models(tiny_model: TinyModel, own_cache: Path) -> None:
    said = []
    for ratio, isolate in (("0.6", "0"), ("0.6", "1"), ("1", "1")):  # the first computes; another process costs seconds
        code = VISIT.format(model=str(tiny_model("llama")), ratio=ratio, heavy=HEAVY)
        env = os.environ | {"STUDIO_ISOLATE": isolate}
        done = subprocess.run([sys.executable, "-c", code], env=env, capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stderr
        said.append((done.stdout, done.stderr.splitlines()[-1].split()))
    answers, loaded = zip(*said, strict=True)
    assert answers[0] == answers[1] != answers[2]
    assert "torch" in loaded[0]
    assert loaded[1:] == ([], [])
    assert settings().cache_dir == own_cache
