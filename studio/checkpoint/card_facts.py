"""What a model's card says for machines, in the lines between two lines of dashes. Trusts no word; knows no model."""

import re
from collections.abc import Mapping
from pathlib import Path

MAX_CARD_BYTES = 1 << 16
"""Of a card's beginning, where these lines stand."""
KEYS = ("license", "license_name", "language")
"""What is read; all else is passed over."""
LANGUAGE = re.compile(r"[A-Za-z]{2,16}(?:[-_][A-Za-z0-9]{2,8}){0,2}")
"""``en``, ``zh-Hant``, ``multilingual``."""
COMMENT = re.compile(r"(?:^|\s)#.*")
"""To the end of a line."""
MAX_LANGUAGES = 200

Facts = dict[str, str | list[str]]


def facts_of(file: Path) -> Facts:
    """Return what the card in ``file`` says, nothing where there is none, or the second line of dashes is missing."""
    try:
        with file.open("rb") as stream:
            lines = iter(stream.read(MAX_CARD_BYTES).decode("utf-8-sig", "replace").splitlines())
    except OSError:
        return {}
    facts: Facts = {}
    items: list[str] | None = None  # those of a list that stands a line each
    if next(lines, "").strip() == "---":
        for line in lines:  # not by a library: of all that YAML can say, three facts matter, and a stranger wrote it
            if line.strip() == "---":
                return facts
            line = COMMENT.sub("", line)
            if not line.strip():
                continue
            if items is not None and re.match(r"\s*-\s", line):
                items.append(_plain(line.strip()[1:]))
            else:
                items = _read(line, facts)
    return {}


def _read(line: str, facts: Facts) -> list[str] | None:
    """Take in a line ``key: value``; return the list of its values where these stand in the lines below."""
    key, colon, value = line.partition(":")
    if not colon or key not in KEYS:
        return None
    value = value.strip()
    if value.startswith("[") and value.endswith("]"):
        facts[key] = [_plain(each) for each in value[1:-1].split(",") if each.strip()]
    elif value:
        facts[key] = _plain(value)
    else:
        facts[key] = items = list[str]()
        return items
    return None


def _plain(value: str) -> str:
    return value.strip().strip("'\"")


def languages_of(facts: Mapping[str, object]) -> tuple[str, ...]:
    """Return the languages that a card says a model writes, ``("en", "zh")``: what can be none's name is left out."""
    said = facts.get("language")
    each = said if isinstance(said, list) else [said]
    found = [one for one in each[:MAX_LANGUAGES] if isinstance(one, str) and LANGUAGE.fullmatch(one)]
    return tuple(dict.fromkeys(found))
