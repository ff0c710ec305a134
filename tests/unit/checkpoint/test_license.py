"""A license as a stranger's card says it: a name that can be one, or nothing."""

from pathlib import Path

import pytest

from studio.checkpoint.license import UNKNOWN, License, of_card


@pytest.mark.parametrize(
    ("card", "expected"),
    [
        ("---\nlicense: apache-2.0\n---\n# A model", License("apache-2.0")),
        ('---\ntags: [a]\nlicense: "mit"\n---\n', License("mit")),
        ("---\nlicense: [mit, bsd]\n---\n", License("mit")),
        ("---\nlicense: other\nlicense_name: tongyi-qianwen\n---\n", License("other", "tongyi-qianwen")),
        ("---\nlicense: mit\nlicense_name: mine\n---\n", License("mit")),
        ("---\nlicense: <script>\n---\n", UNKNOWN),
        ("---\nlicense: mit\n", UNKNOWN),
        ("# A card\nlicense: mit\n", UNKNOWN),
        ("", UNKNOWN),
    ],
    ids=["plain", "quoted", "several", "other", "named-but-listed", "markup", "no-end", "no-facts", "empty"],
)
def test_what_a_card_says(tmp_path: Path, card: str, expected: License) -> None:
    (tmp_path / "README.md").write_text(card)
    assert of_card(tmp_path / "README.md") == expected


def test_without_a_card_nothing_is_known(tmp_path: Path) -> None:
    assert of_card(tmp_path / "README.md") == UNKNOWN


@pytest.mark.parametrize(
    ("facts", "expected"),
    [
        ({"license": ["mit", "bsd"]}, License("mit")),
        ({"license": 3}, UNKNOWN),
        ({"license": []}, UNKNOWN),
        ({}, UNKNOWN),
    ],
    ids=["list", "number", "empty-list", "nothing"],
)
def test_what_the_hub_says(facts: dict[str, object], expected: License) -> None:
    assert License.of(facts) == expected
