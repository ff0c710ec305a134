"""The card of an export names the model, its license, and how to get the studio; no word of a stranger's acts in it."""

from pathlib import Path
from typing import Any

import pytest
import yaml

from studio.checkpoint.license import UNKNOWN, License, of_card
from studio.checkpoint.recipe import Calibration, Choices, Recipe, Source
from studio.export.model_card import model_card

SMOL = Source(
    model="builtin",
    revision="0123",
    format="Q4_1/Q8_0",
    base_model="HuggingFaceTB/SmolLM2-135M-Instruct",
    license=License("apache-2.0"),
    languages=("en", "no"),
)
LOCAL = Source(model="my-model", revision="0123", format="BF16")
HOSTILE = 'x"\nlicense: mit\n---\n# <b>a</b> [a](https://b.example) `| www.c.example ![d](e)\u2028\u202e\ud800 {{ f }}'


def card(source: Source, can_chat: bool = True, calibration: str = "") -> str:
    recipe = Recipe(
        source=source,
        choices=Choices(
            mode="int4_asym",
            group_size=64,
            ratio=1.0,
            backup="int8_asym",
            group_size_fallback="error",
            calibration=Calibration(text=calibration) if calibration else None,
        ),
        weights=(),
        original_bytes=2000,
        compressed_bytes=600,
        versions={"quantization-studio": "0.1.0"},
        sha256={},
    )
    return model_card(recipe, 1000, can_chat)


def facts(text: str) -> dict[str, Any]:
    found: dict[str, Any] = yaml.safe_load(text.split("---\n")[1])
    return found


def test_a_model_of_the_hub_is_named_with_its_license() -> None:
    text = card(SMOL)
    assert facts(text) == {
        "base_model": "HuggingFaceTB/SmolLM2-135M-Instruct",
        "base_model_relation": "quantized",
        "license": "apache-2.0",
        "language": ["en", "no"],
        "library_name": "quantization-studio",
        "pipeline_tag": "text-generation",
        "tags": ["quantization-studio", "int4_asym"],
    }
    assert "\n# `SmolLM2-135M-Instruct`, int4_asym\n" in text
    assert "Weights of `HuggingFaceTB/SmolLM2-135M-Instruct`" in text
    assert "license is that of the original model, `apache-2.0`." in text
    assert "builtin" not in text


def test_a_folder_is_named_and_claims_no_origin() -> None:
    assert facts(card(LOCAL)).keys() == {"library_name", "pipeline_tag", "tags"}
    assert "\n# `my-model`, int4_asym\n" in card(LOCAL)


def test_the_studio_is_installed_and_asked_as_it_says() -> None:
    text = card(SMOL)
    assert "pip install -r requirements.txt\npython -m studio chat PATH_OF_THIS_FOLDER --prompt" in text
    root = Path(__file__).parents[3]
    assert (root / "requirements.txt").is_file()
    assert "http" not in text


def test_an_encoder_is_not_said_to_chat() -> None:
    text = card(SMOL, can_chat=False)
    assert "python -m studio chat" not in text
    assert "pipeline_tag" not in facts(text)


def test_a_license_that_is_not_on_the_hubs_list_keeps_its_name() -> None:
    told = facts(card(SMOL.model_copy(update={"license": License("other", "tongyi-qianwen")})))
    assert (told["license"], told["license_name"]) == ("other", "tongyi-qianwen")


@pytest.mark.parametrize("field", ["model", "revision", "format", "base_model", "license"])
def test_words_of_a_stranger_are_only_shown(field: str) -> None:
    said: Any = License(HOSTILE, HOSTILE) if field == "license" else HOSTILE
    text = card(SMOL.model_copy(update={field: said, "base_model": HOSTILE if field == "base_model" else ""}), True)
    assert_harmless(text)
    assert facts(text).keys() <= {*facts(card(SMOL)), "license_name"}
    assert facts(text).get("license") != "mit"


def test_so_are_those_of_a_calibration() -> None:
    assert_harmless(card(SMOL, calibration=HOSTILE))


def assert_harmless(text: str) -> None:
    """Outside code nothing stands that the card does not say by itself, and nothing breaks out of the code."""
    body = text.split("---\n", 2)[2]
    outside = body.split("`")[::2]
    assert not any(word in piece for piece in outside for word in ("example", "<b", "](", "{{"))
    assert body.count("`") % 2 == 0
    assert not set(text) & set("\u2028\u202e\ud800<>")
    assert len(text.split("\n---\n")) == 2


@pytest.mark.parametrize(
    ("text", "license"),
    [
        ("---\nlicense: apache-2.0\ntags: [a]\n---\n# A", License("apache-2.0")),
        ("---\ntags:\n- a\nlicense: [mit]\r\n---\n", License("mit")),
        ("---\nlicense: other\nlicense_name: 'qwen-research'\n---\n", License("other", "qwen-research")),
        ("---\nlicense: mit\nlicense_name: x\n---\n", License("mit")),
        ('---\nlicense: "a b\\n"\n---\n', UNKNOWN),
        ("---\nlicense: <b>\n---\n", UNKNOWN),
        ("---\nlicense: mit\nno end", UNKNOWN),
        ("# A card\n---\nlicense: mit\n---\n", UNKNOWN),
        ("---\n" + "a: b\n" * 100_000 + "license: mit\n---\n", UNKNOWN),
        ("", UNKNOWN),
    ],
)
def test_a_license_is_read_from_a_card(tmp_path: Path, text: str, license: License) -> None:
    (tmp_path / "README.md").write_bytes(text.encode())
    assert of_card(tmp_path / "README.md") == license


def test_without_a_card_there_is_none(tmp_path: Path) -> None:
    (tmp_path / "README.md").mkdir()
    assert of_card(tmp_path / "README.md") == of_card(tmp_path / "nowhere") == UNKNOWN


@pytest.mark.parametrize("said", [None, 7, {"a": 1}, [], [7], "a\nb", "x" * 100, ["mit", "gpl"]])
def test_what_the_hub_says_is_no_more_trusted(said: object) -> None:
    assert License.of({"license": said}) == (License("mit") if isinstance(said, list) and "mit" in said else UNKNOWN)


@pytest.mark.parametrize(
    ("license", "forbids"),
    [
        (License("cc-by-nd-4.0"), True),
        (License("cc-by-nc-nd-4.0"), True),
        (License("other", "acme-research-ND"), True),
        (License("cc-by-nc-4.0"), False),
        (License("apache-2.0"), False),
        (License("andrea"), False),
        (UNKNOWN, False),
    ],
)
def test_a_license_that_forbids_derivatives_is_named(license: License, forbids: bool) -> None:
    assert license.forbids_derivatives is forbids
    text = card(SMOL.model_copy(update={"license": license}))
    assert ("It forbids to share what was derived" in text) is forbids
