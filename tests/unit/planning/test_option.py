"""A thing that can be chosen is named, and said on a terminal, after its field."""

from typing import Any

import pytest

from studio.planning.option import Option, Word


def option(default: Any, **more: Any) -> Option:
    return Option(read=lambda word: word, write=lambda value: value, **more).of("group_size", default)


def test_it_is_called_as_its_field_unless_it_says_otherwise() -> None:
    plain = option(64)
    assert (plain.key, plain.slug, plain.flags) == ("group_size", "group-size", ("--group-size",))
    assert option(64, key="group").flags == ("--group",)
    named = option(64, flags=("--group-size", "-g"))
    assert (named.key, named.flags) == ("group_size", ("--group-size", "-g"))


@pytest.mark.parametrize(
    ("default", "value", "words"),
    [
        (64, 32, ["--group-size", "32"]),
        (64, -1, ["--group-size", "-1"]),
        (1.0, 0.5, ["--group-size", "0.5"]),
        (0.5, 1.0, ["--group-size", "1"]),
        (0.5, 0.1 + 0.2, ["--group-size", "0.30000000000000004"]),
        (False, True, ["--group-size"]),
        ("a", "b c", ["--group-size", "b c"]),
        ([], ["x", "y"], ["--group-size", "x", "--group-size", "y"]),
    ],
    ids=str,
)
def test_a_value_is_said_on_the_terminal_where_it_is_not_the_default(default: Word, value: Word, words: Any) -> None:
    assert option(default).arguments(None, value) == words
    assert option(default).arguments(None, default) == []


def test_the_first_flag_is_the_one_that_is_said() -> None:
    assert option(64, flags=("--group", "-g")).arguments(None, 32) == ["--group", "32"]


def test_a_default_is_said_where_the_rest_of_the_choice_asks_for_it() -> None:
    told = option(64, is_told=lambda choice: choice == "mixed")
    assert told.arguments("mixed", 64) == ["--group-size", "64"]
    assert told.arguments("plain", 32) == []


def test_what_is_a_list_is_repeated() -> None:
    assert option([]).is_repeated
    assert not option("a").is_repeated
    joined = Option(read=str.split, write=" ".join).of("words", ("a", "b"))
    assert joined.default_word == "a b"
    assert not joined.is_repeated, "it is the word that counts"
