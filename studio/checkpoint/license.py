"""What a model's card says of its license: read from strangers' cards, carried over into ours. Knows no model."""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from studio.checkpoint.card_facts import facts_of

IDENTIFIER = re.compile(r"[A-Za-z0-9][A-Za-z0-9._+-]{0,63}")
OTHER = "other"
"""The Hub's word for a license that is not on its list, which then has a name."""


@dataclass(frozen=True)
class License:
    """``License("apache-2.0")``, ``License("other", "tongyi-qianwen")``; empty where nobody said."""

    id: str = ""
    name: str = ""

    @property
    def forbids_derivatives(self) -> bool:
        """Whether it says that what was made of the model must not be shared: Creative Commons' "NoDerivatives"."""
        return "nd" in (self.id.lower().split("-") + self.name.lower().split("-"))

    @classmethod
    def of(cls, facts: Mapping[str, object]) -> "License":
        """Return what a card's facts say; nothing for what cannot be a license's name."""
        said = facts.get("license")
        found, name = (_identifier(each) for each in (said, facts.get("license_name")))
        return cls(found, name if found == OTHER else "")


UNKNOWN = License()


def of_card(file: Path) -> License:
    """Return what the card in ``file`` says, nothing where there is none."""
    return License.of(facts_of(file))


def _identifier(said: object) -> str:
    """Return a license's name, of a list the first."""
    first = next(iter(said), "") if isinstance(said, list) else said
    return first if isinstance(first, str) and IDENTIFIER.fullmatch(first) else ""
