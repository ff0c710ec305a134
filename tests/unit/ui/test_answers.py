"""Where answers to different conversations part, what a piece of a character is called, and the switch of a phone."""

import re

import pytest

from studio.base.text import LANGUAGES, text
from studio.chat.answer import ModelInfo, Reply
from studio.chat.answers import Answers
from studio.runtime.decoder import Backend
from studio.ui.answers import differing_word, pane_switch, turn_bubbles, word

INFO = ModelInfo(Backend.GENERAL, "", 1, 1, False, (16,), 2048)


def answers(one: str, other: str, *, is_compared: bool = False, ended: bool = True) -> Answers:
    replies = tuple(Reply(said, tokens=3, ended="stop" if ended else "") for said in (one, other))
    return Answers(replies, (INFO, INFO), is_compared=is_compared)


@pytest.mark.parametrize(
    ("one", "other", "words"),
    [
        ("It is in Paris, France.", "It is in Parma.", ("Paris,", "Parma.")),
        ("Yes", "Yes and no", ("Yes", "Yes")),
        ("巴黎是首都", "巴黎不是", ("是首都", "不是")),
        ("Same.", "Same.", None),
    ],
)
def test_the_first_other_word_of_later_turns_is_marked(one: str, other: str, words: tuple[str, str] | None) -> None:
    given = answers(one, other)
    places = [differing_word(given, column) for column in (0, 1)]
    if words is None:
        assert places == [None, None]
        return
    for said, place, wanted in zip((one, other), places, words, strict=True):
        assert place is not None
        assert said[slice(*place)] == wanted
    for column, wanted in enumerate(words):
        [marked] = re.findall(r"<mark[^>]*>([^<]*)</mark>", turn_bubbles("?", given, column, "en")[1]["content"])
        assert marked == wanted
        assert text("part.words") in turn_bubbles("?", given, column, "en")[1]["content"]


def test_what_is_compared_token_by_token_or_still_comes_is_left_alone() -> None:
    assert differing_word(answers("a b", "a c", is_compared=True), 0) is None
    assert differing_word(answers("a b", "a b c", ended=False), 0) is None
    assert differing_word(answers("a x", "a b c", ended=False), 0) == (2, 3)


@pytest.mark.parametrize("language", LANGUAGES)
def test_a_piece_of_a_character_is_no_broken_sign(language: str) -> None:
    assert word("\ufffd", language) == text("part.piece", language)
    assert word(" \ufffd\ufffd", language) == text("part.piece", language)
    assert "Paris" in word(" Paris", language)


@pytest.mark.parametrize("language", LANGUAGES)
def test_the_switch_says_which_column_is_in_sight(language: str) -> None:
    pressed = re.findall(r'data-pane="(\w+)" aria-pressed="(\w+)">([^<]*)<', pane_switch(language))
    assert pressed == [
        ("original", "true", text("chat.original", language)),
        ("compressed", "false", text("chat.compressed", language)),
    ]
