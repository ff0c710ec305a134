"""No word of a stranger acts in a card: not in Markdown, not in HTML, not in YAML, whatever it says."""

import re
from typing import Any

import pytest
import yaml
from hypothesis import example, given, settings
from hypothesis import strategies as st
from pydantic import ValidationError

from studio.checkpoint.license import License
from studio.checkpoint.recipe import Calibration, Choices, Exported, PackedWeight, Recipe, Source, file_name
from studio.export.model_card import export_card, model_card

HOSTILE = st.one_of(
    st.text(max_size=300),
    st.text(alphabet='`*_[]()<>&"\'\\{}|#!-:\n\r\t\x00\x1b\u2028\u202e/.$~', max_size=300),
    st.sampled_from(
        [
            "..", "../../etc/passwd", "/", "a/../b", "x" * 10_000, "`" * 10_000, "a\n---\nlicense: mit\n---\n",
            "<script>alert(1)</script>", "<img src=x onerror=alert(1)>", "[a](javascript:alert(1))", "![a](https://b)",
            "a`b`<b>c</b>", "\x1b[31m", "\u202eevil", "${HOME}", "$(rm -rf /)", "; rm -rf /", "| a | b |", "\ud800",
            "'\"`", "{{ x }}", "&lt;b&gt;", "null", "!!python/object:os.system", "*anchor", "", " ", "-", "%2e%2e",
        ]
    ),
)  # fmt: skip
KEYS = {
    "base_model", "base_model_relation", "license", "license_name", "library_name", "pipeline_tag", "tags",
}  # fmt: skip
MADE = {"gguf": "model.gguf", "studio": "model.zip"}


def recipe(words: str, other: str) -> Recipe:
    told = other.encode("utf-8", "replace").decode()  # what pydantic takes; a config may say more in a source's name
    weight = PackedWeight(name="w", shape=(1, 1), scheme="int8_sym", relative_error=0.0)
    return Recipe(
        source=Source.model_construct(
            model=words, revision=other, format=words, base_model=other, license=License(words, other), files={}
        ),
        choices=Choices(
            mode="int4_asym", group_size=64, ratio=1.0, backup="none", group_size_fallback="error",
            calibration=Calibration(text=told),
        ),
        weights=(weight,),
        original_bytes=2000,
        compressed_bytes=600,
        versions={"quantization-studio": told},
        sha256={},
    )  # fmt: skip


@settings(max_examples=150, deadline=None)
@given(HOSTILE, HOSTILE)
@example("x" * 10_000, "<b>`\n---\n")
def test_whatever_names_say(words: str, other: str) -> None:
    made = recipe(words, other)
    exports = [Exported(file=file, target=target, nbytes=1, sha256="0" * 64) for target, file in MADE.items()]
    harmless = recipe("a" if words else "", "b" if other else "")  # what is not there is not told of
    plain = export_card(harmless, 1000, exports, has_map=True)
    for card, expected in (
        (model_card(made, 1000), model_card(harmless, 1000)),
        (export_card(made, 1000, exports, has_map=True), plain),
    ):
        _, front, body = card.split("---\n", 2)
        facts: Any = yaml.safe_load(front)
        assert set(facts) <= KEYS
        assert facts["library_name"] in ("gguf", "quantization-studio")
        assert all(isinstance(facts[key], str) and len(facts[key]) <= 120 for key in facts if key != "tags")
        outside = body.split("`")[::2]  # nothing of a stranger's stands outside of code, but for a version
        assert [skeleton(piece) for piece in outside] == [skeleton(piece) for piece in outside_of(expected)]
        assert len(body) < 10_000
        assert not set(card) & set("\x00\x1b\u2028\u202e\ud800\r\t")


def outside_of(card: str) -> list[str]:
    return card.split("---\n", 2)[2].split("`")[::2]


def skeleton(piece: str) -> str:
    """Return a piece of text without the version that it names."""
    return re.sub(r"(compressed by Quantization Studio )[^\n]*", r"\1", piece)


@settings(max_examples=300, deadline=None)
@given(HOSTILE)
def test_a_file_is_called_what_can_be_a_file(words: str) -> None:
    name = file_name(words)
    assert 0 < len(name) <= 80
    assert re.fullmatch(r"[\w.-]+", name)
    assert not name.startswith((".", "-"))
    name.encode()


@pytest.mark.parametrize(
    "name", ["..", ".", "../a", "a/b", "a\\b", "", "-rf", "a`b", "a$b", "a\nb", "a;b", "x" * 300, ".a"]
)
def test_a_recipe_names_no_file_that_is_a_path_or_a_command(name: str) -> None:
    with pytest.raises(ValidationError):
        Exported(file=name, target="gguf", nbytes=1, sha256="0" * 64)
