"""What the menus offer: every mode, every scheme a layer can be pinned to, in every language, and no name twice."""

import pytest

from studio.base.text import LANGUAGES
from studio.quantization.scheme import GROUP_SIZES, WHOLE_CHANNEL, Mode, Scheme
from studio.ui import choices

in_every_language = pytest.mark.parametrize("language", LANGUAGES)


@in_every_language
def test_every_mode_is_offered_once(language: str) -> None:
    offered = choices.mode_choices(language)
    assert {value for _, value in offered} == set(Mode)
    assert len({words for words, _ in offered}) == len(offered) == len(Mode)


@in_every_language
def test_every_scheme_can_be_pinned_and_read_again(language: str) -> None:
    (_, kept), *schemes = choices.scheme_choices(language)
    assert kept == "none"
    assert {str(Scheme.parse(value)) for _, value in schemes} == {value for _, value in schemes}
    assert {Scheme.parse(value).mode for _, value in schemes} == set(Mode)


@in_every_language
@pytest.mark.parametrize(
    "offered",
    [choices.group_size_fallback_choices, choices.sensitivity_choices, choices.colour_choices, choices.backup_choices],
    ids=lambda offered: offered.__name__,
)
def test_every_other_menu_has_words_of_its_own_for_each(language: str, offered: object) -> None:
    assert callable(offered)
    pairs = offered(language)
    assert len({words for words, _ in pairs}) == len({value for _, value in pairs}) == len(pairs) > 1
    assert all(words.strip() for words, _ in pairs)


def test_a_float_mode_has_its_own_backup_first() -> None:
    assert choices.backup_choices("en", Mode.MXFP4)[0][1] == Mode.MXFP4.default_backup.value
    assert [value for _, value in choices.backup_choices("en")] == ["int8_asym", "int8_sym", "none"]


def test_group_sizes_are_named_by_their_number_but_for_the_whole_channel() -> None:
    offered = choices.group_choices(GROUP_SIZES, "en")
    assert [value for _, value in offered] == list(GROUP_SIZES)
    assert all((words == str(value)) == (value != WHOLE_CHANNEL) for words, value in offered)
