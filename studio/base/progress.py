"""Where long work stands, as a page or a terminal shows it. Knows nothing of what is done."""

from dataclasses import dataclass
from typing import Literal

Job = Literal["open", "survey", "sample", "compress", "chat", "drift", "export"]
"""What can be stopped, each by itself."""
JOBS: tuple[Job, ...] = ("open", "survey", "sample", "compress", "chat", "drift", "export")


@dataclass(frozen=True)
class Event:
    """Where a job stands: ``Event("compress", 0.42, "model.layers.3.mlp.up_proj.weight")``."""

    stage: str
    """A key of the catalogue's ``stage`` table."""
    fraction: float | None = None
    """0 to 1, None where nothing can be counted."""
    detail: str = ""
    is_shared: bool = False
    """Whether it takes turns with another visitor's."""
