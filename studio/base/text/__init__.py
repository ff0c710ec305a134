"""Every word a person reads, one catalogue per language. Knows nothing of the rest of the studio.

A catalogue is a TOML file; ``[error]`` with ``empty_prompt = "…"`` is read as ``error.empty_prompt``. Values may hold
``{name}`` places, filled by :func:`text`.
"""

import tomllib
from functools import cache
from importlib.resources import files
from typing import Any

LANGUAGES = {"en": "English", "zh-Hans": "简体中文", "zh-Hant": "繁體中文"}
"""Language tag -> its own name, in the order of the switch."""

DEFAULT = "en"


def text(key: str, language: str = DEFAULT, /, **values: object) -> str:
    """Return the sentence ``key`` in ``language`` with its places filled.

    Raises KeyError for a key the catalogue lacks: a missing text is a bug, never a blank on the page.
    """
    sentence = catalogue(language)[key]
    return sentence.format(**values) if values else sentence


@cache
def catalogue(language: str) -> dict[str, str]:
    """Return all of one language's texts, keys joined by dots."""
    source = files(__package__).joinpath(f"{language}.toml").read_text(encoding="utf-8")
    return dict(_flatten("", tomllib.loads(source)))


def _flatten(prefix: str, table: dict[str, Any]) -> list[tuple[str, str]]:
    pairs: list[tuple[str, str]] = []
    for name, value in table.items():
        if isinstance(value, dict):
            pairs += _flatten(f"{prefix}{name}.", value)
        else:
            pairs.append((prefix + name, value))
    return pairs


def preferred(accept_language: str) -> str:
    """Return the language that an ``Accept-Language`` header asks for first, of those we have.

    Chinese of Taiwan, Hong Kong and Macau is traditional, every other Chinese simplified (BCP 47 likely subtags).
    """
    wishes = []
    for part in accept_language.split(","):
        tag, _, quality = part.partition(";")
        try:
            weight = float(quality.replace(" ", "").removeprefix("q=") or 1)
        except ValueError:
            weight = 0.0
        if weight > 0:
            wishes.append((-weight, tag.strip().lower().split("-")))
    for _, (language, *details) in sorted(wishes, key=lambda wish: wish[0]):
        if language == "zh":
            traditional = "hant" in details or ("hans" not in details and not {"tw", "hk", "mo"}.isdisjoint(details))
            return "zh-Hant" if traditional else "zh-Hans"
        if language == "en":
            return "en"
    return DEFAULT
