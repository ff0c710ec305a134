"""The settings of this process: what its environment says, read once. Knows nothing of models."""

from functools import cache
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from studio.base.variables import Settings


@cache
def settings() -> "Settings":
    """Return the settings of this process. Raises pydantic's ValidationError for a variable that cannot be used."""
    from studio.base.variables import Settings  # pydantic takes longer to import than ``--help`` may take

    return Settings()
