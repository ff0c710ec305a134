"""Lines of a picture: nothing is lost, nothing sticks out, and a mark stays where it was."""

from hypothesis import given
from hypothesis import strategies as st

from studio.ui.svg_text import plain, width, wrapped


@given(st.text(alphabet="ab 中文。", max_size=200), st.floats(min_value=2, max_value=30))
def test_lines_join_to_the_text_and_are_no_wider_than_asked(words: str, ems: float) -> None:
    lines = wrapped(words, ems, 1000)
    assert "".join(line.text for line in lines) == words
    assert all(width(line.text) <= ems for line in lines)
    assert [line.start for line in lines] == [sum(len(each.text) for each in lines[:i]) for i in range(len(lines))]


def test_what_does_not_fit_is_said_to_go_on() -> None:
    lines = wrapped("one two three four five", 6.0, 2)
    assert len(lines) == 2
    assert lines[-1].text.endswith("…")


def test_a_mark_is_cut_out_of_the_lines_that_it_spans() -> None:
    lines = wrapped("aaaa bbbb cccc", 3.0, 9)
    assert [line.text for line in lines] == ["aaaa ", "bbbb ", "cccc"]
    assert [line.cut((3, 7)) for line in lines] == [
        [("aaa", False), ("a ", True)],
        [("bb", True), ("bb ", False)],
        [("cccc", False)],
    ]


def test_what_xml_cannot_hold_is_blank() -> None:
    assert plain("a\x00\x1b\n\ud83d\ufffeb") == "a     b"
