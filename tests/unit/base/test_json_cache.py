"""Figures come back as they were written, or not at all."""

import json
import logging
from pathlib import Path

import pytest

from studio.base.json_cache import keep, recall

FIGURES = {"layer": {"int4_asym-g64": 0.0939, "nf4-g64": 1e-300}, "empty": {}, "list": [1, 2.5, None, "é"]}


@pytest.fixture
def file(tmp_path: Path) -> Path:
    return tmp_path / "survey" / "revision.json"


def test_figures_come_back(file: Path) -> None:
    keep(file, FIGURES)
    assert recall(file) == FIGURES
    keep(file, [1])
    assert recall(file) == [1]
    assert list(file.parent.iterdir()) == [file]


def test_what_was_never_kept_is_not_there(file: Path) -> None:
    assert recall(file) is None


def test_not_a_byte_may_be_missing_or_another(file: Path) -> None:
    keep(file, FIGURES)
    whole = file.read_bytes()
    for end in range(len(whole)):
        file.write_bytes(whole[:end])
        assert recall(file) is None
    begin = whole.index(b'"figures": ') + len(b'"figures": ')
    for place in range(begin, len(whole)):
        for digit in (b"0", b"9", b"\xff"):
            changed = whole[:place] + digit + whole[place + 1 :]
            file.write_bytes(changed)
            assert changed == whole or recall(file) is None


@pytest.mark.parametrize(
    "content",
    [b"", b"[]", b"7", b"{'figures': 1}", b"\xff\xfe" * 9, b"[" * 200_000, b'{"figures": ' + b"9" * 10_000 + b"}"],
    ids=["empty", "list", "number", "python", "binary", "deep", "long"],
)
def test_what_is_no_such_file_is_not_read(file: Path, content: bytes) -> None:
    file.parent.mkdir()
    file.write_bytes(content)
    assert recall(file) is None


def test_a_signature_of_other_figures_does_not_do(file: Path) -> None:
    keep(file, FIGURES)
    content = json.loads(file.read_text())
    file.write_text(json.dumps(content | {"figures": {}}))
    assert recall(file) is None


@pytest.mark.parametrize("place", ["a_file_for_a_folder", "a_folder_for_a_file"])
def test_a_disk_that_takes_nothing_is_only_noted(file: Path, caplog: pytest.LogCaptureFixture, place: str) -> None:
    if place == "a_file_for_a_folder":
        file.parent.write_text("")
    else:
        (file / "in the way").mkdir(parents=True)
    with caplog.at_level(logging.WARNING):
        keep(file, FIGURES)
    assert "not kept" in caplog.text
    assert recall(file) is None
    assert not file.parent.is_dir() or list(file.parent.iterdir()) == [file], "no half-written file stays"
