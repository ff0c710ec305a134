"""What the sessions of one process share: the models in its memory, and turns at measuring. Knows no session."""

import functools
from dataclasses import dataclass, field

from studio.base.fair_turns import Turns
from studio.chat.model_pool import Pool


@dataclass(frozen=True)
class Shared:
    """Given to a session when it begins; a test that wants to be alone gives it one of its own."""

    pool: Pool = field(default_factory=Pool)
    turns: Turns = field(default_factory=Turns)
    """Of measuring, so that a large model does not keep the others' visitors waiting."""


@functools.cache
def of_this_process() -> Shared:
    """Return the one of this process: there is one memory, however many visitors come."""
    return Shared()
