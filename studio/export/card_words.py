"""Words from outside as a card may hold them: in Markdown as code, in YAML as JSON. Knows nothing of models."""

import json
from collections.abc import Mapping

MAX_WORDS = 120
ALLOWED = frozenset(" ._/-:+#,@")
"""Beside letters and digits: what names are joined with, and no mark of Markdown, HTML or YAML's strings."""


def front_matter(facts: Mapping[str, object]) -> str:
    """Return facts between two lines of dashes, those without a value left out: YAML, of which JSON is a part."""
    lines = "\n".join(f"{key}: {_quoted(value)}" for key, value in facts.items() if value)
    return f"---\n{lines}\n---"


def shown(words: str, as_code: bool = True) -> str:
    """Return words as Markdown that is shown as it stands: no link, no markup."""
    return f"`{plain(words)}`" if as_code else plain(words).replace("_", "-").replace("#", "")


def plain(words: str) -> str:
    """Return words as one line of letters, digits and what names are joined with."""
    kept = "".join(c for c in words[: 8 * MAX_WORDS] if c.isalnum() or c in ALLOWED)
    return kept[:MAX_WORDS].strip() or "unnamed"


def _quoted(value: object) -> str:
    return json.dumps(
        [plain(each) for each in value] if isinstance(value, list) else plain(str(value)), ensure_ascii=False
    )
