"""Whose a session is, in numbers that say nothing else of them. Knows no session."""

from dataclasses import dataclass


@dataclass(frozen=True)
class Visitor:
    """A browser that came to the page; by itself the one who sits at this machine."""

    number: int = 0
    """Counted from 1 since the server began; 0 for the terminal and the library."""
    address: int = 0
    """The address it came from, counted likewise: several visitors may have the same."""
    is_owner: bool = True
    """Whether it sits at this machine: then local paths may be models, and no limit counts by time."""
