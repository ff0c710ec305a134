"""What the menus offer follows from what is registered, and has its words in every language."""

import pytest

from studio.base.text import LANGUAGES, catalogue
from studio.planning.choice import OPTIONS
from studio.quantization.methods import Method
from studio.quantization.scheme import GROUP_SIZES, WHOLE_CHANNEL, Mode, Scheme
from studio.ui import choices
from studio.ui.choices import backup_choices, mode_choices, modes, scheme_choices
from studio.ui.method_choices import method_choices
from studio.ui.palette import BITS_COLOURS
from tests import formats_table, made_up

MENU = [
    "int4_asym", "int4_sym", "nf4", "int5_sym", "int8_asym", "int8_sym", "cb4_learned", "cb4",
    "fp4", "nvfp4", "mxfp4", "fp8_e4m3", "mxfp8_e4m3", "int3_sym", "int2_sym",
]  # fmt: skip
"""What people had before them before formats were registered; a new one finds its place among them."""

in_every_language = pytest.mark.parametrize("language", LANGUAGES)


def fallbacks(language: str) -> list[tuple[str, str]]:
    return choices.word_choices(OPTIONS["group_size_fallback"], language)


def sensitivities(language: str) -> list[tuple[str, str]]:
    return choices.word_choices(OPTIONS["sensitivity"], language)


@in_every_language
def test_every_registered_word_has_its_text(language: str) -> None:
    keys = {f"plan.mode_{mode}" for mode in Mode}
    keys |= {f"method.{part}{method}" for method in Method for part in ("", "info_")}
    assert keys <= catalogue(language).keys()
    assert {key for key in catalogue(language) if key.startswith("plan.mode_")} - {"plan.mode_info"} <= keys


def test_the_menu_keeps_its_order() -> None:
    assert [mode for mode in modes() if mode in MENU] == MENU
    assert len({mode.stored_as.rank for mode in Mode}) == len(Mode)


def test_the_backups_of_a_mode() -> None:
    assert [value for _, value in backup_choices("en")] == ["int8_asym", "int8_sym", "none"]
    assert [value for _, value in backup_choices("en", Mode.FP4)] == ["fp8_e4m3", "int8_asym", "int8_sym", "none"]


def test_a_made_up_format_is_offered_everywhere() -> None:
    with made_up.registered() as made:
        assert {mode.value for mode in made} <= {value for _, value in mode_choices("en")}
        assert {f"{mode}-g64" for mode in made} <= {value for _, value in scheme_choices("en")}
        assert {mode.bits for mode in made} <= BITS_COLOURS.keys()
    assert [value for _, value in method_choices()] == list(Method)


def test_the_table_in_the_documents_is_that_of_what_is_registered() -> None:
    """``make reference`` writes it."""
    assert formats_table.FILE.read_text(encoding="utf-8") == formats_table.table()


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
    [choices.colour_choices, choices.backup_choices, fallbacks, sensitivities],
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
