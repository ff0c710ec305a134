"""Pieces of HTML: every word of a stranger's is escaped, and a bar says what is known and not more."""

import pytest

from studio.base.fair_turns import Line
from studio.base.progress import Progress
from studio.base.text import LANGUAGES
from studio.ui.html import notice, progress, table

MARKUP = "<script>alert('x')</script>"


def test_words_are_escaped_wherever_they_stand() -> None:
    for html in (notice(MARKUP), progress(Progress("compress", 1, 2, MARKUP), "en"), table([MARKUP], [[MARKUP]])):
        assert "<script" not in html
        assert "&lt;script&gt;" in html


def test_nothing_to_say_is_nothing() -> None:
    assert notice("") == ""


@pytest.mark.parametrize(("kind", "role"), [("error", "alert"), ("", "status"), ("good", "status")])
def test_only_what_went_wrong_is_announced_at_once(kind: str, role: str) -> None:
    assert f'role="{role}"' in notice("Something.", kind)


def test_a_bar_says_how_far_it_is_where_that_is_known() -> None:
    known, unknown = progress(Progress("compress", 426, 1000), "en"), progress(Progress("compress"), "en")
    assert 'aria-valuenow="43"' in known
    assert "43 %" in known
    assert "aria-valuenow" not in unknown
    assert " %" not in unknown


def test_a_table_has_its_heads_and_rows() -> None:
    html = table(["a", "b"], [["1", "2"], ["3", "4"]])
    assert html.count("<th ") == 2
    assert html.count("<td>") == 4
    assert html.count("<tr>") == 3


@pytest.mark.parametrize("language", LANGUAGES)
def test_who_waits_for_a_place_is_told_how_many_come_before_and_how_long_it_takes(language: str) -> None:
    unknown = progress(Progress("queue", line=Line(2, None)), language)
    known = progress(Progress("queue", line=Line(2, 40.4)), language)
    assert "2" in unknown
    assert "40" not in unknown
    assert "40" in known
    assert "progressbar" not in known, "nothing has begun"
    assert "0" not in progress(Progress("queue", line=Line(0, None)), language), "who is next is told that"
