"""A machine and a context as words: ``fits:8GB@8k``, ``fits:laptop16``. Knows no model, and not what fits."""

import re
from dataclasses import dataclass

from studio.planning.amount import Amount
from studio.planning.hosts import GB, HOSTS, Host, own_host

PREFIX = "fits:"
KILO = 1024
KV_BITS = (16, 8, 4)
"""What keys and values can be kept in."""
FORM = re.compile(
    r"fits:(?P<host>[a-z0-9. ]{1,30})(?:@(?P<count>\d{1,9})(?P<kilo>k?))?(?:/kv(?P<bits>16|8|4))?", re.ASCII
)


@dataclass(frozen=True)
class Room:
    """Where a model is to run, and with how much of a text before its eyes."""

    where: str
    """A machine of the menu, or its memory: ``laptop16``, ``8GB``."""
    tokens: int | None = None
    """Of context; None where it was not said."""
    kv_bits: int = 16
    """Of a key or a value that is kept."""

    @classmethod
    def parse(cls, words: str) -> "Room | None":
        """Return what ``fits:MACHINE[@CONTEXT][/kvBITS]`` names, None for other words.

        MACHINE is one of the menu or its memory, of which what the system takes is taken off as from a visitor's own.
        """
        found = FORM.fullmatch(words.strip().lower())
        where = "" if found is None else _where(found["host"].strip())
        if found is None or not where:
            return None
        tokens = None if found["count"] is None else int(found["count"]) * (KILO if found["kilo"] else 1)
        return None if tokens == 0 else cls(where, tokens, int(found["bits"] or 16))

    def __str__(self) -> str:
        context = "" if self.tokens is None else f"@{_tokens(self.tokens)}"
        return f"{PREFIX}{self.where}{context}{'' if self.kv_bits == 16 else f'/kv{self.kv_bits}'}"

    @property
    def host(self) -> Host:
        """The machine."""
        return HOSTS[self.where] if self.where in HOSTS else own_host(_gigabytes(self.where), 0)


def _where(words: str) -> str:
    """Return a machine as it is written, nothing for what is none."""
    if words in HOSTS:
        return words
    return str(Amount.parse(words)) if own_host(_gigabytes(words), 0).memory else ""


def _gigabytes(words: str) -> float:
    memory = Amount.parse(words)
    return 0.0 if memory is None or memory.nbytes is None else memory.nbytes / GB


def _tokens(count: int) -> str:
    return f"{count // KILO}k" if count % KILO == 0 else str(count)
