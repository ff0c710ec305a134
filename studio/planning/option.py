"""One thing that can be chosen, in words: read, written and named alike by the terminal, the page and files.

Knows no particular one, and no screen.
"""

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

Word = str | int | float | bool | list[str]
"""What a person types or a file holds in place of a value: plain enough for JSON."""


@dataclass(frozen=True)
class Option:
    """How a field of a choice is said: ``backup: Annotated[Mode | None, Option(parse_backup, str)] = Mode.INT8_ASYM``.

    The terminal has it as ``--key`` (or as ``flags``) with the help ``terminal.help_key``, ``--json`` as ``"key"``, and
    the page as ``#key`` with the texts ``plan.key``, ``plan.key_info`` and ``plan.key_word`` for each word it can be.
    """

    read: Callable[[Any], Any]
    """The value that a word names. Raises SchemeError with the valid ones for a word that names none."""
    write: Callable[[Any], Word]
    """The word for a value."""
    among: tuple[str, ...] = ()
    """The words there are, where they are few."""
    key: str = ""
    """The field's name, where it is called nothing else."""
    flags: tuple[str, ...] = ()
    """What the terminal calls it, the usual one first."""
    default: Any = None
    """The field's."""
    unsaid: Callable[[Any], Any] | None = None
    """What it is where nobody said it, of the choice as far as it was said; None where that is always the default."""
    applies: Callable[[Any], bool] | None = None
    """Whether it makes a difference beside the rest of a choice; None where it always may."""
    can_be_denied: bool = False
    """Of a yes or no: whether the terminal has a word for no, since a target may say yes where nobody does."""
    is_told: Callable[[Any], bool] | None = None
    """Whether a command that makes a choice again has to name it; None for whenever it is not the default."""

    def of(self, name: str, default: Any) -> "Option":
        """Return this option for the field called ``name``."""
        named = replace(self, key=self.key or name, default=default)
        return replace(named, flags=named.flags or (f"--{named.slug}",))

    @property
    def slug(self) -> str:
        """The key as flags and elements of a page are written: ``group-size``."""
        return self.key.replace("_", "-")

    @property
    def default_word(self) -> Word:
        return self.write(self.default)

    @property
    def is_repeated(self) -> bool:
        """Whether it is a list: on a terminal it is given again for each, on the page the map makes it."""
        return isinstance(self.default_word, list)

    def arguments(self, choice: Any, value: Any) -> list[str]:
        """Return the terminal's words for its ``value`` in ``choice``, none where they need not be said."""
        if not (value != self.default if self.is_told is None else self.is_told(choice)):
            return []
        word, flag = self.write(value), self.flags[0]
        if isinstance(word, bool):
            return [flag]
        if isinstance(word, list):
            return [part for each in word for part in (flag, each)]
        return [flag, repr(word).removesuffix(".0") if isinstance(word, float) else str(word)]
