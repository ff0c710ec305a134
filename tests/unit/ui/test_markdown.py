"""Markdown that models write is made visible, and nothing they write is a tag."""

import re
from html import unescape

import pytest
from hypothesis import given
from hypothesis import strategies as st

from studio.ui.markdown import CLOSES, OPENS, markdown, plain

ALLOWED = re.compile(r'<(/?(pre|code|strong|em)|pre tabindex="0")>')


@pytest.mark.parametrize(
    ("words", "html"),
    [
        ("a < b & c", "a &lt; b &amp; c"),
        ("**bold** and *leaning*", "<strong>bold</strong> and <em>leaning</em>"),
        ("2*3*4 and a_b_c", "2*3*4 and a_b_c"),
        ("use `x < 1`", "use <code>x &lt; 1</code>"),
        ("`**not bold**`", "<code>**not bold**</code>"),
        ("# Title\ntext", "<strong>Title</strong>\ntext"),
        ("- one\n- two", "• one\n• two"),
        ("so:\n```python\nx = 1\n```\nend", 'so:<pre tabindex="0"><code>x = 1</code></pre>end'),
        ("```\nnot closed", '<pre tabindex="0"><code>not closed</code></pre>'),
        ("![x](http://evil/x.png) [y](javascript:1)", "![x](http://evil/x.png) [y](javascript:1)"),
        ("one\n\ntwo", "one\n\ntwo"),
    ],
)
def test_what_models_write(words: str, html: str) -> None:
    assert markdown(words) == html


@given(st.text(alphabet=st.sampled_from("<>&\"'`*#- \nab/=" + OPENS + CLOSES), max_size=60))
def test_nothing_that_is_written_is_a_tag_and_no_word_is_lost(words: str) -> None:
    html = markdown(words)
    assert "<" not in ALLOWED.sub("", html)
    kept = re.sub(r"[\s`*#•+-]", "", unescape(ALLOWED.sub("", html)))
    said = [line for line in words.split("\n") if "```" not in line]
    for letter in "ab/=&":
        assert kept.count(letter) >= sum(line.count(letter) for line in said)
    assert html.count(OPENS) == words.count(OPENS)  # each mark is still there, to be made a tag


def test_what_stands_for_a_mark_cannot_be_written() -> None:
    assert plain(f"a{OPENS}b{CLOSES}c") == "abc"
