"""What the menus offer follows from what is registered, and has its words in every language."""

import pytest

from studio.base.text import LANGUAGES, catalogue
from studio.quantization.methods import Method
from studio.quantization.mode import Mode
from studio.ui.choices import backup_choices, mode_choices, modes, scheme_choices
from studio.ui.method_choices import method_choices
from studio.ui.palette import BITS_COLOURS
from tests import formats_table, made_up

MENU = [
    "int4_asym", "int4_sym", "nf4", "int5_sym", "int8_asym", "int8_sym", "cb4_learned", "cb4",
    "fp4", "nvfp4", "mxfp4", "fp8_e4m3", "mxfp8_e4m3", "int3_sym", "int2_sym",
]  # fmt: skip
"""What people had before them before formats were registered; a new one finds its place among them."""


@pytest.mark.parametrize("language", LANGUAGES)
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
    """``python -m tests.formats_table`` writes it."""
    assert formats_table.FILE.read_text(encoding="utf-8") == formats_table.table()
