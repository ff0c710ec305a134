"""Which tokens end an answer: the word of the generation's settings, else of the config, and nothing that is no id."""

import json
from pathlib import Path
from types import SimpleNamespace

import pytest

from studio.base.errors import CheckpointError
from studio.checkpoint.stop_tokens import stop_ids


def stops(folder: Path, generation: object, config: object) -> frozenset[int]:
    if generation is not None:
        (folder / "generation_config.json").write_text(json.dumps(generation))
    return stop_ids(folder, SimpleNamespace(eos_token_id=config))


@pytest.mark.parametrize(
    ("generation", "config", "expected"),
    [
        (None, 2, {2}),
        (None, [2, 3], {2, 3}),
        (None, None, set()),
        ({}, 2, {2}),
        ({"eos_token_id": None}, 2, {2}),
        ({"eos_token_id": [7, 8]}, 2, {7, 8}),
        ({"eos_token_id": 0}, 2, {0}),
    ],
)
def test_whose_word_it_is(tmp_path: Path, generation: object, config: object, expected: set[int]) -> None:
    assert stops(tmp_path, generation, config) == expected


@pytest.mark.parametrize("said", ["</s>", [1, "2"], True, 1.0, {"id": 1}], ids=str)
def test_what_is_no_id_is_named_with_its_file(tmp_path: Path, said: object) -> None:
    for generation, config, file in (
        (None, said, "config.json"),
        ({"eos_token_id": said}, 2, "generation_config.json"),
    ):
        with pytest.raises(CheckpointError) as refused:
            stops(tmp_path, generation, config)
        assert (refused.value.values["key"], refused.value.values["file"]) == ("eos_token_id", file)
