"""The built-in texts: enough of them, in both languages, and none that calibrates is one that measures."""

import pytest

from studio.calibration.texts import read_text
from studio.checkpoint.checkpoint import Checkpoint
from studio.compression import sequential
from studio.evaluation import evaluate

GRAM = 24
"""Characters in a row that two texts may not share."""


def grams(files: tuple[object, ...]) -> set[str]:
    texts = [read_text(file) for file in files]  # type: ignore[arg-type]
    return {text[start : start + GRAM] for text in texts for start in range(len(text) - GRAM)}


def test_what_calibrates_does_not_measure() -> None:
    assert grams(sequential.BUILTIN_TEXTS) & grams(evaluate.BUILTIN_TEXTS) == set()


@pytest.mark.real
def test_the_built_in_model_is_measured_on_eighteen_windows_half_of_each_language(builtin: Checkpoint) -> None:
    from studio.runtime.model import load_tokenizer

    found = evaluate.text_windows(builtin)
    assert found.shape == (18, 512)
    tokenizer = load_tokenizer(builtin.path)
    chinese = [sum("\u4e00" <= c <= "\u9fff" for c in tokenizer.decode(window)) > 100 for window in found]
    assert sum(chinese) == 9
    assert chinese[:2] == [False, True]  # they take turns
