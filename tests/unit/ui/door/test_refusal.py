"""What is said to whoever is turned away."""

import re
from pathlib import Path

import pytest

from studio.base.text import LANGUAGES, catalogue
from studio.ui.door import refusal
from studio.ui.door.refusal import Refused

SOURCES = "".join(file.read_text() for file in Path(refusal.__file__).parent.glob("*.py"))
KEYS = set(re.findall(r'Refused\(\d+, "(\w+)"', SOURCES)) | set(re.findall(r'who, "(\w+)"\)', SOURCES))


def test_each_reason_has_a_sentence_and_each_sentence_a_reason() -> None:
    assert {key.removeprefix("door.") for key in catalogue("en") if key.startswith("door.")} == KEYS


@pytest.mark.parametrize("language", LANGUAGES)
def test_what_a_request_said_is_cut(language: str) -> None:
    said = Refused(421, "host", host="x" * 5000).sentence(language)
    assert "x" * 100 in said
    assert "x" * 101 not in said
