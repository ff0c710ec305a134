"""JSON that anyone may have written: too much, too deep and none at all are refused before they cost anything."""

import json
from pathlib import Path

import pytest

from studio.base.errors import CheckpointError
from studio.checkpoint.json_file import MAX_DEPTH, check_bytes, parse_json, read_json


def refusal(raw: bytes, max_values: int = 1000) -> str:
    with pytest.raises(CheckpointError) as refused:
        parse_json("a.json", raw, max_values)
    assert refused.value.values["file"] == "a.json"
    return refused.value.key


def nested(depth: int) -> bytes:
    return b'{"a": ' * depth + b"1" + b"}" * depth


@pytest.mark.parametrize(
    ("raw", "key"),
    [
        (b"[1, 2]", "not_an_object"),
        (b"7", "not_an_object"),
        (b"{'a': 1}", "damaged_file"),
        (b'{"a": 1', "damaged_file"),
        (b'{"a": "\xff"}', "damaged_file"),
        (json.dumps({"a": list(range(1000))}).encode(), "too_many_values"),
        (nested(MAX_DEPTH), "too_deep"),
        (nested(500), "too_deep"),
    ],
    ids=["list", "number", "not-json", "cut", "not-text", "many", "deep", "deeper"],
)
def test_what_is_no_object_or_too_much_is_refused(raw: bytes, key: str) -> None:
    assert refusal(raw) == key


def test_a_depth_below_the_limit_is_read() -> None:
    assert parse_json("a.json", nested(MAX_DEPTH - 1))


def test_a_number_of_thousands_of_digits_costs_nothing() -> None:
    assert parse_json("a.json", b'{"a": ' + b"9" * 100_000 + b', "b": 12}') == {"a": float("inf"), "b": 12}


def test_each_kind_of_file_has_its_limit() -> None:
    check_bytes("config.json", 5_000_000)
    check_bytes("tokenizer_config.json", 50_000_000)
    for file, size in (("config.json", 5_000_001), ("tokenizer_config.json", 50_000_001)):
        with pytest.raises(CheckpointError) as refused:
            check_bytes(file, size)
        assert refused.value.key == "file_too_large"


def test_a_file_that_is_missing_is_named(tmp_path: Path) -> None:
    with pytest.raises(CheckpointError) as refused:
        read_json(tmp_path / "config.json")
    assert (refused.value.key, refused.value.values["file"]) == ("missing_file", "config.json")
    (tmp_path / "config.json").write_text('{"a": 1}')
    assert read_json(tmp_path / "config.json") == {"a": 1}
